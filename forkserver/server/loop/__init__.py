"""Which connection runs when: the event loop, its timeouts and threads."""
