"""A run of the CHO perfusion plant, as studies look at it: a batch in one integrator."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Final

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float

from perfusio_jax._core import (
    CONTROL_NAMES,
    DEFAULT_CONTROLS,
    STATE_ORDER,
    ConfigError,
    Scalar,
)
from perfusio_jax._core.units import canonical_unit
from perfusio_jax.chemistry import SpeciesRegistry
from perfusio_jax.config import DEFAULT_AMBR250_DESIGN_SPACE
from perfusio_jax.hybrid.calibration import CALIBRATED, CENTRE_WIDTH
from perfusio_jax.mechanistic import (
    PLANT_SPECIES,
    Method,
    Plan,
    Reactor,
    Tolerances,
    day_inputs,
    integrate_lanes,
)
from perfusio_jax.simulator import initial_state, observe
from perfusio_jax.simulator.plant import SPREAD

from .experiment import (
    CONSTANT,
    FEED,
    SET_POINT,
    START,
    Assay,
    Course,
    Experiment,
    Law,
    Lever,
    fields_of,
    in_one,
    lognormal,
    set_point_levers,
    set_point_values,
    uniform,
    with_entries,
    with_set_points,
)
from .given import check_start, interval_lengths, set_points

_PREPARED = 0.1
"""Log standard deviation of what people weigh in: media and inocula [-]."""
_FLOOR = 0.01
"""Deviation of an assay at zero [unit of the species]; that of the filter's."""
_NO_BOLUS = (False,) * len(CONTROL_NAMES)
_REGISTRY = SpeciesRegistry.DEFAULT

_UNITS: Final[Mapping[str, str]] = {
    "mu_max": "1/h",
    "K_glc": "g/L",
    "K_gln": "mmol/L",
    "q_glc_max": "g/cell/h",
    "m_glc": "g/cell/h",
    "Y_lac_glc": "mmol/mmol",
    "glc_switch": "g/L",
    "lac_consump_rate": "mmol/cell/h",
    "consumes_lactate": "-",
    "q_gln_max": "mmol/cell/h",
    "K_d": "1/h",
    "K_T": "1/h/K",
    "T_ref": "degC",
    "q_mAb_growth": "mg/cell",
    "q_mAb_nongrowth": "mg/cell/h",
    "alpha_amm_gln": "mmol/mmol",
    "k_pyr_amm": "L/mmol/h",
    "diam_base": "um",
    "diam_death_coeff": "um",
    "growth_temperature_width": "K",
    "m_gln": "mmol/cell/h",
    "K_glc_maintenance": "g/L",
    "K_gln_maintenance": "mmol/L",
    "glc_switch_width": "g/L",
    "K_lac": "mmol/L",
    "Y_glu_gln": "mmol/mmol",
    "q_glu_max": "mmol/cell/h",
    "K_glu": "mmol/L",
    "k_lysis": "1/h",
    "agitation_ref": "rpm",
    "k_shear": "1/h",
    "cells_oxygen": "1e6 cells/mL",
    "k_starve": "1/h",
    "inhibition_amm": "L/mmol",
    "inhibition_lac": "L/mmol",
}
"""Unit of each constant of `CHOKinetics`, as its docstrings say."""


