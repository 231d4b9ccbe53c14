"""The best schedule of a whole run: set-points, feeds and shifts, under limits."""
