"""Types of setting values: each reads what a person wrote, checks it, and shows it again."""
