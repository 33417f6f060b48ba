"""The threads of a worker: application threads, the background driver, and the lock that they share."""
