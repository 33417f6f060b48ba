"""Moving open connections from one worker to another."""
