"""How master, template and workers talk: channels, messages, shared memory."""
