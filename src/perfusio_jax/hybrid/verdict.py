"""Whether a fitted model is fit for use, species by species, in a line that stays with it.

A forecast has to beat the one that costs nothing: that nothing changes. Where it does not, or
where its intervals hold far fewer readings than they say, that is told with every forecast.
"""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from perfusio_jax._core import DataError, on_device
from perfusio_jax._core.programs import compiled
from perfusio_jax._core.progress import compiling
from perfusio_jax.hybrid.campaign import in_steps
from perfusio_jax.hybrid.model import HybridStateSpaceModel, at_clone
from perfusio_jax.hybrid.observation import to_face
from perfusio_jax.hybrid.spread import leave_run_out
from perfusio_jax.hybrid.storage import VERDICT, model_hash
from perfusio_jax.hybrid.transition import apply_residual, flat_prior, prior_step
from perfusio_jax.states import Trajectory

SMALLEST_COVERAGE: Final = 0.6
"""Share of readings that 80 % intervals must hold [-]."""

_KEYS = ("error", "nothing_changes", "coverage_80")


@dataclass(frozen=True)
class Verdict:
    """Errors beside those of the forecast that nothing changes, in one unit per species."""

    how: str
    """What was judged, for people."""
    species: tuple[str, ...]
    """Names."""
    error: tuple[float, ...]
    """Root mean square error of the model; NaN where nothing could be judged."""
    nothing_changes: tuple[float, ...]
    """The same if nothing changed since the last sample."""
    coverage_80: tuple[float, ...]
    """Share of readings in the 80 % intervals [-]; NaN where it was not judged."""

    def __post_init__(self) -> None:
        """Refuse columns of different lengths."""
        n = len(self.species)
        if any(len(v) != n for v in (self.error, self.nothing_changes, self.coverage_80)):
            raise DataError(f"a verdict over {n} species needs {n} numbers of each kind.")

    @property
    def fit(self) -> tuple[str, ...]:
        """Species whose forecasts can be used."""
        return tuple(name for name, trouble in self._troubles() if trouble == "")

    @property
    def unfit(self) -> dict[str, str]:
        """Species whose forecasts cannot, with the reason."""
        return {name: trouble for name, trouble in self._troubles() if trouble}

    @property
    def not_judged(self) -> tuple[str, ...]:
        """Species without a reading to judge by."""
        return tuple(name for name, trouble in self._troubles() if trouble is None)

    def _troubles(self) -> list[tuple[str, str | None]]:
        rows = zip(self.species, self.error, self.nothing_changes, self.coverage_80, strict=True)
        return [(name, _trouble(error, naive, share)) for name, error, naive, share in rows]

    def line(self) -> str:
        """The verdict in one line."""
        parts = []
        if self.fit:
            parts.append(f"fit for use: {', '.join(self.fit)}")
        if self.unfit:
            told = "; ".join(f"{name} ({why})" for name, why in self.unfit.items())
            parts.append(f"NOT fit for use: {told}")
        if self.not_judged:
            parts.append(f"not judged: {', '.join(self.not_judged)}")
        return f"verdict ({self.how}): {'. '.join(parts) or 'nothing was judged'}."

    def as_dict(self) -> dict[str, Any]:
        """Plain data; what was not judged is None."""
        rows = zip(self.species, self.error, self.nothing_changes, self.coverage_80, strict=True)
        return {
            "how": self.how,
            "line": self.line(),
            "species": {
                name: dict(zip(_KEYS, map(_plain, numbers), strict=True)) for name, *numbers in rows
            },
        }


def _plain(value: Any) -> float | None:
    return float(f"{value:.6g}") if np.isfinite(value) else None


def _trouble(error: float, nothing: float, coverage: float) -> str | None:
    """What speaks against a species; empty if nothing does, None if nothing is known."""
    if not (np.isfinite(error) and np.isfinite(nothing)):
        return None
    if not error < nothing:
        return f"error {error:.2g}, {nothing:.2g} if nothing changed"
    if coverage < SMALLEST_COVERAGE:
        return f"80 % intervals hold {100 * coverage:.0f} % of the readings"
    return ""


