"""HTTP/1.1 as bytes and nothing else: no socket, no clock, no logger."""
