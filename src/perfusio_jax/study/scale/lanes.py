"""What is streamed: lanes that are made where they are computed, from their numbers and a key.

Nothing but the number of a block travels to a device, however many lanes there are, and a block
gives the same numbers on whichever device it is computed.
"""

import abc
from collections.abc import Iterable, Mapping, Sequence

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float, Int

from perfusio_jax._core import ConfigError, Key, Result, Scalar
from perfusio_jax._core.hints import did_you_mean
from perfusio_jax.hybrid import HybridStateSpaceModel, draw_paths, rollout
from perfusio_jax.hybrid.observation import to_states
from perfusio_jax.study.experiment import Experiment, Law, choose_levers
from perfusio_jax.study.outputs import Output, read_outputs
from perfusio_jax.study.sensitivity.laws import Laws, from_unit, laws_of
from perfusio_jax.study.sensitivity.of_run import RunModel
from perfusio_jax.study.sensitivity.streaming import Evaluated


class Lanes(eqx.Module):
    """Any number of roll-outs that differ by chance."""

    @property
    @abc.abstractmethod
    def names(self) -> tuple[str, ...]:
        """What the outputs are called."""

    @property
    @abc.abstractmethod
    def n_most(self) -> int | None:
        """How many lanes there are; None if any number can be drawn."""

    @abc.abstractmethod
    def block(self, key: Key, number: Int[Array, " B"]) -> Evaluated:
        """Outputs and result codes of a block of lanes; traces.

        Args:
            key: Of this block.
            number: Which lanes they are; of the last block some may be past the end.
        """


class RandomRuns(Lanes):
    """Runs of a plant whose levers are drawn; make them with `random_runs`."""

    model: RunModel
    """The run as a function of its levers."""
    laws: Laws
    """How uncertain they are."""

    @property
    def names(self) -> tuple[str, ...]:
        """The outputs that were asked for."""
        return tuple(output.name for output in self.model.outputs)

    @property
    def n_most(self) -> int | None:
        """Any number can be drawn."""
        return None

    def block(self, key: Key, number: Int[Array, " B"]) -> Evaluated:
        """Outputs of drawn runs."""
        u = jax.random.uniform(key, (number.size, len(self.model.levers)), self.laws.a.dtype)
        return self.model(from_unit(self.laws, u))


def random_runs(
    experiment: Experiment,
    outputs: Iterable[str | Output],
    levers: Iterable[str] | None = None,
    *,
    ranges: Mapping[str, Law | tuple[float, float]] | None = None,
) -> RandomRuns:
    """Runs of a plant with everything uncertain drawn.

    Args:
        experiment: The run.
        outputs: What is asked, as in `read_output`; see also `every_sample`.
        levers: What is drawn, as in `choose_levers`.
        ranges: Law or `(lo, hi)` by the name of a lever; the usual one where nothing is said.

    Raises:
        ConfigError: If an output, a lever or a range cannot be used.
    """
    asked = read_outputs(experiment, outputs)
    pulled = choose_levers(experiment, levers)
    return RandomRuns(RunModel(experiment, pulled, asked), laws_of(experiment, pulled, ranges))


class GivenRuns(Lanes):
    """Runs of a plant at given values of its levers; make them with `given_runs`."""

    model: RunModel
    """The run as a function of its levers."""
    x: Float[Array, "N P"]
    """Values, a row for each lane; every device holds all of them."""

    @property
    def names(self) -> tuple[str, ...]:
        """The outputs that were asked for."""
        return tuple(output.name for output in self.model.outputs)

    @property
    def n_most(self) -> int | None:
        """One for each row."""
        return self.x.shape[0]

    def block(self, key: Key, number: Int[Array, " B"]) -> Evaluated:
        """Outputs of rows; past the end the last one is repeated."""
        del key  # nothing here is drawn
        return self.model(self.x[jnp.minimum(number, self.x.shape[0] - 1)])


