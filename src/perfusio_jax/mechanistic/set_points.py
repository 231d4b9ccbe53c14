"""Set-points and medium by name, as a person writes them."""

import dataclasses
from collections.abc import Mapping
from typing import Any, Final

import jax.numpy as jnp
from jax.core import Tracer
from jaxtyping import Array, Float

from perfusio_jax._core import CONTROL_NAMES, DEFAULT_CONTROLS, ConfigError
from perfusio_jax.chemistry import Medium

_ALIASES: Final[Mapping[str, str]] = {
    "pyr_feed_conc": "pyruvate_feed",
    "glucose_feed_conc": "",
    "gln_feed_conc": "",
    "volume_L": "",
}
_MEDIUM_NAMES: Final[Mapping[str, str]] = {
    "glucose_feed_conc": "glucose",
    "gln_feed_conc": "glutamine",
}


def controls_from_dict(
    controls: Mapping[str, float], base: Mapping[str, float] | None = None
) -> Float[Array, " 6"]:
    """Set-point vector from names.

    Values may be traced; a bleed beyond the perfusion is then found by the integrator, which
    gives NaN and a code.

    Args:
        controls: Values by control name, in canonical units.
        base: What to use for controls that are not given; the centre recipe by default.

    Returns:
        Vector in `CONTROL_NAMES` order.

    Raises:
        ConfigError: If a name is unknown, or bleed exceeds perfusion.
    """
    values: dict[str, Any] = dict(DEFAULT_CONTROLS if base is None else base)
    for name, value in controls.items():
        target = _ALIASES.get(name, name)
        if target and target not in CONTROL_NAMES:
            allowed = ", ".join((*CONTROL_NAMES, *_ALIASES))
            raise ConfigError(f"unknown control {name!r}; allowed are {allowed}.")
        if target:
            values[target] = value if isinstance(value, Tracer) else float(value)
    flows = values["bleed_rate"], values["perfusion_rate"]
    if not any(isinstance(v, Tracer) for v in flows) and flows[0] > flows[1]:
        raise ConfigError(
            f"bleed_rate {values['bleed_rate']} vvd exceeds perfusion_rate "
            f"{values['perfusion_rate']} vvd; the reactor would run dry."
        )
    return jnp.asarray([values[name] for name in CONTROL_NAMES], float)


def medium_from_dict(controls: Mapping[str, float], base: Medium | None = None) -> Medium:
    """Perfusion medium with the concentrations given among the controls.

    Args:
        controls: May hold `glucose_feed_conc` [g/L] and `gln_feed_conc` [mmol/L].
        base: Medium to change; the default one if None.
    """
    base = Medium() if base is None else base
    return Medium(
        **{
            **{f.name: getattr(base, f.name) for f in dataclasses.fields(base)},
            **{
                field: jnp.asarray(controls[name], float)
                for name, field in _MEDIUM_NAMES.items()
                if name in controls
            },
        }
    )
