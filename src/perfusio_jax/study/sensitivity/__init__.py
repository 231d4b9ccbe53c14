"""What moves a run: derivatives at one point, and shares of the spread over whole ranges."""
