"""What is done when clients are slow or connections run short: rates, eviction, refusal."""
