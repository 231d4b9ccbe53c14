"""Global sensitivity of a run: its levers over their ranges, its outputs in one pass."""

from collections.abc import Iterable, Mapping
from typing import NamedTuple

import equinox as eqx
import numpy as np
from jaxtyping import Array, Float

from perfusio_jax._core import ConfigError
from perfusio_jax.study.experiment import Experiment, Law, Lever, choose_levers
from perfusio_jax.study.outputs import Output, measure, read_outputs
from perfusio_jax.study.sensitivity.joint import joint_of_draws, joint_of_laws
from perfusio_jax.study.sensitivity.laws import Laws, ends, laws_of
from perfusio_jax.study.sensitivity.morris import MorrisEffects, morris_effects
from perfusio_jax.study.sensitivity.shapley import ShapleyEffects, shapley_effects
from perfusio_jax.study.sensitivity.sobol import SobolIndices, sobol_indices
from perfusio_jax.study.sensitivity.streaming import Evaluated

CONVERGED = 0.05
"""Half-width of a total index below which it is called settled [-]."""


class RunModel(eqx.Module):
    """A run as a function of its levers."""

    experiment: Experiment
    """The run."""
    levers: tuple[Lever, ...] = eqx.field(static=True)
    """Inputs."""
    outputs: tuple[Output, ...] = eqx.field(static=True)
    """Outputs."""

    def __call__(self, x: Float[Array, "B P"]) -> Evaluated:
        """Outputs and result codes of rows of lever values."""
        course = self.experiment.courses(self.levers, x)
        found = measure(self.outputs, course.values, self.experiment.lengths_h)
        return found, course.result


class GlobalSensitivity(NamedTuple):
    """Indices with the names of what they are of."""

    outputs: tuple[Output, ...]
    """What was asked."""
    levers: tuple[Lever, ...]
    """By what."""
    ranges: Float[np.ndarray, "2 P"]
    """Values at 2.5 and 97.5 % of every lever's law."""
    found: SobolIndices | MorrisEffects | ShapleyEffects
    """The indices."""

    def remarks(self) -> list[str]:
        """What to know before one believes them, in words."""
        said = self.found.lost.lines()
        if isinstance(self.found, SobolIndices):
            said += _settled(self.outputs, self.levers, self.found)
        if isinstance(self.found, ShapleyEffects):
            said += _shared(self.outputs, self.found)
        return said


def sobol_of_run(
    experiment: Experiment,
    outputs: Iterable[str | Output],
    levers: Iterable[str] | None = None,
    *,
    ranges: Mapping[str, Law | tuple[float, float]] | None = None,
    n: int = 1024,
    seed: int = 0,
    is_second: bool = False,
    n_resamples: int = 100,
) -> GlobalSensitivity:
    """Sobol's indices of a run.

    Args:
        experiment: The run.
        outputs: What is asked, as in `read_output`; see also `every_sample`.
        levers: By what, as in `choose_levers`.
        ranges: Law or `(lo, hi)` by the name of a lever; the usual one where nothing is said.
        n: Base samples, a power of two.
        seed: Of all random numbers.
        is_second: Whether pairs are asked for.
        n_resamples: For the intervals, which cover 95 %.

    Returns:
        Indices, in the order of outputs and levers.

    Raises:
        ConfigError: If an output, a lever, a range or the number of samples cannot be used.
        SimulationError: If hardly a run ends well.
    """
    model, laws = _prepared(experiment, outputs, levers, ranges)
    found = sobol_indices(model, laws, n, seed=seed, is_second=is_second, n_resamples=n_resamples)
    return GlobalSensitivity(model.outputs, model.levers, ends(laws), found)


def morris_of_run(
    experiment: Experiment,
    outputs: Iterable[str | Output],
    levers: Iterable[str] | None = None,
    *,
    ranges: Mapping[str, Law | tuple[float, float]] | None = None,
    n: int = 32,
    seed: int = 0,
    n_resamples: int = 100,
) -> GlobalSensitivity:
    """Morris's elementary effects of a run.

    Args:
        experiment: The run.
        outputs: What is asked, as in `read_output`; see also `every_sample`.
        levers: By what, P of them, as in `choose_levers`.
        ranges: Law or `(lo, hi)` by the name of a lever; the usual one where nothing is said.
        n: Trajectories, two or more; `n (P + 1)` runs are made.
        seed: Of all random numbers.
        n_resamples: For the intervals, which cover 95 %.

    Returns:
        Effects, in the order of outputs and levers.

    Raises:
        ConfigError: If an output, a lever, a range or the number of trajectories cannot be used.
        SimulationError: If hardly a run ends well.
    """
    model, laws = _prepared(experiment, outputs, levers, ranges)
    found = morris_effects(model, laws, n, seed=seed, n_resamples=n_resamples)
    return GlobalSensitivity(model.outputs, model.levers, ends(laws), found)


