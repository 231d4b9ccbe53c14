"""Runs that tell most: set-points and sampling times chosen by what they would say of constants."""
