"""What runs: one reactor in a loop, a rack of them, and what people ask of it."""
