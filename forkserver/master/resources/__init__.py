"""What the master keeps open: listeners, logs, pid file, spool folder, descriptor store."""
