"""One client: its bytes in, its bytes out, and what waits between."""
