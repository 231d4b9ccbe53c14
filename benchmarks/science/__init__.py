"""Scientific benchmarks: tables for RESULTS.md."""
