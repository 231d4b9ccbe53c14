"""BoTorch as an outsider's method: qLogNEI on a Gaussian process for value and each limit.

`perfusio-jax benchmark run benchmarks/botorch_method.py`
"""

import importlib

import numpy as np
from scipy.stats import qmc

from perfusio_jax._core import ConfigError

_FIRST = 8


class BoTorchSearch:
    """A space-filling start, then batches of the noisy log expected improvement."""

    def __init__(self, space, seed):
        """Load BoTorch.

        Raises:
            ConfigError: If it is not installed.
        """
        try:
            for name in ("torch", "gpytorch", "botorch"):
                importlib.import_module(name)
        except ImportError as error:
            raise ConfigError(
                f"{error.name} is not installed: pip install 'perfusio-jax[bench]', which brings "
                "torch, or name another method (random, a module of yours)."
            ) from None
        self.space, self.seed = space, seed
        self.x = np.zeros((0, len(space.names)))
        self.y = np.zeros((0, 1 + space.n_limits))

    def ask(self, n):
        """Points to be run."""
        lower, width = self.space.lower, self.space.upper - self.space.lower
        if len(self.x) < _FIRST:
            engine = qmc.Sobol(len(lower), rng=np.random.default_rng([self.seed, len(self.x)]))
            return lower + width * engine.random(n)
        return lower + width * self._proposed(n)

    def tell(self, x, value, slack):
        """Keep what was read; a run that failed is a bad one."""
        least = np.nanmin(np.append(self.y[:, 0], value))
        value = np.where(np.isfinite(value), value, least)
        slack = np.where(np.isfinite(slack), slack, -1.0)
        self.x = np.concatenate([self.x, (x - self.space.lower) / self._width])
        self.y = np.concatenate([self.y, np.concatenate([value[:, None], slack], axis=1)])

    @property
    def _width(self):
        return self.space.upper - self.space.lower

    def _proposed(self, n):
        import torch
        from botorch.acquisition.logei import qLogNoisyExpectedImprovement
        from botorch.acquisition.objective import GenericMCObjective
        from botorch.fit import fit_gpytorch_mll
        from botorch.models import ModelListGP, SingleTaskGP
        from botorch.models.transforms import Standardize
        from botorch.optim import optimize_acqf
        from gpytorch.mlls import SumMarginalLogLikelihood

        torch.manual_seed(1000 * self.seed + len(self.x))
        x, y = torch.tensor(self.x), torch.tensor(self.y)
        columns = [y[:, k : k + 1] for k in range(y.shape[1])]
        model = ModelListGP(
            *(SingleTaskGP(x, c, outcome_transform=Standardize(1)) for c in columns)
        )
        fit_gpytorch_mll(SumMarginalLogLikelihood(model.likelihood, model))
        acquisition = qLogNoisyExpectedImprovement(
            model,
            x,
            objective=GenericMCObjective(lambda z, X=None: z[..., 0]),
            constraints=[
                lambda z, k=k: -z[..., k] for k in range(1, y.shape[1])
            ] or None,
            prune_baseline=True,
        )  # fmt: skip
        box = torch.stack([torch.zeros(x.shape[1]), torch.ones(x.shape[1])]).to(x)
        found, _ = optimize_acqf(acquisition, box, q=n, num_restarts=10, raw_samples=256)
        return found.numpy()


make = BoTorchSearch
