"""The vector field of one reactor: perfusion, fed-batch and chemostat.

State is the *amount* of each species, V·c, and the volume. All entries are separate arrays,
one number or one lane vector each: a Rosenbrock step on a batch then has no gathers, and the
zeros of its Jacobian cost nothing.

    d(V c_k)/dt = sum_j F_j c_jk - F_bleed c_k - F_harvest sigma_k c_k + R_k V
    dV/dt       = sum_j F_j - F_bleed - F_harvest
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, Final, Literal, NamedTuple

import equinox as eqx
import jax.numpy as jnp
from jax.core import Tracer
from jaxtyping import Array, ArrayLike, Float

from perfusio_jax._core import CONTROL_NAMES, ConfigError, expect_last, float_array
from perfusio_jax.chemistry import GlucosePump as GlucosePump
from perfusio_jax.chemistry import Medium
from perfusio_jax.mechanistic.kinetics import CHOKinetics

PLANT_SPECIES: Final[tuple[str, ...]] = (
    "Xv",
    "Xd",
    "Xl",
    "Glc",
    "Gln",
    "Glu",
    "Lac",
    "Amm",
    "Pyr",
    "Titer",
)
"""Concentrations of the plant's state; the volume [L] is entry 10 of the integrated state."""

N_PLANT: Final[int] = len(PLANT_SPECIES)

BALANCED_COLUMNS: Final[tuple[int, ...]] = (0, 1, 3, 4, 5, 6, 7, 8, 9)
"""Columns of `PLANT_SPECIES` that make up the `BALANCED` layout (lysed cells left out)."""

Mode = Literal["perfusion", "chemostat", "fed_batch"]
PerfusionMode = Literal["vvd", "cspr"]

Parts = tuple[Array, ...]


def _leaf(value: ArrayLike) -> Array:
    return jnp.asarray(value, float)


def _default_sieving() -> Array:
    return jnp.asarray([0.0, 0.0, 0.0] + [1.0] * 7)


def pump_rate(pump: GlucosePump, medium: Medium, glucose: ArrayLike, setpoint: ArrayLike) -> Array:
    """Flow of the concentrated glucose feed per reactor volume [L/h/L]."""
    return pump.flux(glucose, setpoint) / medium.glucose_feed


class Reactor(eqx.Module):
    """Cells, medium, pump and vessel: everything but set-points and state."""

    kinetics: CHOKinetics = eqx.field(default_factory=CHOKinetics)
    """Constants of the clone."""
    medium: Medium = eqx.field(default_factory=Medium)
    """Perfusion medium (in fed-batch: the continuous feed) and glucose concentrate."""
    pump: GlucosePump = eqx.field(default_factory=GlucosePump)
    """Glucose control loop."""
    sieving: Float[Array, " 10"] = eqx.field(converter=_leaf, default_factory=_default_sieving)
    """Part of each species of `PLANT_SPECIES` that passes the filter [-]."""
    fouling_rate: Array = eqx.field(converter=_leaf, default=0.0)
    """Exponential decay of the product's sieving with time [1/h]."""
    mode: Mode = eqx.field(static=True, default="perfusion")
    """`perfusion`: harvest keeps the volume; `chemostat`: bleed keeps it, nothing is retained;
    `fed_batch`: nothing leaves between samples and the volume grows."""
    perfusion_mode: PerfusionMode = eqx.field(static=True, default="vvd")
    """`vvd`: first control in vessel volumes per day; `cspr`: in pL/cell/d, and the bleed gives
    way while the cells are too few for the inflow to cover it."""

    def __check_init__(self) -> None:
        """Refuse unknown modes."""
        if self.mode not in ("perfusion", "chemostat", "fed_batch"):
            raise ConfigError(
                f"reactor mode {self.mode!r} is unknown; choose perfusion, chemostat or fed_batch."
            )
        if self.perfusion_mode not in ("vvd", "cspr"):
            raise ConfigError(
                f"perfusion_mode {self.perfusion_mode!r} is unknown; choose vvd or cspr."
            )

    @property
    def constant_volume(self) -> bool:
        """Whether the vector field leaves the volume alone."""
        return self.mode != "fed_batch"


class DayInputs(NamedTuple):
    """Everything that is constant within one interval, per lane; all entries one shape.

    Temperature and agitation enter here once per interval, so that no exponential or power of
    a set-point is evaluated inside the integrator.
    """

    perfusion: Array
    """First control: [1/h], or with `cspr` [1/h per 1e6 cells/mL]."""
    bleed: Array
    """Bleed per volume [1/h]."""
    glucose_setpoint: Array
    """[g/L]."""
    pyruvate_in: Array
    """Pyruvate of the perfusion stream [mmol/L]."""
    mu_max: Array
    """Maximum growth rate at this temperature [1/h]."""
    death: Array
    """Death rate at this temperature and stirrer speed [1/h]."""
    inverse_cell_limit: Array
    """1 / density that halves growth for want of oxygen [mL/1e6 cells]."""
    product_sieving: Array
    """Sieving of the product in this interval [-]."""
    feed_volume: Array
    """Volume the feed rate refers to [L]."""


