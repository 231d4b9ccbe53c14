"""BoTorch: the surrogate's hyper-parameters, its acquisitions and its search."""

import importlib.util
import warnings
from typing import Any

import numpy as np

from benchmarks.bed_problems import Problem, Table


def has_torch() -> bool:
    """Whether the peers of the `bench` extra are installed."""
    return all(importlib.util.find_spec(name) for name in ("torch", "gpytorch", "botorch"))


class BoTorch:
    """One problem in BoTorch: fitted processes, an acquisition, `optimize_acqf`."""

    def __init__(
        self, problem: Problem, table: Table, seed: int, *, n_threads: int, is_pruned: bool = False
    ):
        import torch
        from botorch.fit import fit_gpytorch_mll
        from botorch.models import SingleTaskGP
        from botorch.sampling import SobolQMCNormalSampler
        from gpytorch.kernels import MaternKernel, ScaleKernel
        from gpytorch.mlls import ExactMarginalLogLikelihood

        torch.set_num_threads(n_threads)
        warnings.simplefilter("ignore")
        self.torch, self.problem, self.table = torch, problem, table
        k = table.Y.shape[1]
        shape = torch.Size([k] if k > 1 else [])
        kernel = ScaleKernel(
            MaternKernel(nu=2.5, ard_num_dims=problem.d, batch_shape=shape), batch_shape=shape
        )
        X, Y = torch.tensor(table.X), torch.tensor(table.Y)
        model: Any = SingleTaskGP(X, Y, covar_module=kernel, outcome_transform=None)
        fit_gpytorch_mll(ExactMarginalLogLikelihood(model.likelihood, model))
        self.model: Any = model.eval()
        self.hyper = {
            "lengthscale": self._numbers(model.covar_module.base_kernel.lengthscale, (k, -1)),
            "variance": self._numbers(model.covar_module.outputscale, (k,)),
            "noise": self._numbers(model.likelihood.noise, (k,)),
            "constant": self._numbers(model.mean_module.constant, (k,)),
        }
        # a Python float would be rounded to single precision
        self.best_f = torch.tensor(table.Y[:, 0].max())
        sampler = SobolQMCNormalSampler(torch.Size([problem.n_samples]), seed=seed)
        self.acqf: Any = self._acquisition(sampler, X, is_pruned)
        # the base samples of a batch are drawn at the first call
        with torch.no_grad():
            self.acqf(torch.full((1, problem.q, problem.d), 0.5, dtype=torch.float64))
        self.baseline = table.X
        if problem.acquisition == "qNEHVI":
            self.baseline = self.acqf.X_baseline.numpy()
        base = getattr(getattr(self.acqf, "sampler", None), "base_samples", None)
        self.base = None if base is None else base.reshape(problem.n_samples, -1, k).numpy()

    def value(self, X: np.ndarray) -> float:
        """Acquisition of one batch."""
        with self.torch.no_grad():
            return float(self.acqf(self.torch.tensor(X)[None]))

    def search(self, seed: int, n_restarts: int, n_raw: int) -> tuple[np.ndarray, float]:
        """Best batch and its value."""
        from botorch.optim import optimize_acqf

        torch, d = self.torch, self.problem.d
        torch.manual_seed(seed)
        bounds = torch.stack([torch.zeros(d), torch.ones(d)]).to(torch.float64)
        rows = None
        if self.problem.largest_mean is not None:
            coefficients = -torch.ones(d, dtype=torch.float64) / d
            rows = [(torch.arange(d), coefficients, -self.problem.largest_mean)]
        best: Any = optimize_acqf(
            self.acqf,
            bounds,
            q=self.problem.q,
            num_restarts=n_restarts,
            raw_samples=n_raw,
            inequality_constraints=rows,
            options={"seed": seed},
        )
        return best[0].detach().numpy(), float(best[1])

    def _acquisition(self, sampler: Any, X: Any, is_pruned: bool) -> Any:
        from botorch import acquisition
        from botorch.acquisition import multi_objective
        from botorch.acquisition.multi_objective.objective import IdentityMCMultiOutputObjective

        name, best = self.problem.acquisition, self.best_f
        if name == "LogEI":
            return acquisition.LogExpectedImprovement(self.model, best)
        if name == "qLogEI":
            return acquisition.qLogExpectedImprovement(self.model, best, sampler=sampler)
        more: dict[str, Any] = {}
        if self.problem.has_constraint:
            limit = self.table.limit
            more = {
                "objective": IdentityMCMultiOutputObjective(outcomes=[0, 1]),
                "constraints": [lambda samples: samples[..., -1] - limit],
                "eta": 0.05,
            }
        return multi_objective.qNoisyExpectedHypervolumeImprovement(
            self.model,
            self.torch.tensor(self.table.ref_point),
            X_baseline=X,
            sampler=sampler,
            prune_baseline=is_pruned,
            **more,
        )

    @staticmethod
    def _numbers(tensor: Any, shape: tuple[int, ...]) -> np.ndarray:
        return tensor.detach().numpy().reshape(shape).copy()
