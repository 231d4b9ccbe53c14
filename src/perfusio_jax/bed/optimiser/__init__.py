"""How a maximum is found: starting points, ascent within limits, whole numbers."""
