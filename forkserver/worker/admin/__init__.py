"""The admin process: an HTTP server for metrics, health and status, without code of the application."""
