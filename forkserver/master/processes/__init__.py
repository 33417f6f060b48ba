"""The master's processes: starting them, holding them by pidfd, verifying their pids, and their rows."""
