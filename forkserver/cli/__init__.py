"""The two programs, forkserver and forkserverctl."""
