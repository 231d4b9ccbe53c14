"""Rate laws of CHO cells in perfusion, and their constants.

Every law is a pure element-wise function, so that it works on one reactor or on a
thousand lanes, under `jit`, `vmap` and both kinds of derivative.

Rate laws use `saturation(s, K) = s / (K + |s|)`. It equals Monod's term for s >= 0, is once
continuously differentiable at zero and turns uptake into a restoring flux for the slightly
negative values a solver may visit, so that no state has to be clipped.

Constants are synthetic. Three of the published defaults are changed, because together they
give over 100 mmol/L of lactate at 30e6 cells/mL, which no culture survives: glucose uptake for
growth (`q_glc_max`) and the lactate yield (`Y_lac_glc`) are lower, and the pyruvate-ammonium
reaction is second order, which is what its rate expression k·[Pyr]·[NH4] says.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, ArrayLike, Float

from perfusio_jax._core import STATE_ORDER, ConfigError
from perfusio_jax.mechanistic.vector_field import face_derivatives

CELLS_PER_UNIT = 1e9
"""Cells per litre at a density of 1e6 cells/mL [1/L]."""

GLUCOSE_MMOL_PER_G = 1000.0 / 180.156
"""Amount of glucose in a gram [mmol/g]."""


def _leaf(value: ArrayLike) -> Array:
    array = jnp.asarray(value)
    if jnp.issubdtype(array.dtype, jnp.floating) and isinstance(value, jax.Array):
        return array
    return jnp.asarray(value, float)


def saturation(s: ArrayLike, K: ArrayLike) -> Array:
    """Monod term, continued as an odd function below zero.

    Args:
        s: Concentration, any unit.
        K: Half-saturation constant, same unit, above zero.

    Returns:
        s / (K + |s|) [-], between -1 and 1.
    """
    s = jnp.asarray(s)
    return s / (K + jnp.abs(s))


class CHOKinetics(eqx.Module):
    """Kinetic constants of one CHO clone; every field is traced.

    A field may be a scalar or an array with one entry per lane. `stack` builds the latter.

    Raises:
        ConfigError: If a concrete constant is not finite, or a rate constant is negative.
    """

    mu_max: Array = eqx.field(converter=_leaf, default=0.04)
    """Maximum specific growth rate at the optimal temperature [1/h]."""
    K_glc: Array = eqx.field(converter=_leaf, default=0.08)
    """Half-saturation of growth in glucose [g/L]."""
    K_gln: Array = eqx.field(converter=_leaf, default=0.5)
    """Half-saturation of growth in glutamine [mmol/L]."""
    q_glc_max: Array = eqx.field(converter=_leaf, default=2.2e-11)
    """Glucose uptake for growth at `mu_max` [g/cell/h]; see the module's note."""
    m_glc: Array = eqx.field(converter=_leaf, default=2e-12)
    """Maintenance uptake of glucose [g/cell/h] (Pirt 1965)."""
    Y_lac_glc: Array = eqx.field(converter=_leaf, default=0.9)
    """Lactate made per glucose taken up while producing [mmol/mmol]; see the module's note."""
    glc_switch: Array = eqx.field(converter=_leaf, default=2.0)
    """Glucose at which a switching clone is half-way from making to eating lactate [g/L]."""
    lac_consump_rate: Array = eqx.field(converter=_leaf, default=3e-10)
    """Maximum uptake of lactate after the switch [mmol/cell/h]."""
    consumes_lactate: Array = eqx.field(converter=_leaf, default=True)
    """1 for a clone with the lactate switch (X), 0 without (Y); numbers between blend [-]."""
    q_gln_max: Array = eqx.field(converter=_leaf, default=5e-11)
    """Glutamine uptake for growth at `mu_max` [mmol/cell/h]."""
    K_d: Array = eqx.field(converter=_leaf, default=0.003)
    """Death rate at `T_ref`, without shear or oxygen stress [1/h]."""
    K_T: Array = eqx.field(converter=_leaf, default=0.001)
    """Rise of the death rate with temperature [1/h/K]."""
    T_ref: Array = eqx.field(converter=_leaf, default=37.0)
    """Reference temperature of death and optimum of growth [degC]."""
    q_mAb_growth: Array = eqx.field(converter=_leaf, default=2e-9)
    """Product made per cell grown [mg/cell] (Luedeking and Piret 1959)."""
    q_mAb_nongrowth: Array = eqx.field(converter=_leaf, default=1.8e-9)
    """Product made per cell and hour [mg/cell/h] (Luedeking and Piret 1959)."""
    alpha_amm_gln: Array = eqx.field(converter=_leaf, default=0.85)
    """Ammonium released per glutamine taken up [mmol/mmol]."""
    k_pyr_amm: Array = eqx.field(converter=_leaf, default=0.05)
    """Second-order rate constant of pyruvate with ammonium, one to one [L/mmol/h]."""
    diam_base: Array = eqx.field(converter=_leaf, default=20.5)
    """Mean diameter of a fully viable population [um]."""
    diam_death_coeff: Array = eqx.field(converter=_leaf, default=4.0)
    """Rise of the mean diameter per unit of dead fraction [um]."""

    growth_temperature_width: Array = eqx.field(converter=_leaf, default=2.0)
    """Standard deviation of the bell of growth over temperature [K]; cold costs growth."""
    m_gln: Array = eqx.field(converter=_leaf, default=4e-12)
    """Maintenance uptake of glutamine [mmol/cell/h]."""
    K_glc_maintenance: Array = eqx.field(converter=_leaf, default=0.02)
    """Half-saturation of maintenance in glucose [g/L]; uptake needs something to take."""
    K_gln_maintenance: Array = eqx.field(converter=_leaf, default=0.1)
    """Half-saturation of maintenance in glutamine [mmol/L]."""
    glc_switch_width: Array = eqx.field(converter=_leaf, default=0.3)
    """Width of the logistic lactate switch [g/L]."""
    K_lac: Array = eqx.field(converter=_leaf, default=0.5)
    """Half-saturation of lactate uptake [mmol/L]."""
    Y_glu_gln: Array = eqx.field(converter=_leaf, default=0.1)
    """Glutamate released per glutamine taken up [mmol/mmol]."""
    q_glu_max: Array = eqx.field(converter=_leaf, default=3e-12)
    """Maximum uptake of glutamate [mmol/cell/h]."""
    K_glu: Array = eqx.field(converter=_leaf, default=0.5)
    """Half-saturation of glutamate uptake [mmol/L]."""
    k_lysis: Array = eqx.field(converter=_leaf, default=0.03)
    """Lysis of dead cells [1/h]."""
    agitation_ref: Array = eqx.field(converter=_leaf, default=850.0)
    """Stirrer speed at which shear and oxygen constants are stated [rpm]."""
    k_shear: Array = eqx.field(converter=_leaf, default=3e-4)
    """Death by shear at `agitation_ref`; grows with the eighth power of speed [1/h]."""
    cells_oxygen: Array = eqx.field(converter=_leaf, default=60.0)
    """Cell density that halves growth for want of oxygen at `agitation_ref` [1e6 cells/mL].

    The transfer limit grows with the third power of speed."""
    k_starve: Array = eqx.field(converter=_leaf, default=0.004)
    """Death added when oxygen is fully limiting [1/h]."""
    inhibition_amm: Array = eqx.field(converter=_leaf, default=0.0)
    """Inverse of the ammonium level that halves growth [L/mmol]; 0 = no inhibition."""
    inhibition_lac: Array = eqx.field(converter=_leaf, default=0.0)
    """Inverse of the lactate level that halves growth [L/mmol]; 0 = no inhibition."""

    STATE_ORDER: ClassVar[list[str]] = list(STATE_ORDER)

    def __check_init__(self) -> None:
        """Refuse constants that are concrete and mean nothing."""
        for name, value in self.items():
            if isinstance(value, Tracer) or not isinstance(value, jax.Array):
                continue
            known = np.asarray(value)  # on the host, where nothing has to be compiled for it
            if not np.all(np.isfinite(known)):
                raise ConfigError(f"kinetic constant {name} is {value}; it must be finite.")
            if name not in _SIGNED and np.any(known < 0):
                raise ConfigError(f"kinetic constant {name} is {value}; it must be >= 0.")

    def items(self) -> list[tuple[str, Array]]:
        """Names and values of all constants, in field order."""
        return [(f.name, getattr(self, f.name)) for f in dataclasses.fields(self)]

    # ---------------------------------------------------------------- growth and death

    def growth_factor(self, temperature_C: ArrayLike) -> Array:
        """Share of `mu_max` left at a temperature [-]; 1 at `T_ref`."""
        z = (jnp.asarray(temperature_C) - self.T_ref) / self.growth_temperature_width
        return jnp.exp(-0.5 * z * z)

    def mu(self, glc: ArrayLike, gln: ArrayLike) -> Array:
        """Specific growth rate by dual-substrate Monod kinetics at the optimal temperature.

        Args:
            glc: Glucose [g/L].
            gln: Glutamine [mmol/L].

        Returns:
            Rate [1/h].

        Reference:
            Monod (1942), product of two saturation terms.
        """
        return self.mu_max * saturation(glc, self.K_glc) * saturation(gln, self.K_gln)

    def k_death(self, temperature_C: ArrayLike = 37.0) -> Array:
        """Specific death rate at a temperature, without shear or oxygen stress.

        Args:
            temperature_C: Culture temperature [degC].

        Returns:
            K_d + K_T (T - T_ref), not below zero [1/h].
        """
        return jnp.maximum(self.K_d + self.K_T * (jnp.asarray(temperature_C) - self.T_ref), 0.0)

    def shear_death(self, agitation: ArrayLike) -> Array:
        """Death by shear at a stirrer speed [rpm] -> [1/h]."""
        speed = jnp.asarray(agitation) / self.agitation_ref
        return self.k_shear * speed**8

    def oxygen_cell_limit(self, agitation: ArrayLike) -> Array:
        """Density at which growth is halved for want of oxygen [1e6 cells/mL]."""
        speed = jnp.asarray(agitation) / self.agitation_ref
        return self.cells_oxygen * speed**3

    # ---------------------------------------------------------------- volumetric rates

    def q_glc(self, mu_val: ArrayLike, vcd: ArrayLike, glc: ArrayLike | None = None) -> Array:
        """Volumetric glucose uptake: growth plus maintenance.

        Args:
            mu_val: Specific growth rate [1/h].
            vcd: Viable cells [1e6 cells/mL].
            glc: Glucose [g/L]; limits maintenance. None: taken as plenty.

        Returns:
            Rate [g/L/h], positive = uptake.

        Reference:
            Pirt (1965); the growth yield is absorbed into `q_glc_max`.
        """
        available = 1.0 if glc is None else saturation(glc, self.K_glc_maintenance)
        growth = (self.q_glc_max * CELLS_PER_UNIT) * (jnp.asarray(mu_val) / self.mu_max)
        return (growth + (self.m_glc * CELLS_PER_UNIT) * available) * vcd

    def q_gln(self, mu_val: ArrayLike, vcd: ArrayLike, gln: ArrayLike | None = None) -> Array:
        """Volumetric glutamine uptake: growth plus maintenance.

        Args:
            mu_val: Specific growth rate [1/h].
            vcd: Viable cells [1e6 cells/mL].
            gln: Glutamine [mmol/L]; limits maintenance. None: taken as plenty.

        Returns:
            Rate [mmol/L/h], positive = uptake.
        """
        available = 1.0 if gln is None else saturation(gln, self.K_gln_maintenance)
        growth = (self.q_gln_max * CELLS_PER_UNIT) * (jnp.asarray(mu_val) / self.mu_max)
        return (growth + (self.m_gln * CELLS_PER_UNIT) * available) * vcd

    def lactate_switch(self, glc: ArrayLike) -> Array:
        """Share of the lactate switch thrown at a glucose level [-]; 0 for clone Y."""
        z = (self.glc_switch - jnp.asarray(glc)) / self.glc_switch_width
        return self.consumes_lactate * jax.nn.sigmoid(z)

    def q_lac(
        self,
        glc: ArrayLike,
        q_glc_val: ArrayLike,
        vcd: ArrayLike = 0.0,
        lac: ArrayLike | None = None,
    ) -> Array:
        """Volumetric lactate rate with the metabolic switch.

        Args:
            glc: Glucose [g/L].
            q_glc_val: Volumetric glucose uptake [g/L/h].
            vcd: Viable cells [1e6 cells/mL].
            lac: Lactate [mmol/L]; limits uptake. None: taken as plenty.

        Returns:
            Rate [mmol/L/h]; positive = production, negative = uptake.

        Reference:
            Gagnon et al. (2011) for the switch; written as a logistic so that it differentiates.
        """
        thrown = self.lactate_switch(glc)
        available = 1.0 if lac is None else saturation(lac, self.K_lac)
        made = (self.Y_lac_glc * GLUCOSE_MMOL_PER_G) * jnp.asarray(q_glc_val) * (1.0 - thrown)
        return made - thrown * (self.lac_consump_rate * CELLS_PER_UNIT) * available * vcd

    def pyruvate_scavenging(self, pyr: ArrayLike, amm: ArrayLike) -> Array:
        """Rate at which pyruvate and ammonium remove each other one to one [mmol/L/h]."""
        return self.k_pyr_amm * jnp.asarray(pyr) * amm

    def q_amm(self, q_gln_val: ArrayLike, pyr: ArrayLike, amm: ArrayLike) -> Array:
        """Net volumetric ammonium rate [mmol/L/h].

        Args:
            q_gln_val: Volumetric glutamine uptake [mmol/L/h].
            pyr: Pyruvate [mmol/L].
            amm: Ammonium [mmol/L].
        """
        return self.alpha_amm_gln * jnp.asarray(q_gln_val) - self.pyruvate_scavenging(pyr, amm)

    def q_glu(self, q_gln_val: ArrayLike, vcd: ArrayLike, glu: ArrayLike) -> Array:
        """Net volumetric glutamate rate: released from glutamine, taken up by cells [mmol/L/h]."""
        uptake = (self.q_glu_max * CELLS_PER_UNIT) * saturation(glu, self.K_glu) * vcd
        return self.Y_glu_gln * jnp.asarray(q_gln_val) - uptake

    def q_mab(self, mu_val: ArrayLike, vcd: ArrayLike) -> Array:
        """Volumetric product formation [mg/L/h].

        Args:
            mu_val: Specific growth rate [1/h].
            vcd: Viable cells [1e6 cells/mL].

        Reference:
            Luedeking and Piret (1959).
        """
        alpha = self.q_mAb_growth * CELLS_PER_UNIT
        beta = self.q_mAb_nongrowth * CELLS_PER_UNIT
        return (alpha * jnp.asarray(mu_val) + beta) * vcd

    def cell_diameter(self, via: ArrayLike) -> Array:
        """Mean cell diameter at a viability [%] -> [um].

        The published text quotes 22.5 um at 90 % viability, which its own coefficient of 4 um
        does not give (20.9 um); the coefficient is kept.
        """
        return self.diam_base + self.diam_death_coeff * (1.0 - jnp.asarray(via) / 100.0)

    def ode_rhs(
        self, t: float, y: Sequence[float] | Float[Array, " 9"], controls: Mapping[str, float]
    ) -> list[Array]:
        """Time derivatives of the measured face, in the form SciPy's solvers call.

        Args:
            t: Time [h]; the system is autonomous.
            y: VCD, Via, Glc, Gln, Glu, Lac, Amm, Pyr, Titer in their registry units.
            controls: `perfusion_rate`, `bleed_rate` [vvd], `temperature` [degC], and optionally
                `agitation` [rpm], `glucose_setpoint` [g/L], `pyruvate_feed` or `pyr_feed_conc`,
                `gln_feed_conc` [mmol/L], `glucose_feed_conc` [g/L] (perfusion medium),
                `volume_L` [L].

        Returns:
            Nine derivatives per hour; that of viability follows from those of Xv and Xd.

        Raises:
            ConfigError: If a control has an unknown name.
        """
        return face_derivatives(self, jnp.asarray(y), controls)


_SIGNED = frozenset({"T_ref", "diam_death_coeff"})


def clone_x() -> CHOKinetics:
    """Default constants with the lactate switch."""
    return CHOKinetics()


def clone_y() -> CHOKinetics:
    """Default constants of a clone that never consumes lactate."""
    return CHOKinetics(consumes_lactate=jnp.asarray(0.0))


def stack(kinetics: Sequence[CHOKinetics]) -> CHOKinetics:
    """One set of constants with an entry per lane, from one set per clone.

    Args:
        kinetics: Sets with scalar fields, one per lane.

    Returns:
        Fields of shape (n_lanes,).

    Raises:
        ConfigError: If the sequence is empty.
    """
    if not kinetics:
        raise ConfigError("stack was given no kinetic constants; it needs at least one set.")
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *kinetics)
