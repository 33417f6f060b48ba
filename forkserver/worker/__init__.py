"""Template and worker processes: what the application's import leaves, and whether workers can share it."""
