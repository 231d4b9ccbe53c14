"""What the rate process is compared with: BoTorch, GPyTorch, and JAX without the structure."""

from __future__ import annotations

import os

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")

import importlib.util
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

Table = tuple[np.ndarray, np.ndarray]


def has_torch() -> bool:
    """Whether the peers of the `bench` extra are installed."""
    return all(importlib.util.find_spec(name) for name in ("torch", "gpytorch", "botorch"))


class BoTorch:
    """BoTorch's SingleTaskGP: one independent output per species, fitted as one batch."""

    def __init__(self, x: np.ndarray, y: np.ndarray, threads: int = 1):
        import torch
        from botorch.models import SingleTaskGP
        from gpytorch.kernels import MaternKernel, ScaleKernel
        from gpytorch.mlls import ExactMarginalLogLikelihood

        torch.set_num_threads(threads)
        self.torch = torch
        shape = torch.Size([y.shape[1]] if y.shape[1] > 1 else [])
        kernel = ScaleKernel(
            MaternKernel(nu=2.5, ard_num_dims=x.shape[1], batch_shape=shape), batch_shape=shape
        )
        self.x, self.y = (torch.tensor(a, dtype=torch.float64) for a in (x, y))
        self.model = SingleTaskGP(self.x, self.y, covar_module=kernel, outcome_transform=None)
        self.mll = ExactMarginalLogLikelihood(self.model.likelihood, self.model)

    def evidence(self) -> float:
        """Evidence and its gradient, once."""
        self.model.train()
        self.mll.zero_grad()
        output = self.model(*self.model.train_inputs)
        loss = -self.mll(output, self.model.train_targets).sum()
        loss.backward()
        return -float(loss.detach())

    def fit(self, steps: int, tolerance: float) -> tuple[int, float]:
        """BoTorch's own L-BFGS-B until the largest gradient entry is below the tolerance.

        The loss is its evidence per row plus its hyper-priors, summed over outputs. Returns
        iterations and the largest gradient entry reached.
        """
        from botorch.optim.fit import fit_gpytorch_mll_scipy

        self.mll.train()
        options = {"maxiter": steps, "pgtol": tolerance, "factr": 0.0}
        result = fit_gpytorch_mll_scipy(self.mll, options=options)
        self.evidence()
        size = max(float(p.grad.abs().max()) for p in self.model.parameters() if p.requires_grad)
        return int(result.step), size

    def log_density(self, x: np.ndarray, y: np.ndarray) -> float:
        """Held-out log density per target."""
        torch = self.torch
        self.model.eval()
        with torch.no_grad():
            law = self.model.posterior(torch.tensor(x), observation_noise=True)
            mean, variance = law.mean.numpy(), law.variance.numpy()
        return float(np.mean(-0.5 * (np.log(2 * np.pi * variance) + (y - mean) ** 2 / variance)))

    def rollout(self, start: np.ndarray, plan: np.ndarray, n_paths: int, seed: int = 0) -> Any:
        """Marginal draws, step by step, with GPyTorch's fast_pred_var and cached solves."""
        import gpytorch

        torch = self.torch
        generator = torch.Generator().manual_seed(seed)
        self.model.eval()
        state = torch.tensor(start).expand(n_paths, -1).clone()
        steps = torch.tensor(plan)
        out = []
        with torch.no_grad(), gpytorch.settings.fast_pred_var():
            for rest in steps:
                rows = torch.cat([state, rest.expand(n_paths, -1)], dim=1)
                law = self.model.posterior(rows)
                mean, sd = law.mean, law.variance.clamp_min(0).sqrt()
                draw = torch.randn(mean.shape, generator=generator, dtype=mean.dtype)
                state = state + 0.05 * (mean + sd * draw)
                out.append(state)
        return torch.stack(out)

    def matheron(self, start: np.ndarray, plan: np.ndarray, n_paths: int, seed: int = 0) -> Any:
        """Functions drawn by Matheron's rule, each followed along its own states.

        Random features for the prior, one solve for the update, as `draw_matheron_paths` does.
        """
        from botorch.sampling.pathwise import draw_matheron_paths

        torch = self.torch
        torch.manual_seed(seed)
        self.model.eval()
        with torch.no_grad():
            paths = draw_matheron_paths(self.model, torch.Size([n_paths]))
            state = torch.tensor(start).expand(n_paths, -1).clone()
            out = []
            for rest in torch.tensor(plan):
                rows = torch.cat([state, rest.expand(n_paths, -1)], dim=1)
                # a batch of one row per path: (paths, outputs, 1)
                state = state + 0.05 * paths(rows[:, None, None, :]).reshape(n_paths, -1)
                out.append(state)
        return torch.stack(out)


