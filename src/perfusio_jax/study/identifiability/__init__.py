"""What runs as they were recorded can tell of the constants behind them, and what they cannot."""
