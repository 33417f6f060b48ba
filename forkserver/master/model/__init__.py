"""Facts and rules of supervision: no system call, no clock, no text for the operator."""
