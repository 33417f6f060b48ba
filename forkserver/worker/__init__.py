"""Processes that the master starts: template, workers, admin; and whether workers can share the import."""
