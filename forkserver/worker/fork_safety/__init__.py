"""Whether an import left something behind that a fork would break."""
