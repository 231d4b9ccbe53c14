"""How the arrays of a hybrid model are laid out: states, what is seen of them, and controls.

A state is a concentration that obeys a balance, or a level. Its *face* is the column that an
analyser shows of it: the same number, except for dead cells where viability is measured. Both have
the same width and order, so a state nobody measures has a face nobody fills.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool, Float

from perfusio_jax._core import (
    BALANCED,
    CONTROL_NAMES,
    FORECAST_SPECIES,
    STATE_ORDER,
    ConfigError,
)
from perfusio_jax.process import Process, Quantity

VOLUME = "volume_L"
"""Column behind the controls where the volume moves: what is in the vessel at the start [L]."""


@dataclass(frozen=True)
class Layout:
    """Names by column; static and hashable, so that a model's sizes are known to `jit`."""

    states: tuple[str, ...]
    """States, `K` of them."""
    face: tuple[str, ...]
    """What is measured of each."""
    controls: tuple[str, ...]
    """Controls, `M` of them; `VOLUME` behind them where the volume moves."""
    forecast: tuple[str, ...]
    """What forecasts report."""
    cells: int | None
    """State that rates are counted per; None where they are volumetric."""
    pair: tuple[int, int] | None = None
    """Live and dead cells, where the dead are seen as viability."""
    latent: tuple[int, ...] = ()
    """States nobody measures: the mechanism moves them, the process learns nothing of them and
    does not read them."""
    process: Process | None = None
    """The culture; None for perfusion of CHO cells as the reference API has it."""
    strains: tuple[int, ...] = ()
    """States that grow by themselves beside `cells`."""

    @property
    def growers(self) -> tuple[int, ...]:
        """States that grow by themselves; rates of the others are counted per all of them."""
        return () if self.cells is None else (self.cells, *self.strains)

    @property
    def n(self) -> int:
        """Number of states."""
        return len(self.states)

    @property
    def m(self) -> int:
        """Number of control columns."""
        return len(self.controls)

    @property
    def via(self) -> int | None:
        """Face column that holds viability, if one does."""
        return None if self.pair is None else self.pair[1]

    @property
    def is_cho(self) -> bool:
        """Whether arrays are those of the reference API."""
        return self.process is None

    @property
    def is_seen(self) -> Bool[np.ndarray, " K"]:
        """Which states somebody measures."""
        return np.asarray([k not in self.latent for k in range(self.n)])

    @property
    def lower(self) -> Float[np.ndarray, " K"]:
        """Value at which each state counts as zero: a level is counted from its range's end."""
        return np.asarray([q.lo if q is not None and q.kind == "level" else 0.0 for q in self._of])

    @property
    def upper(self) -> Float[np.ndarray, " K"]:
        """Highest plausible value of each state, above `lower`; infinite where none is known."""
        return np.asarray([np.inf if q is None else q.hi for q in self._of]) - self.lower

    @property
    def is_level(self) -> Bool[np.ndarray, " K"]:
        """Which states streams do not carry."""
        return np.asarray([q is not None and q.kind == "level" for q in self._of])

    @property
    def _of(self) -> list[Quantity | None]:
        process = self.process
        return [None if process is None else process.quantity(name) for name in self.states]

    def without(self, names: Iterable[str]) -> "Layout":
        """The same layout with faces that nobody fills.

        Raises:
            ConfigError: If one is no face of it.
        """
        unknown = [name for name in names if name not in self.face]
        if unknown:
            raise ConfigError(f"{', '.join(unknown)}: no column of {', '.join(self.face)}.")
        return replace(self, latent=tuple(self.face.index(name) for name in names))


CHO = Layout(
    tuple(BALANCED),
    tuple(STATE_ORDER),
    tuple(CONTROL_NAMES),
    tuple(FORECAST_SPECIES),
    cells=BALANCED.index("Xv"),
    pair=(BALANCED.index("Xv"), BALANCED.index("Xd")),
)
"""Perfusion of CHO cells: nine states, six controls, twelve reported species."""


def layout_of(process: Process, known: tuple[str, ...] = ()) -> Layout:
    """The layout of a culture that is described.

    Quantities that are carried or a level and measured become states; dead cells, too, where a
    viability tells of them. What nobody measures and no formula shows is left out: without a
    mechanism nothing moves it.

    Args:
        process: The culture.
        known: Quantities that a mechanism gives rates of; they are states, measured or not.

    Raises:
        ConfigError: If nothing is left to model, or viability tells of dead cells of two kinds, or
            of ones whose living nobody measures.
    """
    shown: dict[str, str] = {}
    live: dict[str, str] = {}
    for q in process.quantities:
        if q.kind == "derived" and q.formula == "viability" and q.is_measured:
            alive, dead = q.of
            if not process.quantity(dead).is_measured:
                shown[dead], live[dead] = q.name, alive
    states = tuple(
        q.name
        for q in process.quantities
        if q.kind != "derived" and (q.is_measured or q.name in shown or q.name in known)
    )
    if not states:
        raise ConfigError(
            f"nothing of {process.name} is measured that a model could follow: a quantity that is "
            "carried, or a level, with is_measured = true."
        )
    face = tuple(shown.get(name, name) for name in states)
    if len(shown) > 1 or not set(live.values()) <= set(states):
        raise ConfigError(
            f"{', '.join(shown.values())} of {process.name}: one viability can be modelled, and "
            "its living cells have to be measured. Give another one is_measured = false, or count "
            "the dead."
        )
    pairs = [(states.index(live[d]), states.index(d)) for d in shown]
    biomass = process.biomass
    return Layout(
        states,
        face,
        process.control_names + ((VOLUME,) if process.may_move else ()),
        face,
        cells=states.index(biomass) if biomass in states else None,
        pair=pairs[0] if pairs else None,
        latent=tuple(
            k
            for k, name in enumerate(states)
            if not process.quantity(name).is_measured and name not in shown
        ),
        process=process,
        strains=tuple(states.index(n) for n in process.strains if n in states),
    )