def given_runs(
    experiment: Experiment,
    outputs: Iterable[str | Output],
    levers: Iterable[str],
    x: Float[ArrayLike, "N P"],
) -> GivenRuns:
    """Runs of a plant at given values of its levers.

    Args:
        experiment: The run.
        outputs: What is asked, as in `read_output`; see also `every_sample`.
        levers: What is changed, as in `choose_levers`.
        x: Values in the order of the levers, a row for each lane.

    Raises:
        ConfigError: If an output or a lever cannot be used, or the rows do not fit.
    """
    pulled = choose_levers(experiment, levers)
    rows = np.asarray(x, float)
    if rows.ndim != 2 or rows.shape[1] != len(pulled) or not rows.shape[0]:
        raise ConfigError(
            f"values of shape {rows.shape} for the {len(pulled)} levers "
            f"{', '.join(lever.name for lever in pulled)}; (lanes, {len(pulled)}) are needed."
        )
    return GivenRuns(
        RunModel(experiment, pulled, read_outputs(experiment, outputs)), jnp.asarray(rows)
    )


class HybridPaths(Lanes):
    """Paths of a hybrid model; make them with `hybrid_paths`."""

    model: HybridStateSpaceModel
    """The model."""
    start: Float[Array, " n"]
    """Balanced state at the start."""
    controls: Float[Array, "H M"]
    """Set-points by step."""
    day0: Scalar
    """Culture day of the start [d]."""
    columns: tuple[int, ...] = eqx.field(static=True)
    """Which of the forecast's columns are kept."""
    has_assay_noise: bool = eqx.field(static=True)
    """Whether readings are meant, not the culture."""

    @property
    def names(self) -> tuple[str, ...]:
        """Species and step, species by species."""
        species = [self.model.layout.forecast[k] for k in self.columns]
        return tuple(f"{s}@{t + 1}" for s in species for t in range(self.controls.shape[0]))

    @property
    def n_most(self) -> int | None:
        """Any number can be drawn."""
        return None

    def block(self, key: Key, number: Int[Array, " B"]) -> Evaluated:
        """Outputs of drawn paths."""
        n = number.size
        paths = draw_paths(self.model, n, key=key, max_steps=self.controls.shape[0])
        values = rollout(
            self.model,
            paths,
            self.start,
            self.controls,
            self.day0,
            measurement_noise=self.has_assay_noise,
            dt_h=self.model.dt_hours,
        )
        kept = values[:, :, np.array(self.columns)].transpose(0, 2, 1)
        # a path that left the numbers is told apart by its values: there is no code beside them
        return kept.reshape(n, -1), jnp.full(n, Result.SUCCESS.value)


def hybrid_paths(
    model: HybridStateSpaceModel,
    start: Float[ArrayLike, " n"],
    controls: Float[ArrayLike, "H M"],
    *,
    species: Sequence[str] | None = None,
    day0: float = 0.0,
    measurement_noise: bool = False,
) -> HybridPaths:
    """Paths of a hybrid model along a schedule.

    Args:
        model: A fitted model, set to one clone.
        start: Measured face, in the order of the model's states, without gaps.
        controls: Set-points by step.
        species: What is looked at; all that the model forecasts if None.
        day0: Culture day of the start [d].
        measurement_noise: Whether assay noise is added.

    Raises:
        ConfigError: If shapes or names do not fit.
    """
    layout = model.layout
    wanted = layout.forecast if species is None else tuple(species)
    unknown = [name for name in wanted if name not in layout.forecast]
    if unknown or not wanted:
        raise ConfigError(
            f"{', '.join(unknown) or 'nothing'} is asked for, and the model forecasts "
            f"{', '.join(layout.forecast)}{did_you_mean(unknown, layout.forecast)}."
        )
    plan, begin = np.asarray(controls, float), np.asarray(start, float)
    if plan.ndim != 2 or plan.shape[1] != layout.m or begin.shape != (layout.n,):
        raise ConfigError(
            f"controls of shape {plan.shape} and a start of shape {begin.shape}; (steps, "
            f"{layout.m}) and ({layout.n},) are needed."
        )
    return HybridPaths(
        model=model,
        start=to_states(layout, jnp.asarray(begin)),
        controls=jnp.asarray(plan),
        day0=jnp.asarray(day0, float),
        columns=tuple(layout.forecast.index(name) for name in wanted),
        has_assay_noise=measurement_noise,
    )
