"""How good were the forecasts, and how close did each controller stay to its target."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from perfusio_jax._core import CONTROL_NAMES, FORECAST_SPECIES
from perfusio_jax.hybrid import Belief, HybridStateSpaceModel
from perfusio_jax.metrics import pi_coverage
from perfusio_jax.twin import forecast_paths


@dataclass(frozen=True)
class ForecastScore:
    """Forecasts made during the run, scored against the noise-free plant."""

    rrmse: dict[str, float]
    """Root mean square error over the campaign's spread, at the horizon [-]."""
    coverage: dict[str, float]
    """Share of truths inside the 80 % interval, days 1 to the horizon [-]."""
    inside: int
    """Truths inside, all species and days."""
    n: int
    """Truths counted."""
    horizon: int
    """Days ahead [d]."""

    def as_dict(self) -> dict[str, Any]:
        """Keys of `summary.json`."""
        return {
            "horizon_days": self.horizon,
            "rrmse": self.rrmse,
            "coverage_80": self.coverage,
            "n": self.n,
            "inside": self.inside,
        }


def score_forecasts(
    snapshots: Sequence[tuple[HybridStateSpaceModel, Belief, int]],
    applied: Sequence[Mapping[str, float]],
    truth: Mapping[str, np.ndarray],
    *,
    spread: Float[np.ndarray, " 12"],
    horizon: int = 3,
    n_paths: int = 256,
    seed: int = 0,
) -> ForecastScore:
    """Forecast again from each day's belief under the set-points that then acted.

    A forecast made on day d holds the set-points of day d; the twin then changes them. To judge
    the model and not the plan, each forecast is repeated with the controls that were applied.

    Args:
        snapshots: Model, belief and day of each decision, as they were then.
        applied: Set-points that acted in each interval.
        truth: Noise-free readings by species and day.
        spread: Standard deviation per species over the campaign.
        horizon: Days ahead [d].
        n_paths: Paths per forecast.
        seed: Seed of the paths.

    Returns:
        Scores pooled over days.
    """
    actual, mean, low, high = [], [], [], []
    table = np.stack([truth[s] for s in FORECAST_SPECIES], axis=1)
    for model, belief, day in snapshots:
        if day + horizon > len(applied):
            continue
        u = jnp.asarray(
            [[applied[day + h][n] for n in CONTROL_NAMES] for h in range(horizon)], float
        )
        path_key, state_key = jax.random.split(jax.random.fold_in(jax.random.key(seed), day))
        c0 = belief.sample(n_paths, key=state_key)
        paths = np.asarray(forecast_paths(model, c0, u, belief.day, path_key))
        actual.append(table[day + 1 : day + 1 + horizon])
        mean.append(paths.mean(axis=0))
        q = np.quantile(paths, [0.1, 0.9], axis=0)
        low.append(q[0])
        high.append(q[1])
    y, m, lo, hi = (np.stack(v) for v in (actual, mean, low, high))
    error = np.sqrt(np.mean((m[:, -1] - y[:, -1]) ** 2, axis=0)) / spread
    flat = [jnp.asarray(v.reshape(-1, v.shape[-1])) for v in (y, lo, hi)]
    coverage = np.asarray(pi_coverage(*flat))
    return ForecastScore(
        rrmse=dict(zip(FORECAST_SPECIES, error.tolist(), strict=True)),
        coverage=dict(zip(FORECAST_SPECIES, coverage.tolist(), strict=True)),
        inside=int(((y >= lo) & (y <= hi)).sum()),
        n=int(y.size),
        horizon=horizon,
    )
