"""``forkserverctl top``: what the service does, drawn anew as it changes."""
