"""The publication's stack, written as fast as its parts allow: PyTorch policy, CasADi plant.

The policy acts on all episodes of an epoch at once, the plant is one CVODES call per step mapped
over the episodes on all cores, and the gradient is one backward pass over everything drawn.
"""

import itertools
import os
from typing import Any

import casadi as ca
import numpy as np
import torch
from torch import nn


def make_step(n: int, constants: dict[str, Any], rtol: float) -> Any:
    """One hour of `n` chemostats: (5, n) states and (2, n) lights to (5, n) states."""
    x, light = ca.SX.sym("x", 5), ca.SX.sym("u", 2)
    c = constants
    share = [x[3 + i] / (x[3 + i] + c["amino_half_saturation"][i]) for i in range(2)]
    rate = c["max_growth"] * x[0] / (x[0] + c["half_saturation"])
    mu = [rate * s for s in share]
    ratio = [(light[i] / c["light_half_saturation"][i]) ** c["light_exponent"][i] for i in range(2)]
    made = [c["conversion"] * c["synthesis"][i] * ratio[i] / (1 + ratio[i]) for i in range(2)]
    eaten = sum(c["uptake_per_biomass"][i] * mu[i] * x[1 + i] for i in range(2))
    field = ca.vertcat(
        c["dilution"] * (c["feed"] - x[0]) - eaten,
        *((mu[i] - c["dilution"]) * x[1 + i] for i in range(2)),
        *(made[i] - (mu[i] + c["degradation"][i]) * x[3 + i] for i in range(2)),
    )
    options = {"reltol": rtol, "abstol": 1e-2 * rtol, "max_num_steps": 100_000}
    one = ca.integrator("hour", "cvodes", {"x": x, "p": light, "ode": field}, 0.0, 1.0, options)
    mapped = one.map(n, "thread", os.cpu_count() or 1)

    def step(states: np.ndarray, lights: np.ndarray) -> np.ndarray:
        return np.asarray(mapped(x0=states, p=lights)["xf"])

    return step


class Policy(nn.Module):
    """Four hidden layers of 20, leaky rectifier 0.1, heads for mean and spread."""

    def __init__(self, floor: float, n_observed: int = 15) -> None:
        super().__init__()
        self.floor = floor
        sizes = [n_observed, 20, 20, 20, 20]
        layers: list[nn.Module] = []
        for a, b in itertools.pairwise(sizes):
            layers += [nn.Linear(a, b), nn.LeakyReLU(0.1)]
        self.body = nn.Sequential(*layers)
        self.mean, self.spread = nn.Linear(20, 2), nn.Linear(20, 2)

    def forward(self, seen: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Mean and spread."""
        hidden = self.body(seen)
        return self.mean(hidden), nn.functional.softplus(self.spread(hidden)) + self.floor


class Training:
    """REINFORCE as ours.

    Normalised returns, mirrored pairs of episodes, rate and floor that fall together, and the
    saturation return with all weights one.
    """

    def __init__(
        self,
        initial: np.ndarray,
        reference: np.ndarray,
        step: Any,
        n: int,
        bounds: tuple[np.ndarray, np.ndarray],
        settings: Any,
    ) -> None:
        self.policy = Policy(float(settings.floor))
        self.adam = torch.optim.Adam(self.policy.parameters(), lr=float(settings.learning_rate))
        self.settings, self.epochs = settings, 0
        self.initial, self.reference, self.step, self.n = initial, reference, step, n
        self.low, self.ratio = bounds[0], bounds[1] / bounds[0]

    def epoch(self) -> tuple[float, float]:
        """Draw, judge, ascend; mean return and mean error."""
        steps = self.reference.shape[0] - 1
        left = float(self.settings.decay) ** (self.epochs / self.settings.n_epochs)
        self.epochs += 1
        self.adam.param_groups[0]["lr"] = left * float(self.settings.learning_rate)
        self.policy.floor = left * float(self.settings.floor)
        x = np.repeat(self.initial[:, None], self.n, axis=1)
        before, shares = np.zeros((self.n, 5)), np.zeros((self.n, 4))
        seen, draws, worth, error = [], [], np.zeros(self.n), 0.0
        for k in range(steps):
            amino = np.log10(x[3:] / np.array([[1.7], [0.182]]) + 0.01)
            now = np.concatenate([x[:1] / 100.0, x[1:3] / 2.0, amino]).T
            time = np.full((self.n, 1), 2.0 * k / steps - 1.0)
            row = np.concatenate([now, shares[:, :2], before, shares[:, 2:], time], axis=1)
            observed = torch.as_tensor(row, dtype=torch.float32)
            with torch.no_grad():
                mean, spread = self.policy(observed)
                unit = torch.randn(self.n // 2, 2)
                z = mean + spread * torch.cat([unit, -unit])
            share = 0.5 + 0.5 * np.sin(0.5 * z.numpy().astype(float))
            x = np.maximum(self.step(x, (self.low * self.ratio**share).T), 0.0)
            before, shares = now, np.concatenate([share, shares[:, :2]], axis=1)
            seen.append(observed)
            draws.append(z)
            gap = x[1:3].T - self.reference[k + 1]
            worth = worth + np.prod(27.0 / (27.0 + gap**2), axis=1)
            error += float(np.mean(np.abs(gap) / self.reference[k + 1])) / steps
        weight = torch.as_tensor(
            (worth - worth.mean()) / (worth.std() + 1e-12), dtype=torch.float32
        )
        mean, spread = self.policy(torch.stack(seen))
        z = torch.stack(draws)
        log_p = torch.distributions.Normal(mean, spread).log_prob(z).sum(dim=(0, 2))
        loss = -(weight * log_p).mean()
        self.adam.zero_grad()
        loss.backward()
        self.adam.step()
        return float(np.mean(worth)), error
