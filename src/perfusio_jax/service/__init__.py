"""What the commands `run`, `replay` and `forecast` do: configurations in, twins out."""
