"""What the master watches: requests that take too long, memory, crashes, counters."""