def day_inputs(
    reactor: Reactor,
    controls: Float[Array, "*lanes 6"],
    volume_L: Float[Array, "*lanes"],
    time_h: ArrayLike = 0.0,
) -> DayInputs:
    """Turn set-points into the constants of one interval.

    Args:
        reactor: Cells and vessel.
        controls: Set-points in `CONTROL_NAMES` order and units.
        volume_L: Nominal working volume [L].
        time_h: Middle of the interval [h], for filter fouling.

    Returns:
        Constants with the shape of `controls` without its last axis.

    Raises:
        ConfigError: If the last axis of `controls` is not as long as there are controls.
    """
    controls = float_array(controls)
    expect_last(controls, CONTROL_NAMES, "controls")
    perfusion, bleed, setpoint, temperature, agitation, pyruvate = (
        controls[..., i] for i in range(len(CONTROL_NAMES))
    )
    kinetics = reactor.kinetics
    per_unit = 1e-3 / 24.0 if reactor.perfusion_mode == "cspr" else 1.0 / 24.0
    fouling = jnp.exp(-reactor.fouling_rate * jnp.asarray(time_h, controls.dtype))
    like = jnp.zeros_like(perfusion)
    return DayInputs(
        perfusion=perfusion * per_unit,
        bleed=bleed / 24.0,
        glucose_setpoint=setpoint,
        pyruvate_in=reactor.medium.pyruvate + pyruvate,
        mu_max=kinetics.mu_max * kinetics.growth_factor(temperature) + like,
        death=kinetics.k_death(temperature) + kinetics.shear_death(agitation) + like,
        inverse_cell_limit=1.0 / kinetics.oxygen_cell_limit(agitation) + like,
        product_sieving=reactor.sieving[9] * fouling + like,
        feed_volume=jnp.asarray(volume_L, controls.dtype) + like,
    )


class Fluxes(NamedTuple):
    """Flows and rates at one instant; the vector field and the totals are both made of these."""

    inflow: Parts
    """Amount per hour brought in, one entry per species [amount/h]."""
    outflow: Parts
    """Amount per hour carried out by bleed and harvest [amount/h]."""
    reaction: Parts
    """Amount per hour made by cells and chemistry [amount/h]."""
    perfusion: Array
    """Perfusion or feed stream [L/h]."""
    bleed: Array
    """Bleed stream [L/h]."""
    glucose: Array
    """Concentrated glucose feed [L/h]."""
    harvest: Array
    """Harvest through the filter [L/h]."""


def _concentrations(state: Parts) -> Parts:
    inverse_V = 1.0 / state[N_PLANT]
    return tuple(n * inverse_V for n in state[:N_PLANT])


def _oxygen(inputs: DayInputs, Xv: Array) -> Array:
    crowding = Xv * inputs.inverse_cell_limit
    crowding = crowding * crowding
    return 1.0 / (1.0 + crowding * crowding)


def growth_rate(reactor: Reactor, inputs: DayInputs, state: Parts) -> Array:
    """Specific growth rate at a state [1/h].

    Everything growth does to the reactor passes through this one number, which is what keeps
    the Jacobian sparse: see `rosenbrock.factorise`.
    """
    kin = reactor.kinetics
    Xv, _, _, glc, gln, _, lac, amm, _, _ = _concentrations(state)
    amm_effect = kin.inhibition_amm * amm
    lac_effect = kin.inhibition_lac * lac
    inhibition = (1.0 + amm_effect * amm_effect) * (1.0 + lac_effect * lac_effect)
    # saturation(glc) saturation(gln) / inhibition, as one quotient.
    return (inputs.mu_max * _oxygen(inputs, Xv) * glc * gln) / (
        (kin.K_glc + jnp.abs(glc)) * (kin.K_gln + jnp.abs(gln)) * inhibition
    )


