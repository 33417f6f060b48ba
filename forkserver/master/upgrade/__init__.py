"""Replacing the running program by a newer one without closing a socket (SIGUSR2)."""
