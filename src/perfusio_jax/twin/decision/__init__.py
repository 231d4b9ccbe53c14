"""What to do: a pure decision, a pure gate, and the models that learn."""
