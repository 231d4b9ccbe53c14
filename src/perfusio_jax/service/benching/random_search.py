"""Random search as an outsider's method: what anything better has to beat."""

import numpy as np


class RandomSearch:
    """Points anywhere in the ranges."""

    def __init__(self, space, seed):
        """Remember the ranges."""
        self.space, self.rng = space, np.random.default_rng(seed)

    def ask(self, n):
        """Points to be run."""
        share = self.rng.random((n, len(self.space.names)))
        return self.space.lower + share * (self.space.upper - self.space.lower)

    def tell(self, x, value, slack):
        """Nothing is learned."""


make = RandomSearch
