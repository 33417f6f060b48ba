"""Loading the application: its directory, import path, name, faults, and a warm-up."""