class CHOExperiment(Experiment):
    """One run of the CHO perfusion plant; make it with `cho_experiment`."""

    reactor: Reactor
    """Cells, medium, pump and vessel."""
    start: Float[Array, " 10"]
    """Concentrations at the start, in `PLANT_SPECIES` order."""
    controls: Float[Array, "T 6"]
    """Set-points by interval, or one row for all."""
    lengths_h: Float[Array, " T"]
    """Lengths of the intervals [h]."""
    volume_L: Scalar
    """Working volume [L]."""
    tolerances: Tolerances
    """Accuracy of the integrator."""
    method: Method = eqx.field(static=True)
    """Static choices of the integrator."""

    @property
    def columns(self) -> tuple[str, ...]:
        """The registry's thirteen species."""
        return tuple(_REGISTRY.names)

    @property
    def is_in_lanes(self) -> bool:
        """All runs in one loop."""
        return True

    def unit(self, column: str) -> str:
        """Unit of a column."""
        return canonical_unit(column)

    @property
    def levers(self) -> tuple[Lever, ...]:
        """Constants, set-points, media, start."""
        units = [canonical_unit(name) for name in CONTROL_NAMES]
        rows = self.controls.shape[0]
        feeds = [f.name for f in dataclasses.fields(self.reactor.medium)]
        return (
            *(Lever(n, CONSTANT, _UNITS[n], n, 0) for n, _ in self.reactor.kinetics.items()),
            *set_point_levers(CONTROL_NAMES, units, rows if rows == self.lengths_h.size else 0),
            *(Lever(f"medium.{n}", FEED, _medium_unit(n), n, 0) for n in feeds),
            *(
                Lever(f"start.{name}", START, _state_unit(name), "", k)
                for k, name in enumerate(PLANT_SPECIES)
            ),
        )

    def usual_law(self, lever: Lever) -> Law | None:
        """Constants as they are calibrated or differ by clone, set-points over the design space."""
        value = float(self.lever_values((lever,))[0])
        if lever.group == SET_POINT:
            lo, hi = DEFAULT_AMBR250_DESIGN_SPACE.bounds_array
            return uniform(float(lo[lever.place]), float(hi[lever.place]))
        if value <= 0.0:
            return None
        if lever.group == CONSTANT:
            width = CENTRE_WIDTH if lever.name in CALIBRATED else SPREAD.get(lever.name)
            return None if width is None else lognormal(value, width)
        return lognormal(value, _PREPARED)

    def is_assumed(self, lever: Lever) -> bool:
        """None is: laws of its constants are those of calibration or of clones."""
        return False

    def lever_values(self, levers: Sequence[Lever]) -> Float[Array, " P"]:
        """What levers stand at."""
        found = []
        for lever in levers:
            if lever.group == CONSTANT:
                found.append(getattr(self.reactor.kinetics, lever.field))
            elif lever.group == SET_POINT:
                found += set_point_values(self.controls, [lever], _NO_BOLUS)
            elif lever.group == FEED:
                found.append(getattr(self.reactor.medium, lever.field))
            else:
                found.append(self.start[lever.place])
        return in_one(found)

    def pulled(self, levers: Sequence[Lever], x: Float[Array, " P"]) -> "CHOExperiment":
        """The run with levers at other values."""
        constants, media = fields_of(levers, CONSTANT), fields_of(levers, FEED)
        place = {(lever.group, lever.field): i for i, lever in enumerate(levers)}
        reactor = self.reactor
        if constants or media:
            reactor = eqx.tree_at(
                lambda r: [
                    *(getattr(r.kinetics, name) for name in constants),
                    *(getattr(r.medium, name) for name in media),
                ],
                reactor,
                [
                    *(x[place[CONSTANT, name]] for name in constants),
                    *(x[place[FEED, name]] for name in media),
                ],
            )
        return dataclasses.replace(
            self,
            reactor=reactor,
            start=with_entries(self.start, levers, x, START),
            controls=with_set_points(self.controls, levers, x, _NO_BOLUS),
        )

    def course(self) -> Course:
        """The run itself."""
        one = jax.tree.map(lambda v: v[None], self)
        return jax.tree.map(lambda v: v[0], _side_by_side(one))

    def side_by_side(self) -> Course:
        """The runs of a batch, every lane with its own step."""
        return _side_by_side(self)

    def forward_only(self) -> "CHOExperiment":
        """The same; lanes replay the steps that were taken either way."""
        return self

    def of_run(
        self,
        start: Float[Array, " 10"],
        controls: Float[Array, "T 6"],
        lengths_h: Float[Array, " T"],
        volume_L: Scalar,
    ) -> "CHOExperiment":
        """Another run of the same plant."""
        return dataclasses.replace(
            self, start=start, controls=controls, lengths_h=lengths_h, volume_L=volume_L
        )

    @property
    def assays(self) -> tuple[Assay, ...]:
        """Nine assays; volume fraction, dead cells and diameter follow or say nothing of rates."""
        return tuple(Assay(name, _REGISTRY[name].cv, _FLOOR, name == "Via") for name in STATE_ORDER)

    def start_of(self, seen: Mapping[str, float]) -> Float[np.ndarray, " 10"]:
        """What was read; where nothing was, as in `DEFAULT_Y0`."""
        known = {name: seen.get(name, np.nan) for name in STATE_ORDER}
        known = {name: max(v, 0.0) for name, v in known.items() if np.isfinite(v)}
        if "Via" in known:
            known["Via"] = float(np.clip(known["Via"], 1.0, 100.0))
        return np.asarray(initial_state(known))


