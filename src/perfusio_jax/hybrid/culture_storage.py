"""What a saved model says of its culture: a description, a mechanism, what nobody measured."""

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp

from perfusio_jax._core import ConfigError
from perfusio_jax.hybrid.layout import CHO
from perfusio_jax.hybrid.observation import LatentMap
from perfusio_jax.hybrid.vessel import Vessel
from perfusio_jax.mechanistic.cho_cells import CHOCells, cho_cells
from perfusio_jax.mechanistic.consortium import ConsortiumKinetics
from perfusio_jax.mechanistic.mechanism import Mechanism
from perfusio_jax.mechanistic.monod import Monod
from perfusio_jax.process import Process

_OF_MONOD = ("biomass", "substrate", "others", "controls")


def culture_of(model: Any) -> dict[str, Any]:
    """Entries of a header beside those of every model; none for CHO perfusion fully measured."""
    layout, mech = model.layout, model.mech_model
    if layout.is_cho:
        never = [layout.face[k] for k in layout.latent]
        return {"never_measured": never} if never else {}
    kinetics = mech.kinetics
    entry: dict[str, Any] | None = None
    if kinetics is not None:
        entry = {"class": type(kinetics).__name__}
        if isinstance(kinetics, Monod):
            entry |= {name: _plain(getattr(kinetics, name)) for name in _OF_MONOD}
    process = layout.process.model_dump(mode="json")
    return {"process": process, "kinetics": entry, "substeps": mech.substeps}


def _plain(value: str | tuple[str, ...]) -> str | list[str]:
    return value if isinstance(value, str) else list(value)


def empty_vessel(shape: Mapping[str, Any], given: Any) -> Vessel | None:
    """The culture a header describes, with numbers that stand for the saved ones.

    Args:
        shape: The header's architecture.
        given: What the caller handed in as mechanism, if anything.

    Returns:
        The culture; None for CHO perfusion.

    Raises:
        ConfigError: If its mechanism is one of the caller's and was not given, or is another.
    """
    if "process" not in shape:
        return None
    process, entry = Process.model_validate(shape["process"]), shape["kinetics"]
    parts = int(shape["substeps"])
    if isinstance(given, Vessel):
        given = given.kinetics
    if entry is None:
        if given is not None:
            raise ConfigError(
                f"the model of {process.name} was saved without a mechanism, and a "
                f"{type(given).__name__} was given."
            )
        return Vessel(process, substeps=parts)
    kind = str(entry["class"])
    if kind == Monod.__name__:
        return Vessel(process, _empty_monod(entry), substeps=parts)
    if given is None and kind == CHOCells.__name__:
        return Vessel(process, cho_cells(process), substeps=parts)
    if given is None and kind == ConsortiumKinetics.__name__:
        return Vessel(process, ConsortiumKinetics(), substeps=parts)
    if not isinstance(given, Mechanism) or type(given).__name__ != kind:
        what = "nothing" if given is None else f"a {type(given).__name__}"
        raise ConfigError(
            f"the model of {process.name} was saved with the mechanism {kind}, which is not part "
            f"of this library, and {what} was given; hand in a {kind} as mech_model."
        )
    return Vessel(process, given, substeps=parts)


def _empty_monod(entry: Mapping[str, Any]) -> Monod:
    others, controls = tuple(entry["others"]), tuple(entry["controls"])
    each, every = jnp.ones(len(others)), jnp.ones(len(controls))
    scalars = ("mu_max", "K_S", "K_C", "decay", "a_S", "b_S", "k_S", "K_R")
    return Monod(
        **dict.fromkeys(scalars, jnp.ones(())),
        **dict.fromkeys(("a", "b", "c", "k", "pace", "size"), each),
        **dict.fromkeys(("e", "middle", "spread"), every),
        biomass=str(entry["biomass"]),
        substrate=str(entry["substrate"]),
        others=others,
        controls=controls,
    )


def empty_latent(mech: Any, shape: Mapping[str, Any]) -> LatentMap:
    """A latent space of the right layout, without its numbers."""
    if isinstance(mech, Vessel):
        layout = mech.layout
    else:
        never = shape.get("never_measured", [])
        layout = CHO.without(never) if never else CHO
    return LatentMap(jnp.ones(layout.n), layout)
