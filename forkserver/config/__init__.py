"""Settings: the table, the types of values, the sources, and the checks."""
