"""What is to be calibrated: a plant, recorded runs, constants with priors, clones, noise."""

from collections.abc import Iterable, Mapping, Sequence

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float, Int

from perfusio_jax._core import ConfigError
from perfusio_jax.states import Trajectory
from perfusio_jax.study.experiment import CONSTANT, Experiment, Law, Lever, choose_levers
from perfusio_jax.study.identifiability.fitting import START_WIDTH, values_at
from perfusio_jax.study.identifiability.records import Records, records_of
from perfusio_jax.study.sensitivity.laws import Laws, laws_of

SPREAD = 0.3
"""Median of how far clones differ in a constant [prior standard deviations]."""
SPREAD_WIDTH = 0.7
"""Log standard deviation of that [-]."""
NOISE_WIDTH = 0.5
"""Prior log standard deviation of the factor on an assay's deviation, where it is learned [-]."""


class Problem(eqx.Module):
    """Make it with `calibration_problem`."""

    experiment: Experiment
    """The plant."""
    records: Records
    """Its runs, limits of assays among them."""
    laws: Laws
    """Priors of the constants."""
    clone: Int[Array, " R"]
    """Clone of each run."""
    levers: tuple[Lever, ...] = eqx.field(static=True)
    """The constants."""
    clones: tuple[str, ...] = eqx.field(static=True)
    """Names of the clones that differ; one name where all runs share their constants."""
    run_ids: tuple[str, ...] = eqx.field(static=True)
    """Names of the runs."""
    learns_noise: bool = eqx.field(static=True)
    """Whether a factor on every assay's deviation is learned."""
    starts_known: bool = eqx.field(static=True)
    """Whether the first sample of a run is taken for true."""
    assumed: tuple[str, ...] = eqx.field(static=True)
    """Constants whose prior nobody told."""

    @property
    def is_hierarchy(self) -> bool:
        """Whether clones differ."""
        return len(self.clones) > 1

    @property
    def sizes(self) -> dict[str, tuple[int, ...]]:
        """Shapes of what is unknown, by name; all of it is standard normal before the data."""
        runs, n = self.records.start.shape
        p = len(self.levers)
        found: dict[str, tuple[int, ...]] = {"constants": (p,)}
        if self.is_hierarchy:
            found["clones"] = (len(self.clones), p)
            found["spread"] = (p,)
        if self.learns_noise:
            found["noise"] = (len(self.experiment.assays),)
        if not self.starts_known:
            found["starts"] = (runs, n)
        return found

    @property
    def n_unknown(self) -> int:
        """How many numbers are unknown."""
        return sum(int(np.prod(shape)) for shape in self.sizes.values())

    def unflat(self, u: Float[Array, " D"]) -> dict[str, Array]:
        """What is unknown by name, from one vector."""
        found, at = {}, 0
        for name, shape in self.sizes.items():
            size = int(np.prod(shape))
            found[name] = u[at : at + size].reshape(shape)
            at += size
        return found

    def by_clone(self, part: Mapping[str, Array]) -> Float[Array, "C P"]:
        """Constants of each clone [prior standard deviations].

        Args:
            part: What is unknown, by name.
        """
        centre = part["constants"][None, :]
        if not self.is_hierarchy:
            return centre
        width = SPREAD * jnp.exp(SPREAD_WIDTH * part["spread"])
        return centre + width[None, :] * part["clones"]

    def by_run(self, part: Mapping[str, Array]) -> Float[Array, "R D"]:
        """Constants and start of each run, as `log_likelihoods` takes them.

        Args:
            part: What is unknown, by name.
        """
        z = self.by_clone(part)[self.clone]
        if self.starts_known:
            w = jnp.zeros(self.records.start.shape)
        else:
            w = START_WIDTH * part["starts"]
        return jnp.concatenate([z, w], axis=1)

    def log_factors(self, part: Mapping[str, Array]) -> Float[Array, " A"]:
        """Logarithm of the factor on each assay's deviation [-]."""
        if self.learns_noise:
            return NOISE_WIDTH * part["noise"]
        return jnp.zeros(len(self.experiment.assays))

    def values(self, z: ArrayLike) -> Float[np.ndarray, "*b P"]:
        """Constants in their units, from prior standard deviations; the last axis is theirs."""
        flat = np.asarray(z, float).reshape(-1, len(self.levers))
        laws = Laws(*(jnp.asarray(v)[None] for v in self.laws))
        return np.asarray(values_at(laws, jnp.asarray(flat))).reshape(np.shape(z))

    def lines(self) -> list[str]:
        """What is asked and what was assumed, in words."""
        runs = self.records.readings.shape[0]
        n_limits = int(np.sum(np.isfinite(np.asarray(self.records.limits))))
        many = f"{len(self.levers)} constants, {runs} run{'s' if runs > 1 else ''}"
        limits = f" and {n_limits} limits of assays" if n_limits else ""
        said = [f"{many}, {self.records.n_readings} readings{limits}"]
        if self.is_hierarchy:
            said.append(
                f"clones {', '.join(self.clones)} have constants of their own around common ones"
            )
        if self.assumed:
            said.append(
                f"no prior is told of {', '.join(self.assumed)}: a factor around where it stands, "
                "10 % wide, is assumed (constant(..., log_sd=) says it)"
            )
        return said


def calibration_problem(
    experiment: Experiment,
    runs: Sequence[Trajectory] | Records,
    levers: Iterable[str] | None = None,
    *,
    priors: Mapping[str, Law] | None = None,
    clones: Sequence[str] | None = None,
    learn_noise: bool = False,
    starts_known: bool = False,
) -> Problem:
    """Lay out what is to be calibrated.

    Args:
        experiment: The plant, any run of it.
        runs: What was recorded.
        levers: Constants by name; all that have a prior if None.
        priors: Priors by constant, where those of the mechanism are not meant.
        clones: Clone of each run; where there are several names, each clone has constants of its
            own around common ones. If None, all runs share theirs.
        learn_noise: Whether a factor on the deviation of every assay is learned.
        starts_known: Whether the first sample of a run is taken for true.

    Raises:
        ConfigError: If a lever is unknown or no constant, clones are not one per run.
        DataError: If the runs cannot be used.
    """
    chosen = choose_levers(experiment, [CONSTANT] if levers is None else levers)
    wrong = [lever.name for lever in chosen if lever.group != CONSTANT]
    if wrong:
        raise ConfigError(
            f"{', '.join(wrong)} is no constant of the mechanism; set-points are known, and "
            "starts are unknown anyway."
        )
    if isinstance(runs, Records):
        records, names = runs, tuple(f"run {r + 1}" for r in range(runs.start.shape[0]))
    else:
        usable = [k for k, run in enumerate(runs) if run.n_days >= 2]
        records = records_of(experiment, runs)
        names = tuple(runs[k].run_id for k in usable)
        if clones is not None and len(clones) == len(runs):
            clones = [clones[k] for k in usable]
    given = tuple("" for _ in names) if clones is None else tuple(clones)
    if len(given) != len(names):
        raise ConfigError(f"{len(given)} clones for {len(names)} runs; one each is needed.")
    known = tuple(dict.fromkeys(given))
    told = dict(priors or {})
    return Problem(
        experiment=experiment,
        records=records,
        laws=laws_of(experiment, chosen, told),
        clone=jnp.asarray([known.index(name) for name in given]),
        levers=chosen,
        clones=known,
        run_ids=names,
        learns_noise=bool(learn_noise),
        starts_known=bool(starts_known),
        assumed=tuple(
            lever.name
            for lever in chosen
            if lever.name not in told and experiment.is_assumed(lever)
        ),
    )
