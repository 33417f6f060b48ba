"""The application side of PEP 3333: environ, call, response."""
