"""Two strains in one chemostat, each kept in check by light.

Both strains eat glucose. Each lacks the gene of one amino acid, whose synthesis light switches
on: blue for strain 1 (lysine), red for strain 2 (leucine). With biomass b_i [g/L], glucose
s [mmol/L] and intracellular amino acid a_i [mmol/L of cell]:

    ds/dt   = D (s_in - s) - sum_i Y_i mu_i b_i
    db_i/dt = (mu_i - D) b_i
    da_i/dt = c q_i h_i(I_i) - (mu_i + d_a) a_i
    mu_i    = mu_max  s / (s + k_s)  a_i / (a_i + k_i)
    h_i(I)  = I^n_i / (I^n_i + K_i^n_i)

Reference:
    Espinel-Rios et al. (2025), Computers and Chemical Engineering, 109297. The publication's
    equations as its text describes them; which constants it prints, which follow from it by
    arithmetic and which had to be chosen is said field by field in `PARAMETERS`.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.core import Tracer
from jaxtyping import Array, ArrayLike, Float

from perfusio_jax._core import ConfigError, Key

STATE_NAMES: Final = ("glucose", "biomass_1", "biomass_2", "lysine", "leucine")
"""Order of the five states; mmol/L, g/L, g/L, mmol/L of cell, mmol/L of cell."""
LIGHT_NAMES: Final = ("blue", "red")
"""Order of the two inputs."""


class ParameterInfo(NamedTuple):
    """Where one constant comes from."""

    unit: str
    value: tuple[float, ...]
    status: str
    """given (printed in the publication), inferred (follows from it), chosen (by us)."""
    note: str


PARAMETERS: Final[Mapping[str, ParameterInfo]] = MappingProxyType(
    {
        "max_growth": ParameterInfo("1/h", (0.982,), "given", "printed; its unit is inferred"),
        "half_saturation": ParameterInfo(
            "mmol/L", (2.9e-4,), "chosen", "not to be had; a value often quoted for E. coli"
        ),
        "uptake_per_biomass": ParameterInfo(
            "mmol/g", (10.18, 10.18), "inferred", "10.18 is printed; uptake = 10.18 x growth"
        ),
        "synthesis": ParameterInfo(
            "mmol/(g h)", (0.337, 0.036), "given", "printed; per gram of cell, unit inferred"
        ),
        "amino_half_saturation": ParameterInfo(
            "mmol/L", (1.7, 0.182), "given", "printed as sound values; unit inferred"
        ),
        "conversion": ParameterInfo(
            "g/L", (1100.0,), "given", "cell density; multiplies synthesis"
        ),
        "degradation": ParameterInfo(
            "1/h", (0.25, 0.25), "chosen", "the value at which the printed errors are possible"
        ),
        "light_half_saturation": ParameterInfo("W/m^2", (1.052, 1.34), "given", "unit inferred"),
        "light_exponent": ParameterInfo("-", (2.0, 4.865), "given", ""),
        "dilution": ParameterInfo("1/h", (0.15,), "given", "unit inferred"),
        "feed": ParameterInfo("mmol/L", (200.0,), "given", "glucose in the inflow; unit inferred"),
    }
)
"""Unit, value and status of every constant."""


def _default(name: str) -> Any:
    value = PARAMETERS[name].value
    return eqx.field(
        converter=lambda v: jnp.asarray(v, float),
        default_factory=lambda: jnp.squeeze(jnp.asarray(value, float)),
    )


class Consortium(eqx.Module):
    """Constants of the chemostat; every field is traced."""

    max_growth: Float[Array, ""] = _default("max_growth")
    """mu_max, both strains [1/h]."""
    half_saturation: Float[Array, ""] = _default("half_saturation")
    """k_s of glucose [mmol/L]."""
    uptake_per_biomass: Float[Array, " 2"] = _default("uptake_per_biomass")
    """Y, glucose eaten per biomass made [mmol/g]."""
    synthesis: Float[Array, " 2"] = _default("synthesis")
    """q, synthesis of the amino acid under full light [mmol/(g h)]."""
    amino_half_saturation: Float[Array, " 2"] = _default("amino_half_saturation")
    """k_a [mmol/L of cell]."""
    conversion: Float[Array, ""] = _default("conversion")
    """c, density of the cell [g/L]."""
    degradation: Float[Array, " 2"] = _default("degradation")
    """d_a, decay of the amino acid [1/h]."""
    light_half_saturation: Float[Array, " 2"] = _default("light_half_saturation")
    """K of the induction [W/m^2]."""
    light_exponent: Float[Array, " 2"] = _default("light_exponent")
    """n of the induction [-]."""
    dilution: Float[Array, ""] = _default("dilution")
    """D [1/h]."""
    feed: Float[Array, ""] = _default("feed")
    """s_in [mmol/L]."""

    def __check_init__(self) -> None:
        pairs = {
            "uptake_per_biomass",
            "synthesis",
            "amino_half_saturation",
            "degradation",
            "light_half_saturation",
            "light_exponent",
        }
        for name in PARAMETERS:
            shape = jnp.shape(getattr(self, name))
            wanted: tuple[int, ...] = (2,) if name in pairs else ()
            if shape != wanted:
                raise ConfigError(
                    f"{name} has shape {shape}; {wanted} is needed, "
                    f"{'one per strain' if wanted else 'one number'}."
                )


def check_consortium(plant: Consortium) -> None:
    """Refuse constants that are not finite or of the wrong sign.

    Args:
        plant: Constants that are known, not traced. The decay of the amino acids may be zero;
            all others are above it.

    Raises:
        ConfigError: Naming the constant, its value and what is allowed.
    """
    for name, info in PARAMETERS.items():
        value = getattr(plant, name)
        low_ok = value >= 0.0 if name == "degradation" else value > 0.0
        if not bool(jnp.all(jnp.isfinite(value) & low_ok)):
            sign = "not negative" if name == "degradation" else "positive"
            raise ConfigError(f"{name} is {value} {info.unit}; it must be finite and {sign}.")


def induction(plant: Consortium, light: Float[Array, " 2"]) -> Float[Array, " 2"]:
    """Share of full synthesis under a light intensity [-], between 0 and 1.

    Args:
        plant: Constants.
        light: Blue and red intensity [W/m^2]; below zero it counts as dark.

    Returns:
        Of strain 1, which answers to blue, and strain 2, which answers to red.

    Reference:
        `h_i` of the module's equations.
    """
    # through the logarithm, so that darkness has a derivative (zero) for every exponent
    is_dark = light <= 0.0
    ratio = jnp.where(is_dark, 1.0, light) / plant.light_half_saturation
    return jnp.where(is_dark, 0.0, jax.nn.sigmoid(plant.light_exponent * jnp.log(ratio)))


def light_for(plant: Consortium, share: Float[Array, " 2"]) -> Float[Array, " 2"]:
    """Light that induces a share of full synthesis; the inverse of `induction`.

    Args:
        plant: Constants.
        share: Per strain [-], from 0 up to but not 1, which no light reaches.

    Returns:
        Blue and red intensity [W/m^2].
    """
    odds = share / (1.0 - share)
    return plant.light_half_saturation * odds ** (1.0 / plant.light_exponent)


def growth(plant: Consortium, x: Float[Array, " 5"]) -> Float[Array, " 2"]:
    """Specific growth rates [1/h]."""
    share = x[3:] / (x[3:] + plant.amino_half_saturation)
    return plant.max_growth * x[0] / (x[0] + plant.half_saturation) * share


def balances(
    plant: Consortium, x: Float[Array, " 5"], light: Float[Array, " 2"]
) -> Float[Array, " 5"]:
    """Right-hand side of the five balances, per hour.

    Args:
        plant: Constants.
        x: State in the order and units of `STATE_NAMES`.
        light: Blue and red intensity [W/m^2].

    Returns:
        Rates of the five states [their units per hour].

    Reference:
        The module's equations.
    """
    mu = growth(plant, x)
    eaten = jnp.sum(plant.uptake_per_biomass * mu * x[1:3])
    made = plant.conversion * plant.synthesis * induction(plant, light)
    return jnp.concatenate(
        [
            (plant.dilution * (plant.feed - x[0]) - eaten)[None],
            (mu - plant.dilution) * x[1:3],
            made - (mu + plant.degradation) * x[3:],
        ]
    )


def substrate_equivalents(plant: Consortium, x: Float[Array, "... 5"]) -> Float[Array, "..."]:
    """Glucose plus what biomass has cost [mmol/L].

    It obeys dS/dt = D (s_in - S) whatever the cells do, so S is known in closed form.

    Args:
        plant: Constants.
        x: States in the order and units of `STATE_NAMES`, over any axes before the last.
    """
    cost = plant.uptake_per_biomass
    return x[..., 0] + cost[0] * x[..., 1] + cost[1] * x[..., 2]


def amino_at_growth(plant: Consortium, mu: ArrayLike, glucose: ArrayLike) -> Float[Array, " 2"]:
    """Amino acid at which both strains grow at a rate [mmol/L of cell]."""
    glucose = jnp.asarray(glucose, float)
    top = plant.max_growth * glucose / (glucose + plant.half_saturation)
    return plant.amino_half_saturation * mu / (top - mu)


def amino_at_light(
    plant: Consortium, light: Float[Array, " 2"], glucose: ArrayLike
) -> Float[Array, " 2"]:
    """Amino acid that a constant light holds at a constant glucose [mmol/L of cell]."""
    glucose = jnp.asarray(glucose, float)
    top = plant.max_growth * glucose / (glucose + plant.half_saturation)
    made = plant.conversion * plant.synthesis * induction(plant, light)
    scaled = made / plant.amino_half_saturation
    # scaled (1 + A) = d A (1 + A) + top A^2 for A = a / k_a
    square = top + plant.degradation
    linear = plant.degradation - scaled
    root = jnp.sqrt(linear**2 + 4.0 * square * scaled)
    return plant.amino_half_saturation * (root - linear) / (2.0 * square)


def start_setpoint(plant: Consortium, light: Float[Array, " 2"]) -> Float[Array, " 5"]:
    """A fresh inoculum: little biomass, amino acids as a constant light leaves them.

    Args:
        plant: Constants.
        light: Blue and red intensity of the culture before [W/m^2]; the cases take the highest.

    Returns:
        State in the order and units of `STATE_NAMES`: 1 mmol/L of glucose, 0.005 g/L of either
        strain.
    """
    first = jnp.asarray([1.0, 0.005, 0.005])
    return jnp.concatenate([first, amino_at_light(plant, light, first[0])])


def start_trajectory(plant: Consortium) -> Float[Array, " 5"]:
    """Both strains where an earlier run left them, growing as fast as they are washed out.

    Args:
        plant: Constants; growth has to be able to reach the dilution rate.

    Returns:
        State in the order and units of `STATE_NAMES`: 50 mmol/L of glucose, 3 and 4 g/L of the
        strains.
    """
    first = jnp.asarray([50.0, 3.0, 4.0])
    return jnp.concatenate([first, amino_at_growth(plant, plant.dilution, first[0])])


CUT: Final = 3.0
"""Standard deviations at which draws are cut."""


class Uncertainty(eqx.Module):
    """What differs from episode to episode, as relative standard deviations.

    Draws are Gaussian around the nominal value, cut at three standard deviations.
    """

    initial: Float[Array, ""] = eqx.field(converter=lambda v: jnp.asarray(v, float), default=0.0)
    """Of every initial state [-]."""
    synthesis: Float[Array, ""] = eqx.field(converter=lambda v: jnp.asarray(v, float), default=0.0)
    """Of the two synthesis rates (inferred to be the two uncertain parameters) [-]."""
    disturbance: Float[Array, ""] = eqx.field(
        converter=lambda v: jnp.asarray(v, float), default=0.0
    )
    """Of every state after every step; zero switches it off [-]."""

    def __check_init__(self) -> None:
        for name in ("initial", "synthesis", "disturbance"):
            value, most = getattr(self, name), 1.0 / CUT
            if jnp.shape(value) != ():
                raise ConfigError(f"{name} must be one number.")
            if not isinstance(value, Tracer) and not 0.0 <= float(value) < most:
                raise ConfigError(
                    f"a relative deviation of {value} ({name}) is not possible: draws are cut at "
                    f"{CUT:g} deviations and stay positive from 0 to {most:.2f}."
                )


def factors(key: Key, shape: tuple[int, ...], deviation: Float[Array, ""]) -> Array:
    """Positive factors around one: truncated Gaussian with a relative deviation."""
    draw = jax.random.truncated_normal(key, -CUT, CUT, shape, deviation.dtype)
    return jnp.maximum(1.0 + deviation * draw, 0.0)


def draw_plant(key: Key, plant: Consortium, uncertainty: Uncertainty) -> Consortium:
    """Constants of one episode."""
    spread = factors(key, (2,), uncertainty.synthesis)
    return eqx.tree_at(lambda p: p.synthesis, plant, plant.synthesis * spread)


def draw_initial(
    key: Key, initial: Float[Array, " 5"], uncertainty: Uncertainty
) -> Float[Array, " 5"]:
    """Initial state of one episode."""
    return initial * factors(key, (5,), uncertainty.initial)