def fluxes(reactor: Reactor, inputs: DayInputs, state: Parts, mu: Array | None = None) -> Fluxes:
    """All flows and rates at a state.

    Args:
        reactor: Cells and vessel.
        inputs: Constants of the interval.
        state: Ten amounts V·c in `PLANT_SPECIES` order, then the volume [L].
        mu: Specific growth rate [1/h]; that of the state by default.

    Returns:
        Fluxes per hour.
    """
    kin, medium = reactor.kinetics, reactor.medium
    V = state[N_PLANT]
    concentrations = _concentrations(state)
    Xv, Xd, _, glc, gln, glu, lac, amm, pyr, _ = concentrations
    mu = growth_rate(reactor, inputs, state) if mu is None else mu
    death = (inputs.death + kin.k_starve * (1.0 - _oxygen(inputs, Xv))) * Xv
    lysis = kin.k_lysis * Xd
    q_glc = kin.q_glc(mu, Xv, glc)
    q_gln = kin.q_gln(mu, Xv, gln)
    scavenging = kin.pyruvate_scavenging(pyr, amm)
    rates = (
        mu * Xv - death,
        death - lysis,
        lysis,
        -q_glc,
        -q_gln,
        kin.q_glu(q_gln, Xv, glu),
        kin.q_lac(glc, q_glc, Xv, lac),
        kin.alpha_amm_gln * q_gln - scavenging,
        -scavenging,
        kin.q_mab(mu, Xv),
    )
    reaction = tuple(rate * V for rate in rates)

    glucose_flux = reactor.pump.flux(glc, inputs.glucose_setpoint)
    F_glucose = glucose_flux / medium.glucose_feed * V
    base = V if reactor.constant_volume else inputs.feed_volume
    F_perfusion = inputs.perfusion * base
    if reactor.perfusion_mode == "cspr":
        F_perfusion = F_perfusion * Xv
    if reactor.mode == "perfusion":
        F_bleed = inputs.bleed * V
        if reactor.perfusion_mode == "cspr":  # few cells, little perfusion: the bleed gives way
            F_bleed = jnp.minimum(F_bleed, F_perfusion + F_glucose)
        F_harvest = F_perfusion + F_glucose - F_bleed
    elif reactor.mode == "chemostat":
        F_bleed = F_perfusion + F_glucose
        F_harvest = jnp.zeros_like(F_bleed)
    else:
        F_bleed = jnp.zeros_like(F_perfusion)
        F_harvest = jnp.zeros_like(F_perfusion)

    zero = jnp.zeros_like(F_perfusion)
    inflow = (
        zero,
        zero,
        zero,
        F_perfusion * medium.glucose + glucose_flux * V,
        F_perfusion * medium.glutamine,
        F_perfusion * medium.glutamate,
        F_perfusion * medium.lactate,
        F_perfusion * medium.ammonium,
        F_perfusion * inputs.pyruvate_in,
        zero,
    )
    sieving = [reactor.sieving[k] for k in range(N_PLANT - 1)] + [inputs.product_sieving]
    outflow = tuple(
        (F_bleed + F_harvest * sigma) * c for sigma, c in zip(sieving, concentrations, strict=True)
    )
    return Fluxes(inflow, outflow, reaction, F_perfusion, F_bleed, F_glucose, F_harvest)


def vector_field(
    reactor: Reactor, inputs: DayInputs, state: Parts, mu: Array | None = None
) -> Parts:
    """Time derivative of ten amounts and the volume [amount/h, L/h].

    Args:
        reactor: Cells and vessel.
        inputs: Constants of the interval.
        state: Ten amounts, then the volume [L].
        mu: Specific growth rate [1/h]; that of the state by default.
    """
    flow = fluxes(reactor, inputs, state, mu)
    amounts = tuple(
        i - o + r for i, o, r in zip(flow.inflow, flow.outflow, flow.reaction, strict=True)
    )
    if reactor.constant_volume:
        return (*amounts, jnp.zeros_like(flow.perfusion))
    volume = flow.perfusion + flow.glucose - flow.bleed - flow.harvest
    return (*amounts, volume)


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

DEFAULT_CONTROLS: Final[Mapping[str, float]] = {
    "perfusion_rate": 1.25,
    "bleed_rate": 0.175,
    "glucose_setpoint": 5.0,
    "temperature": 36.25,
    "agitation": 875.0,
    "pyruvate_feed": 2.5,
}
"""Centre of the default design space, used where a control is not given."""


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


def face_derivatives(
    kinetics: CHOKinetics, face: Float[Array, " 9"], controls: Mapping[str, float]
) -> list[Array]:
    """Derivatives of the measured face per hour; see `CHOKinetics.ode_rhs`."""
    reactor = Reactor(kinetics=kinetics, medium=medium_from_dict(controls))
    volume = jnp.asarray(controls.get("volume_L", 0.25), float)
    inputs = day_inputs(reactor, controls_from_dict(controls), volume)
    Xv, via = face[0], face[1]
    Xd = Xv * (100.0 / jnp.maximum(via, 1e-9) - 1.0)
    c = (Xv, Xd, jnp.zeros_like(Xv), *(face[i] for i in range(2, 9)))
    dn = vector_field(reactor, inputs, (*(volume * v for v in c), volume))
    dc = [d / volume for d in dn[:N_PLANT]]
    total = jnp.maximum(Xv + Xd, 1e-12)
    d_via = 100.0 * (Xd * dc[0] - Xv * dc[1]) / (total * total)
    return [dc[0], d_via, *dc[3:]]
