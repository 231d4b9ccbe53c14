"""Benchmarks: `python -m benchmarks.NAME` prints a table and one line of key=value pairs."""
