"""Handler classes that need a blocking socket: one thread and one call at a time."""