def _side_by_side(many: CHOExperiment) -> Course:
    """Runs with a leading axis in every array."""

    def constants(one: CHOExperiment) -> tuple:
        middle = jnp.cumsum(one.lengths_h) - 0.5 * one.lengths_h
        rows = one.controls.shape[0]
        return day_inputs(one.reactor, one.controls, jnp.full(rows, one.volume_L), middle[:rows])

    inputs = jax.tree.map(jnp.transpose, jax.vmap(constants)(many))
    # element by element, the vector field takes media and filters lane by lane, as constants
    reactor = eqx.tree_at(lambda r: r.sieving, many.reactor, many.reactor.sieving.T)
    plan = Plan(
        initial=jnp.concatenate([many.start.T, many.volume_L[None]]),
        inputs=inputs,
        lengths=many.lengths_h.T,
    )
    tolerances = jax.tree.map(lambda v: v[0], many.tolerances)
    out = integrate_lanes(reactor, plan, tolerances, many.method)
    states = jnp.moveaxis(out.states, -1, 0)
    values = observe(many.reactor.kinetics, states[..., : len(PLANT_SPECIES)])
    return Course(values, out.result)


def cho_experiment(
    reactor: Reactor,
    hours: ArrayLike,
    *,
    controls: ArrayLike | Mapping[str, float] | None = None,
    start: Mapping[str, float] | ArrayLike | None = None,
    volume_L: ArrayLike = 0.25,
    by_interval: bool = False,
    tolerances: Tolerances | None = None,
    method: Method | None = None,
) -> CHOExperiment:
    """A run of the CHO perfusion plant.

    Args:
        reactor: Cells, medium, pump and vessel, in perfusion or chemostat.
        hours: Times of the samples [h]; the first is the start.
        controls: Set-points by interval `(T,6)`, or by name for the whole run; what is not named
            stands as in the centre recipe.
        start: Measured values by name (VCD, Via, Glc, ...), those not named as in `DEFAULT_Y0`; or
            concentrations in `PLANT_SPECIES` order.
        volume_L: Working volume [L].
        by_interval: Whether set-points of single intervals are levers too. Without, set-points that
            never change are laid out once, which is quicker.
        tolerances: Accuracy of the integrator; the plant's default if None.
        method: Static choices of the integrator.

    Raises:
        ConfigError: If shapes do not fit, names are unknown, times do not rise, or the reactor is
            a fed-batch, whose samples and boluses belong to a described culture.

    Example:
        >>> from perfusio_jax.simulator import virtual_reactor
        >>> run = cho_experiment(virtual_reactor(), 24.0 * np.arange(15))
        >>> len(run.columns), [lever.name for lever in run.levers[:2]]
        (13, ['mu_max', 'K_glc'])
    """
    if not reactor.constant_volume:
        raise ConfigError(
            f"a reactor in mode {reactor.mode!r} changes its volume; describe that culture as a "
            "process (described_experiment)."
        )
    lengths = interval_lengths(hours)
    table = set_points(controls, DEFAULT_CONTROLS, lengths.size)
    never_fouls = not np.any(np.asarray(reactor.fouling_rate))
    if not by_interval and never_fouls and np.all(table == table[0]):
        table = table[:1]
    if start is None or isinstance(start, Mapping):
        begin = initial_state(start)
    else:
        begin = jnp.asarray(start, float)
    check_start(begin, PLANT_SPECIES)
    return CHOExperiment(
        reactor=jax.tree.map(lambda v: jnp.asarray(v, float), reactor),
        start=begin,
        controls=jnp.asarray(table),
        lengths_h=jnp.asarray(lengths),
        volume_L=jnp.asarray(volume_L, float),
        tolerances=Tolerances() if tolerances is None else tolerances,
        method=Method() if method is None else method,
    )


def _state_unit(name: str) -> str:
    return canonical_unit("VCD" if name in ("Xv", "Xd", "Xl") else name)


def _medium_unit(field: str) -> str:
    return "g/L" if field.startswith("glucose") else "mmol/L"
