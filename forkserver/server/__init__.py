"""What a worker does with connections: from accept to close, around a synchronous application."""
