"""Benchmarks that come with the package: methods on frozen problems, and a quick look at speed."""
