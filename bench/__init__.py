"""Benchmarks of the server, beside what limits it."""