def judge_fit(model: HybridStateSpaceModel, trajectories: list[Trajectory]) -> Verdict | None:
    """Judge a fresh fit one interval ahead, each run by the process without it.

    The mechanism's constants and the process's hyper-parameters have seen all runs, so this is
    kinder than `cross_validate`, and costs next to nothing.

    Args:
        model: What `fit_hybrid` returned.
        trajectories: The runs it was fitted to.

    Returns:
        Verdict over `STATE_ORDER` in the unit of each species; None for a model without a
        process.

    Raises:
        DataError: If the model's rows are not those of the runs.
    """
    gp = model.gp
    if gp is None:
        return None
    layout = model.layout
    if layout.process is not None:
        trajectories = in_steps(trajectories, layout.process)
    rows = np.flatnonzero(np.asarray(gp.data.row_present))
    run_of_row = np.repeat(
        np.arange(len(trajectories)), [max(t.n_days - 1, 0) for t in trajectories]
    )
    if rows.size != run_of_row.size:
        raise DataError(
            f"the model holds {rows.size} intervals, these runs have {run_of_row.size}; judge it "
            "on the runs it was fitted to."
        )
    error, _ = leave_run_out(gp, run_of_row)
    unread = ~layout.is_seen
    found = np.asarray(gp.data.targets)[rows]
    hours = np.concatenate([np.diff(np.asarray(t.times_h, float)) for t in trajectories])
    before, after, made = (
        np.asarray(v)
        for v in _steps(
            model,
            on_device(np.asarray(gp.data.inputs)[rows]),
            on_device(np.stack([found, found - error], axis=1)),
            on_device(hours),
        )
    )
    return Verdict(
        "one sampling interval ahead, each run by the process without it",
        layout.face,
        tuple(np.where(unread, np.nan, np.sqrt(np.mean((made - after) ** 2, axis=0))).tolist()),
        tuple(np.where(unread, np.nan, np.sqrt(np.mean((before - after) ** 2, axis=0))).tolist()),
        (float("nan"),) * layout.n,
    )


@compiled
def _steps(
    model: HybridStateSpaceModel,
    inputs: Float[Array, "N D"],
    residuals: Float[Array, "N 2 9"],
    hours: Float[Array, " N"],
) -> tuple[Array, Array, Array]:
    """Measured face before an interval and after it, with either residual."""
    compiling("the check of the fit")
    layout = model.layout
    clone = inputs[:, -2] if model.embedding is not None else jnp.zeros_like(hours)

    def one(row: Array, pair: Array, dt_h: Array, k: Array) -> tuple[Array, Array, Array]:
        mine = at_clone(model, k)
        n, mech = layout.n, mine.mech_model
        c, u = row[:n], row[n : n + layout.m]
        prior = prior_step(mech, c, u, dt_h) if mine.use_mechanism else flat_prior(c, layout.cells)

        def go(residual: Array) -> Array:
            known = residual * layout.is_seen if layout.latent else residual
            step = apply_residual(mech, mine.basis, mine.limits, c, u, prior, known, dt_h)
            return to_face(layout, step[0])

        return to_face(layout, c), go(pair[0]), go(pair[1])

    return jax.vmap(one)(inputs, residuals, hours, clone)


def write_verdict(
    verdict: Verdict, model: HybridStateSpaceModel, folder: str | os.PathLike[str]
) -> Path:
    """Put a verdict beside a saved model; it names the model it is about.

    Args:
        verdict: What was found.
        model: The model as it was judged and saved; its hash goes into the file.
        folder: Folder of the saved model, which has to be there. An earlier verdict is replaced.

    Returns:
        The file.
    """
    path = Path(folder) / VERDICT
    content = {"model_sha256": model_hash(model), **verdict.as_dict()}
    path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    return path


def read_verdict(model: HybridStateSpaceModel, folder: str | os.PathLike[str]) -> Verdict | None:
    """The verdict on a model, if its folder holds one.

    Args:
        model: The model as it was loaded.
        folder: Its folder.

    Raises:
        DataError: If the file cannot be read, or is about another model.
    """
    path = Path(folder) / VERDICT
    if not path.is_file():
        return None
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        species: Mapping[str, Mapping[str, Any]] = content["species"]
        columns = [
            tuple(float("nan") if row[key] is None else float(row[key]) for row in species.values())
            for key in _KEYS
        ]
        verdict = Verdict(str(content["how"]), tuple(species), *columns)
        is_other = content["model_sha256"] != model_hash(model)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"the verdict {path} cannot be read ({error!r}); fit again.") from None
    if is_other:
        raise DataError(
            f"the verdict {path} is about another model than the one beside it; fit again, or "
            "remove it."
        )
    return verdict
