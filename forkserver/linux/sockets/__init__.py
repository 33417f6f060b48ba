"""Listening sockets and what the kernel knows of them."""
