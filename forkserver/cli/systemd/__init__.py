"""The unit of systemd: made for a machine, and those that are shipped; and what they are made of."""
