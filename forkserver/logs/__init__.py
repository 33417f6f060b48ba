"""The error log and the access log, and their files."""
