"""What proxies say of their clients: PROXY headers and Forwarded fields."""
