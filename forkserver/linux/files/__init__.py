"""Opening files that other users could replace, and their permissions."""
