"""The plain exchange in C, where it was built; the Python code is the reference, and serves without it."""
