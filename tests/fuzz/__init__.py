"""Random and mutated bytes against a running server: `python -m tests.fuzz`."""
