"""Frozen problems behind ask and tell, on which methods of anybody are compared."""