class LatentKronecker:
    """BoTorch's LatentKroneckerGP: rows times outputs, gaps allowed, solved iteratively.

    The kernel over rows is that of the others, the one over outputs an index kernel of rank one,
    as ours. Everything else is as its authors set it (`use_iterative_methods`).
    """

    def __init__(self, x: np.ndarray, y: np.ndarray, threads: int = 1):
        import torch
        from botorch.models.latent_kronecker_gp import LatentKroneckerGP
        from gpytorch.kernels import IndexKernel, MaternKernel
        from gpytorch.mlls import ExactMarginalLogLikelihood

        torch.set_num_threads(threads)
        self.torch = torch
        n_tasks = y.shape[1]
        self.model = LatentKroneckerGP(
            torch.tensor((x - x.mean(axis=0)) / x.std(axis=0), dtype=torch.float64),
            torch.arange(n_tasks, dtype=torch.float64)[:, None],
            torch.tensor(y, dtype=torch.float64),
            covar_module_X=MaternKernel(nu=2.5, ard_num_dims=x.shape[1]),
            covar_module_T=IndexKernel(num_tasks=n_tasks, rank=1),
        ).double()
        self.mll = ExactMarginalLogLikelihood(self.model.likelihood, self.model)

    def evidence(self) -> float:
        """Evidence and its gradient, once."""
        self.model.train()
        self.mll.zero_grad()
        with self.model.use_iterative_methods():
            output = self.model(*self.model.train_inputs)
            loss = -self.mll(output, self.model.train_targets)
            loss.backward()
        return -float(loss.detach())

    def train(self, steps: int = 60) -> None:
        """Some steps of Adam: the longer the length scales, the longer the iterations take."""
        optimiser = self.torch.optim.Adam(self.model.parameters(), lr=0.1)
        for _ in range(steps):
            self.evidence()
            optimiser.step()

    def slope(self) -> np.ndarray:
        """The gradient that the last call left, in one vector."""
        found = [p.grad.reshape(-1) for p in self.model.parameters() if p.grad is not None]
        return self.torch.cat(found).numpy().copy()

    def slope_error(self) -> float:
        """How far its gradient, drawn once more, is from the exact one by dense Cholesky."""
        from gpytorch.settings import fast_computations
        from linear_operator.settings import max_cholesky_size

        self.evidence()
        drawn = self.slope()
        self.mll.zero_grad()
        with max_cholesky_size(1_000_000), fast_computations(False, False, False):
            output = self.model(*self.model.train_inputs)
            (-self.mll(output, self.model.train_targets)).backward()
        exact = self.slope()
        return float(np.linalg.norm(drawn - exact) / np.linalg.norm(exact))


def botorch_per_output(x: np.ndarray, y: np.ndarray, threads: int = 1) -> list[BoTorch]:
    """One BoTorch model per output on its own rows: its way with missing targets."""
    seen = np.isfinite(y)
    return [BoTorch(x[seen[:, k]], y[seen[:, k], k : k + 1], threads) for k in range(y.shape[1])]


def vmapped_parameters(n_tasks: int, width: int) -> dict[str, jnp.ndarray]:
    """Start of the JAX peer: one Matern-5/2 kernel per output."""
    return {
        "length": jnp.zeros((n_tasks, width)),
        "scale": jnp.zeros(n_tasks),
        "noise": jnp.full(n_tasks, -2.0),
    }


def vmapped_evidence(params: Any, x: jnp.ndarray, y: jnp.ndarray) -> jnp.ndarray:
    """Evidence of independent processes by one Cholesky each; NaN targets are masked."""

    def one(p: Any, target: jnp.ndarray) -> jnp.ndarray:
        seen = jnp.isfinite(target)
        scaled = x / jnp.exp(p["length"])[None, :]
        square = jnp.sum(scaled**2, axis=1)
        square = square[:, None] + square[None, :] - 2.0 * scaled @ scaled.T
        root = jnp.sqrt(5.0 * jnp.maximum(square, 1e-30))
        gram = jnp.exp(p["scale"]) * (1.0 + root + root**2 / 3.0) * jnp.exp(-root)
        gram = gram * seen[:, None] * seen[None, :]
        noise = jnp.where(seen, jnp.exp(p["noise"]), 1.0)
        factor = jnp.linalg.cholesky(gram + jnp.diag(noise))
        white = jax.scipy.linalg.solve_triangular(factor, jnp.where(seen, target, 0.0), lower=True)
        return -0.5 * jnp.sum(white**2) - jnp.sum(jnp.log(jnp.diagonal(factor)))

    return jnp.sum(jax.vmap(one)(params, y.T))


vmapped_gradient = jax.jit(jax.value_and_grad(vmapped_evidence))


def parameter_count(params: Any) -> int:
    """Numbers a peer is trained over."""
    return int(ravel_pytree(params)[0].size)
