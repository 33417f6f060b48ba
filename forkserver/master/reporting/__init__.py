"""What the master tells: log lines, the line at the start, and what systemd shows."""
