"""Bytes that wait in memory or in temporary files: request bodies and unsent responses."""
