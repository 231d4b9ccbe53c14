"""The mechanistic model as the hybrid uses it: simulate, rates, one interval ahead."""

from collections.abc import Mapping, Sequence
from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, ArrayLike, Float

from perfusio_jax._core import (
    BALANCED,
    CONTROL_NAMES,
    STATE_ORDER,
    ConfigError,
    expect_last,
    float_array,
)
from perfusio_jax.chemistry import Medium, from_balanced, to_balanced
from perfusio_jax.mechanistic.daily import advance_interval
from perfusio_jax.mechanistic.integrators import (
    balanced_to_plant,
    make_plan,
    measured_face,
    plant_to_balanced,
    simulate,
)
from perfusio_jax.mechanistic.kinetics import CHOKinetics
from perfusio_jax.mechanistic.reactor import GlucosePump, Reactor
from perfusio_jax.mechanistic.set_points import controls_from_dict, medium_from_dict
from perfusio_jax.mechanistic.vector_field import BALANCED_COLUMNS, day_inputs, fluxes


class CHOPerfusionModel(eqx.Module):
    """Deterministic model of CHO cells in constant-volume perfusion.

    Args:
        kinetics: Constants of the clone; clone X by default.
        volume_L: Working volume [L].
        dt_hours: Reporting interval [h].
        medium: Perfusion medium and glucose concentrate.
        pump: Glucose control loop.

    Examples:
        >>> model = CHOPerfusionModel()
        >>> y0 = {"VCD": 1.0, "Via": 99.0, "Glc": 5.0, "Gln": 4.0, "Glu": 0.5, "Lac": 2.0,
        ...       "Amm": 0.5, "Pyr": 0.0, "Titer": 0.0}
        >>> controls = {"perfusion_rate": 1.0, "bleed_rate": 0.15, "temperature": 37.0}
        >>> model.simulate(y0, controls, n_days=14).shape
        (15, 9)
    """

    reactor: Reactor
    """Cells, medium, pump and vessel."""
    volume_L: Array
    """Working volume [L]."""
    dt_hours: Array
    """Reporting interval [h]."""

    STATE_SPECIES: ClassVar[list[str]] = list(STATE_ORDER)

    def __init__(
        self,
        kinetics: CHOKinetics | None = None,
        volume_L: ArrayLike = 0.25,
        dt_hours: ArrayLike = 24.0,
        *,
        medium: Medium | None = None,
        pump: GlucosePump | None = None,
    ) -> None:
        self.reactor = Reactor(
            kinetics=CHOKinetics() if kinetics is None else kinetics,
            medium=Medium() if medium is None else medium,
            pump=GlucosePump() if pump is None else pump,
        )
        self.volume_L = jnp.asarray(volume_L, float)
        self.dt_hours = jnp.asarray(dt_hours, float)
        for name, value in (("volume_L", self.volume_L), ("dt_hours", self.dt_hours)):
            if not isinstance(value, Tracer) and not np.all(np.asarray(value) > 0):
                raise ConfigError(f"{name} is {value}; it must be above zero.")

    @property
    def kinetics(self) -> CHOKinetics:
        """Constants of the clone."""
        return self.reactor.kinetics

    @property
    def medium(self) -> Medium:
        """Perfusion medium and glucose concentrate."""
        return self.reactor.medium

    @property
    def sieving(self) -> Float[Array, " 9"]:
        """Sieving coefficients in `BALANCED` order [-]."""
        return self.reactor.sieving[jnp.asarray(BALANCED_COLUMNS)]

    def pump_rate(self, glucose: ArrayLike, setpoint: ArrayLike) -> Array:
        """Flow of the glucose concentrate per reactor volume [L/h/L].

        Args:
            glucose: Concentration [g/L].
            setpoint: Set-point [g/L].
        """
        return self.reactor.pump.flux(glucose, setpoint) / self.medium.glucose_feed

    def advance(
        self,
        c: Float[Array, " 9"],
        u: Float[Array, " 6"],
        dt_h: ArrayLike = 24.0,
        *,
        start_h: ArrayLike | None = None,
    ) -> tuple[Float[Array, " 9"], Array]:
        """One interval ahead on a fixed grid; pure, and differentiable to any order.

        Args:
            c: State in `BALANCED` order.
            u: Set-points in `CONTROL_NAMES` order.
            dt_h: Length of the interval [h].
            start_h: Hours since inoculation at its start [h]; needed if the filter fouls.

        Returns:
            State after the interval, and the concentrated glucose fed in it [L].

        Raises:
            ConfigError: If shapes do not fit, or the reactor is of a kind that the fixed grid
                does not serve; see `advance_interval`.
        """
        c = float_array(c)
        expect_last(c, BALANCED, "c", rank=1)
        state, glucose_L = advance_interval(
            self.reactor,
            balanced_to_plant(c),
            u,
            dt_h,
            volume_L=self.volume_L,
            start_h=start_h,
        )
        return plant_to_balanced(state), glucose_L

    def predict_rates(
        self, c: Float[Array, " 9"], controls: Mapping[str, float] | Float[Array, " 6"]
    ) -> Float[Array, " 9"]:
        """Net volumetric rates at a state, without inflow and outflow.

        Args:
            c: Measured face: VCD, Via, Glc, Gln, Glu, Lac, Amm, Pyr, Titer.
            controls: Set-points by name, or a vector in `CONTROL_NAMES` order.

        Returns:
            Rates per hour in the units of the face. The entry of viability is the change of
            viability the reactions alone would cause.

        Raises:
            ConfigError: If shapes do not fit.
        """
        face = jnp.asarray(c, float)
        expect_last(face, STATE_ORDER, "c", rank=1)
        u = controls_from_dict(controls) if isinstance(controls, Mapping) else float_array(controls)
        expect_last(u, CONTROL_NAMES, "controls", rank=1)
        balanced = to_balanced(face)
        state = balanced_to_plant(balanced)
        volume = self.volume_L
        inputs = day_inputs(self.reactor, u, volume)
        amounts = (*(state[k] * volume for k in range(state.shape[0])), volume)
        made = fluxes(self.reactor, inputs, amounts).reaction
        rates = jnp.stack([made[k] for k in BALANCED_COLUMNS]) / volume
        _, face_rates = jax.jvp(from_balanced, (balanced,), (rates,))
        return face_rates

    def predict_rates_batch(
        self,
        c_batch: Float[Array, "N 9"],
        controls_batch: Float[Array, "N n_controls"],
        control_names: Sequence[str],
    ) -> Float[Array, "N 9"]:
        """`predict_rates` for many states.

        Args:
            c_batch: Measured faces.
            controls_batch: Set-points, one column per name.
            control_names: Names of the columns; missing controls take the centre recipe.

        Returns:
            Rates per hour.

        Raises:
            ConfigError: If a name is unknown or given twice, or shapes do not fit.
        """
        c_batch = jnp.asarray(c_batch, float)
        controls_batch = jnp.asarray(controls_batch, float)
        names = list(control_names)
        unknown = [n for n in names if n not in CONTROL_NAMES]
        if unknown or len(set(names)) != len(names):
            raise ConfigError(
                f"control_names {names} must be distinct names out of {list(CONTROL_NAMES)}."
            )
        if controls_batch.shape != (c_batch.shape[0], len(names)):
            raise ConfigError(
                f"controls_batch has shape {controls_batch.shape}; expected "
                f"({c_batch.shape[0]}, {len(names)})."
            )
        u = jnp.broadcast_to(controls_from_dict({}), (c_batch.shape[0], len(CONTROL_NAMES)))
        if names:
            columns = jnp.asarray([CONTROL_NAMES.index(n) for n in names])
            u = u.at[:, columns].set(controls_batch)
        return jax.vmap(self.predict_rates)(c_batch, u)

    def simulate(
        self,
        y0: Mapping[str, float],
        controls: Mapping[str, float],
        n_days: int,
        seed: int | None = None,
    ) -> Float[np.ndarray | Array, "samples 9"]:
        """Simulate a run under constant set-points; numbers may be traced.

        Traced, a run that fails is NaN: nothing can be raised there. A gradient through many
        days compiles in seconds through `advance`, in minutes through this.

        Args:
            y0: Value per species of `STATE_SPECIES`.
            controls: Set-points by name; missing ones take the centre recipe. Optionally
                `glucose_feed_conc` [g/L] and `gln_feed_conc` [mmol/L] of the perfusion medium
                and `volume_L` [L], which then replace the model's own.
            n_days: Number of reporting intervals.
            seed: Ignored; the model is deterministic.

        Returns:
            Measured face at the start and after each interval.

        Raises:
            ConfigError: If a species is missing or unknown, a control is unknown, or there is
                nothing to simulate.
            SimulationError: If no solver reaches the end.
        """
        missing = [s for s in STATE_ORDER if s not in y0]
        unknown = [s for s in y0 if s not in STATE_ORDER]
        if missing or unknown:
            raise ConfigError(
                f"y0 must name {list(STATE_ORDER)}; missing {missing}, unknown {unknown}."
            )
        several = {s: np.shape(y0[s]) for s in STATE_ORDER if np.shape(y0[s])}
        if several:
            raise ConfigError(f"each entry of y0 is one number; given were shapes {several}.")
        face = jnp.asarray([y0[s] for s in STATE_ORDER], float)
        if n_days < 1:
            raise ConfigError(f"n_days is {n_days}; it must be at least 1.")
        medium = medium_from_dict(controls, self.medium)
        reactor = eqx.tree_at(lambda r: r.medium, self.reactor, medium)
        plan = make_plan(
            reactor,
            balanced_to_plant(to_balanced(face))[None],
            controls_from_dict(controls)[None],
            jnp.broadcast_to(self.dt_hours, (n_days,)),
            volume_L=controls.get("volume_L", self.volume_L),
        )
        return measured_face(simulate(reactor, plan))
