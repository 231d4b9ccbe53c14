"""Two readings at the end of each run that cannot both be had."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import jax.numpy as jnp
import numpy as np

from perfusio_jax._core import ConfigError, DataError
from perfusio_jax._core.hints import did_you_mean
from perfusio_jax._core.text import shown_unit
from perfusio_jax.bed.pareto import compute_pareto_front
from perfusio_jax.states import Trajectory
from perfusio_jax.viz import front_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def tradeoff_figure(
    runs: Sequence[Trajectory], wanted: str, units: Mapping[str, str], *, title: str
) -> "Figure":
    """The last readings of two quantities of each run, and the runs no other beats.

    Args:
        runs: The runs.
        wanted: Two names, as "Titer,-Amm"; more of it is better, less where a minus is before it.
        units: Unit of each.
        title: What the runs are of.

    Returns:
        The figure.

    Raises:
        ConfigError: If not two quantities of the runs are named.
        DataError: If no run has a reading of both.
    """
    parts = [part.strip() for part in wanted.split(",")]
    names, signs = [p.lstrip("-") for p in parts], [-1.0 if p[:1] == "-" else 1.0 for p in parts]
    known = list(dict.fromkeys(n for run in runs for n in run.species_names))
    unknown = [name for name in names if name not in known]
    if len(names) != 2 or unknown:
        raise ConfigError(
            f"--trade-off {wanted!r}: two readings are needed, as 'Titer,-Amm' (a minus: less is "
            f"better){did_you_mean(unknown, known)}; there are {', '.join(known)}."
        )
    points = np.array([[_last(run, name) for name in names] for run in runs])
    points = points[np.isfinite(points).all(axis=1)]
    if not points.size:
        raise DataError(f"no run has a reading of both {names[0]} and {names[1]}.")
    gains = points * np.array(signs)
    on_front = np.asarray(compute_pareto_front(jnp.asarray(gains)))
    best = gains.max(axis=0) * np.array(signs)
    labels = [f"{name}, last reading [{shown_unit(units.get(name) or '-')}]" for name in names]
    return front_figure(
        points[:, 0],
        points[:, 1],
        on_front,
        labels=(labels[0], labels[1]),
        ideal=(float(best[0]), float(best[1])),
        title=f"{names[0]} against {names[1]}, {title}",
    )


def _last(run: Trajectory, name: str) -> float:
    values = run.host_readings((name,))[:, 0]
    seen = values[np.isfinite(values)]
    return float(seen[-1]) if seen.size else float("nan")
