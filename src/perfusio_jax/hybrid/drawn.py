"""Mechanisms that differ in numbers, one for each draw of their constants.

A roll-out whose paths have a mechanism each knows what is not known of the constants. The draws are
arrays: others of the same number do not compile anew.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from perfusio_jax._core import ConfigError
from perfusio_jax._core.programs import compiled
from perfusio_jax.hybrid.vessel import Vessel
from perfusio_jax.mechanistic.mechanism import constant_places


class DrawnMechanisms(eqx.Module):
    """One mechanism in many versions."""

    kinetics: Any
    """The mechanism; every array of it has a leading axis, one row for each draw."""

    @property
    def n(self) -> int:
        """How many draws there are."""
        return jax.tree.leaves(self.kinetics)[0].shape[0]


class DrawnRun(NamedTuple):
    """What each draw of the constants makes of a run so far."""

    mechanisms: DrawnMechanisms
    """The draws."""
    particles: Float[Array, "D N K"]
    """State now, as a filter with that draw's constants has it."""
    offset: Float[Array, "D K"]
    """What the run keeps showing beyond the model with those constants [residual units]."""

    def offset_of(self, n: int) -> Float[Array, "S K"]:
        """Offset of each path.

        Args:
            n: Number of paths, which take the draws in turn.
        """
        return _rows(self.offset, np.arange(n) % self.mechanisms.n)


def drawn_mechanisms(
    mechanism: Any, names: Sequence[str], values: Float[np.ndarray, "N P"]
) -> DrawnMechanisms:
    """Versions of a mechanism, one for each draw of some of its constants.

    Args:
        mechanism: A `Mechanism`, or `CHOKinetics`; what is not drawn stays as in this one.
        names: Constants, as `entry_names` has them.
        values: Their draws [their units].

    Raises:
        ConfigError: If it has no such constant, or a draw is not finite.
    """
    values = np.asarray(values, float)
    places = constant_places(mechanism)
    unknown = [name for name in names if name not in places]
    if unknown:
        raise ConfigError(
            f"{type(mechanism).__name__} has no constant {', '.join(unknown)}; it has "
            f"{', '.join(places)}."
        )
    if values.ndim != 2 or values.shape[1] != len(names) or not len(values):
        raise ConfigError(
            f"draws of shape {values.shape} for {len(names)} constants; one row for each draw is "
            "needed, and one number for each constant."
        )
    if not np.isfinite(values).all():
        raise ConfigError("a draw of a constant is not a finite number; leave such draws out.")
    # in NumPy: outside of a program every operation would be compiled by itself
    many = jax.tree.map(
        lambda v: np.tile(np.asarray(v), (len(values), *[1] * np.ndim(v))), mechanism
    )
    for name, column in zip(names, values.T, strict=True):
        field, k = places[name]
        getattr(many, field).reshape(len(values), -1)[:, k] = column
    return DrawnMechanisms(jax.tree.map(lambda v: jnp.asarray(v, v.dtype), many))


@compiled
def at_draw(model: Any, drawn: DrawnMechanisms, k: Array | np.ndarray) -> Any:
    """A model whose mechanism is that of one draw.

    Args:
        model: Model of a described culture.
        drawn: The draws.
        k: Which of them.
    """
    one = jax.tree.map(lambda v: v[k], drawn.kinetics)
    return eqx.tree_at(lambda m: m.mech_model.kinetics, model, one)


def dealt(drawn: DrawnMechanisms, n: int) -> DrawnMechanisms:
    """One draw for each path, in turn; where there are fewer paths, the first draws.

    Args:
        drawn: The draws.
        n: Number of paths.
    """
    rows = np.arange(n) % drawn.n
    return _taken(drawn, rows)


@compiled
def _taken(drawn: DrawnMechanisms, rows: Array | np.ndarray) -> DrawnMechanisms:
    return jax.tree.map(lambda v: v[rows], drawn)


@compiled
def _rows(values: Array, rows: Array | np.ndarray) -> Array:
    return values[rows]


def refuse_undrawable(model: Any) -> None:
    """Refuse a model whose mechanism cannot be another in each path.

    Args:
        model: Hybrid model.

    Raises:
        ConfigError: If it knows no rates, or knows clones, whose constants are their own.
    """
    if model.embedding is not None:
        raise ConfigError(
            "constants were drawn for a model of several clones, each of which has its own; fit "
            "one to the runs of one clone."
        )
    knows_rates = model.use_mechanism or isinstance(model.mech_model, Vessel)
    if not knows_rates or getattr(model.mech_model, "kinetics", None) is None:
        raise ConfigError(
            "constants were drawn for a model that has no mechanism; fit with --process and "
            "--mechanism."
        )


def with_kinetics(mech: Any, kinetics: Any) -> Any:
    """A mechanistic model with another mechanism; the same one for None.

    Args:
        mech: A `Vessel`, or `CHOPerfusionModel`.
        kinetics: Its mechanism.
    """
    if kinetics is None:
        return mech
    return eqx.tree_at(lambda m: m.kinetics, mech, kinetics)
