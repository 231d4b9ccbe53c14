"""The vessels of an in-silico campaign of a described culture: their plant, clones and start."""

from pathlib import Path
from typing import Any, Final, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from perfusio_jax._core import ConfigError
from perfusio_jax.connectors.files.mechanisms import SBML_SUFFIXES, plant_mechanism
from perfusio_jax.mechanistic import Mechanism
from perfusio_jax.mechanistic.mechanism import movable, moved
from perfusio_jax.process import Process
from perfusio_jax.simulator import VirtualPlant, usual_start, virtual_plant
from perfusio_jax.simulator.pumping import check_pumps

from .plan import NOMINAL, CampaignPlan

_CUT: Final = 3.0
"""Standard deviations at which draws from a prior are cut."""
WHICH: Final = ("run", "policy", "clone", "design", "seed")
"""Columns that say which run it is."""
HOW: Final = ("n_changes", "n_held", "result")
"""Columns that say how it went."""
_SAMPLED: Final = ("last", "mean", "max", "min")


class Vessels(NamedTuple):
    """What the runs of a campaign have in common."""

    plant: VirtualPlant
    """The plant of the nominal clone."""
    mechanisms: Mechanism
    """Mechanism of every clone, an axis of clones in front of every array."""
    start: Float[np.ndarray, " n"]
    """What they start with, before the inoculum scatters, in the order of `plant.states`."""


def vessels_of(plan: CampaignPlan) -> Vessels:
    """Plant, clones and start of a plan's described culture.

    Raises:
        ConfigError: If the mechanism cannot be had or does not fit, a family is asked of a
            mechanism without priors, or a name of the culture is one of a column.
    """
    culture = plan.culture
    _check_columns(culture)
    said = plan.mechanism
    if said is not None and Path(said).suffix.lower() in SBML_SUFFIXES:
        raise ConfigError(
            f"mechanism {said}: a file of SBML is not kept with a campaign. Read it in a module of "
            "yours (mine = perfusio_jax.exchange.read_sbml(FILE).mechanism), and name module:mine."
        )
    plant = virtual_plant(culture, plant_mechanism(culture, said))
    check_pumps(culture)
    usual = usual_start(culture)
    start = np.array([usual[name] for name in plant.states], float)
    return Vessels(plant, _clones(plan, plant.mechanism), start)


def outcome_names(culture: Process) -> list[str]:
    """Columns that say what a run came to: of each reading the last, mean, most and least."""
    found = [f"{name}_{how}" for name in culture.readings for how in _SAMPLED]
    return found if culture.is_constant_volume else [*found, "volume_L_last"]


def outcomes(
    culture: Process, truth: Float[np.ndarray, "L T1 R"], volumes_L: Float[np.ndarray, " L"]
) -> dict[str, Any]:
    """Columns of `outcome_names`.

    Args:
        culture: The culture.
        truth: Readings without noise, at every sample.
        volumes_L: Volumes at the end [L].
    """
    found = [truth[:, -1], truth.mean(axis=1), truth.max(axis=1), truth.min(axis=1)]
    columns = list(np.stack(found, axis=-1).reshape(len(truth), -1).T)
    columns += [] if culture.is_constant_volume else [volumes_L]
    return dict(zip(outcome_names(culture), columns, strict=True))


def _clones(plan: CampaignPlan, nominal: Mechanism) -> Mechanism:
    """Constants of every clone, drawn from the priors.

    Clones of a family differ in how large a constant is, not in its sign: a product that the
    nominal one makes is taken up by none.
    """
    lower, upper = _bounds(nominal, plan.clone_spread)
    count = lower.size
    rows = []
    for k, clone in enumerate(plan.clones):
        if clone == NOMINAL:
            rows.append(jnp.zeros((1, count)))
            continue
        if not count:
            raise ConfigError(
                f"clone {clone!r} is drawn from priors, and {type(nominal).__name__} tells none: "
                "give its constants log_sd or sd (perfusio_jax.mechanistic.constant), or take "
                f"{NOMINAL} alone."
            )
        key = jax.random.fold_in(jax.random.key(plan.seed), k)
        numbers = jnp.arange(int(clone.partition(":")[2]))
        keys = jax.vmap(lambda i, key=key: jax.random.fold_in(key, i))(numbers)
        draw = jax.vmap(lambda key: jax.random.truncated_normal(key, lower, upper))
        rows.append(plan.clone_spread * draw(keys))
    z = jnp.concatenate(rows)
    if count:
        return eqx.filter_vmap(lambda one: moved(nominal, one))(z)
    arrays, rest = eqx.partition(nominal, eqx.is_array)
    many = jax.tree.map(lambda v: jnp.broadcast_to(v, (len(z), *v.shape)), arrays)
    return eqx.combine(many, rest)


def _bounds(
    nominal: Mechanism, spread: float
) -> tuple[Float[np.ndarray, " P"], Float[np.ndarray, " P"]]:
    """Deviations between which each number of `moved` is drawn [-]."""
    lower, upper = [np.zeros(0)], [np.zeros(0)]
    for name, told in movable(nominal).items():
        value = np.ravel(np.asarray(getattr(nominal, name), float))
        least, most = np.full(value.size, -_CUT), np.full(value.size, _CUT)
        if told.sd is not None and spread > 0.0:
            zero = -value / (spread * np.broadcast_to(np.ravel(told.sd), value.shape))
            least = np.where(value > 0.0, np.maximum(least, zero), least)
            most = np.where(value < 0.0, np.minimum(most, zero), most)
        lower.append(least)
        upper.append(most)
    return np.concatenate(lower), np.concatenate(upper)


def _check_columns(culture: Process) -> None:
    names = [*WHICH, *culture.control_names, *outcome_names(culture), *HOW]
    twice = sorted({name for name in culture.control_names if names.count(name) > 1})
    if twice:
        raise ConfigError(
            f"control {', '.join(twice)} of {culture.name} has the name of another column of the "
            f"results, which has {', '.join(n for n in names if n not in twice)}; rename it."
        )