def shapley_of_run(
    experiment: Experiment,
    outputs: Iterable[str | Output],
    levers: Iterable[str] | None = None,
    *,
    draws: Mapping[str, Float[np.ndarray, " D"]] | None = None,
    ranges: Mapping[str, Law | tuple[float, float]] | None = None,
    n: int = 256,
    seed: int = 0,
    n_resamples: int = 100,
) -> GlobalSensitivity:
    """Shapley effects of a run: shares of variance where levers depend on each other.

    Args:
        experiment: The run.
        outputs: What is asked, as in `read_output`.
        levers: By what, as in `choose_levers`.
        draws: Of a posterior, by lever, row by row of one draw each; those levers have the law of
            their draws, with what they have in common.
        ranges: Law or `(lo, hi)` of the others; the usual one where nothing is said.
        n: Base samples, a power of two.
        seed: Of all random numbers.
        n_resamples: For the intervals, which cover 95 %.

    Returns:
        Effects, in the order of outputs and levers.

    Raises:
        ConfigError: If an output, a lever, a range, draws or the number of samples cannot be used.
        SimulationError: If hardly a run ends well.
    """
    model, laws = _prepared(experiment, outputs, levers, ranges)
    between = ends(laws)
    joint = joint_of_laws(laws)
    own = [k for k, lever in enumerate(model.levers) if lever.name in (draws or {})]
    if draws is not None:
        if not own:
            raise ConfigError(
                f"draws are of {', '.join(draws)}, and none of these is among the levers "
                f"{', '.join(lever.name for lever in model.levers)}."
            )
        table = np.stack([np.asarray(draws[model.levers[k].name], float) for k in own], axis=1)
        joint = joint_of_draws(laws, table, own)
        between = np.array(between)
        between[:, own] = np.quantile(table, [0.025, 0.975], axis=0)
    found = shapley_effects(model, joint, n, seed=seed, n_resamples=n_resamples)
    return GlobalSensitivity(model.outputs, model.levers, between, found)


def _shared(outputs: tuple[Output, ...], found: ShapleyEffects) -> list[str]:
    """How far Shapley effects can be trusted."""
    fixed = [o.name for o, sd in zip(outputs, found.sd, strict=True) if sd == 0.0]
    said = (
        [f"{_few(fixed)} did not vary; of what is constant there are no shares."] if fixed else []
    )
    sets = f"{found.n_sets} sets of inputs"
    of = f", those of {found.n_orders} orders" if found.n_orders else ", all there are"
    said.append(
        f"shares add up to one, and what inputs do together is halved between them ({sets}{of})."
    )
    if not np.all(np.isnan(found.half_width)):
        said.append(f"the widest interval is +-{np.nanmax(found.half_width):.2g}.")
    return said


def _prepared(
    experiment: Experiment,
    outputs: Iterable[str | Output],
    levers: Iterable[str] | None,
    ranges: Mapping[str, Law | tuple[float, float]] | None,
) -> tuple[RunModel, Laws]:
    asked = read_outputs(experiment, outputs)
    pulled = choose_levers(experiment, levers)
    return RunModel(experiment, pulled, asked), laws_of(experiment, pulled, ranges)


def _settled(
    outputs: tuple[Output, ...], levers: tuple[Lever, ...], found: SobolIndices
) -> list[str]:
    """How far the indices have converged."""
    fixed = [o.name for o, sd in zip(outputs, found.sd, strict=True) if sd == 0.0]
    said = (
        [f"{_few(fixed)} did not vary; of what is constant there are no shares."] if fixed else []
    )
    width = found.total_half_width
    if np.all(np.isnan(width)):
        return said
    worst, lever = np.unravel_index(int(np.nanargmax(width)), width.shape)
    largest = float(width[worst, lever])
    more = (
        f"settled: no total index is uncertain by more than {CONVERGED:g}"
        if largest <= CONVERGED
        else "not settled: four times the samples halve the intervals"
    )
    change = float(np.nanmax(found.change))
    said.append(
        f"{more}. The widest interval is +-{largest:.2g} ({levers[lever].name} on "
        f"{outputs[worst].name}); half of the samples gave total indices within {change:.2g} of "
        "these."
    )
    return said


def _few(names: list[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
