"""System calls and kernel files; nothing here knows what forkserver does with them."""
