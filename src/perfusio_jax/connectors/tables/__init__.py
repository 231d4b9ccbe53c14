"""A table and what its text means: cells, columns, time stamps, totals, samples."""
