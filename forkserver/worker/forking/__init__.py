"""Forking: workers twice, so that each is the child of the master and known to it at once, and the master's helpers."""
