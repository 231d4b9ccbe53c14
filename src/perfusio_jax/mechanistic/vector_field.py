"""The vector field of one reactor: perfusion, fed-batch and chemostat.

State is the *amount* of each species, V·c, and the volume. All entries are separate arrays,
one number or one lane vector each: a Rosenbrock step on a batch then has no gathers, and the
zeros of its Jacobian cost nothing.

    d(V c_k)/dt = sum_j F_j c_jk - F_bleed c_k - F_harvest sigma_k c_k + R_k V
    dV/dt       = sum_j F_j - F_bleed - F_harvest
"""

from collections.abc import Mapping
from typing import Any, Final, Literal, NamedTuple, Protocol

import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float

from perfusio_jax._core import CONTROL_NAMES, expect_last, float_array
from perfusio_jax.chemistry import GlucosePump, Medium
from perfusio_jax.mechanistic.set_points import controls_from_dict, medium_from_dict

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


def default_sieving() -> Array:
    """What passes the filter [-]: no cell, every small molecule, the product."""
    return jnp.asarray([0.0, 0.0, 0.0] + [1.0] * 7)


def pump_rate(pump: GlucosePump, medium: Medium, glucose: ArrayLike, setpoint: ArrayLike) -> Array:
    """Flow of the concentrated glucose feed per reactor volume [L/h/L].

    Args:
        pump: Law of the feed: the flux of glucose it asks for [g/L/h].
        medium: What flows in; its `glucose_feed` [g/L] turns the flux into a flow.
        glucose: Concentration in the reactor [g/L], scalar or one per lane.
        setpoint: What the pump holds it at [g/L], likewise.
    """
    return pump.flux(glucose, setpoint) / medium.glucose_feed


class Vessel(Protocol):
    """What the vector field asks of a reactor; `reactor.Reactor` has it.

    The kinetics are any object with the constants and rate laws of `kinetics.CHOKinetics`, so
    that the laws may ask for their own derivatives without a circle.
    """

    @property
    def kinetics(self) -> Any:
        """Constants and rate laws of the clone."""
        ...

    @property
    def medium(self) -> Medium:
        """Perfusion medium and glucose concentrate."""
        ...

    @property
    def pump(self) -> GlucosePump:
        """Glucose control loop."""
        ...

    @property
    def sieving(self) -> Any:
        """Part of each species of `PLANT_SPECIES` that passes the filter `(10,)` [-]."""
        ...

    @property
    def fouling_rate(self) -> Any:
        """Exponential decay of the product's sieving with time [1/h]."""
        ...

    @property
    def mode(self) -> Mode:
        """What keeps the volume."""
        ...

    @property
    def perfusion_mode(self) -> PerfusionMode:
        """Unit of the first control."""
        ...

    @property
    def constant_volume(self) -> bool:
        """Whether the vector field leaves the volume alone."""
        ...


class _Perfused(NamedTuple):
    """A vessel in constant-volume perfusion, with the standard filter."""

    kinetics: Any
    medium: Medium
    pump: GlucosePump
    sieving: Array
    fouling_rate: Array
    mode: Mode = "perfusion"
    perfusion_mode: PerfusionMode = "vvd"
    constant_volume: bool = True


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
    reactor: Vessel,
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


def growth_rate(reactor: Vessel, inputs: DayInputs, state: Parts) -> Array:
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


def fluxes(reactor: Vessel, inputs: DayInputs, state: Parts, mu: Array | None = None) -> Fluxes:
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
    reactor: Vessel, inputs: DayInputs, state: Parts, mu: Array | None = None
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


def face_derivatives(
    kinetics: Any, face: Float[Array, " 9"], controls: Mapping[str, float]
) -> list[Array]:
    """Derivatives of the measured face per hour; see `CHOKinetics.ode_rhs`."""
    medium = medium_from_dict(controls)
    no_fouling = jnp.asarray(0.0, float)
    reactor = _Perfused(kinetics, medium, GlucosePump(), default_sieving(), no_fouling)
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
