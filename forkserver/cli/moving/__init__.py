"""Moving over from another server: its configuration read, and written as a forkserver.toml."""
