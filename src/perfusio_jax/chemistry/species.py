"""The species of a perfusion run: registry, latent coordinates and derived readings.

Three layouts occur in the library. The *registry* has thirteen entries; the *measured
face* (`STATE_ORDER`) has the nine columns an analyser fills; the *balanced* layout
(`BALANCED`) has nine concentrations that obey a mass balance. Face and balanced layout
differ in one column: viability on the face, dead cells in the balance.
"""

import dataclasses
import math
from collections.abc import Iterator, Sequence
from enum import Enum
from typing import Any, ClassVar

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from perfusio_jax._core import BALANCED, FORECAST_SPECIES, STATE_ORDER
from perfusio_jax._core.assays import ASSAYS
from perfusio_jax._core.plausible import PLAUSIBLE

VIABILITY_SOFTENING = 1e-6
"""Cell density [1e6 cells/mL], one cell per mL, that keeps viability smooth at zero cells."""

_CELLS = "10⁶ cells mL⁻¹"


@dataclasses.dataclass(frozen=True, slots=True)
class Species:
    """What is known about one quantity of a run before any data.

    Examples:
        >>> Species("VCD", "Viable cell density", "10⁶ cells mL⁻¹", 0.0, 120.0).short_name
        'VCD'
    """

    short_name: str
    """Canonical name, used for columns everywhere."""
    full_name: str
    """Name for axis labels."""
    unit: str
    """Unit as displayed."""
    lo: float
    """Plausible lower bound, in `unit`."""
    hi: float
    """Plausible upper bound, in `unit`."""
    is_measured: bool = True
    """True for a reading of its own, False for one derived from others."""
    is_control: bool = False
    """True where a set-point acts on this quantity (glucose, pyruvate)."""
    sieving: float = 1.0
    """Part that passes the cell-retention filter: 0 retained, 1 free [-]."""
    cv: float = 0.07
    """Coefficient of variation of a typical at-line assay [-]."""

    def __post_init__(self) -> None:
        """Refuse bounds, sieving and CV that mean nothing."""
        if not (math.isfinite(self.lo) and math.isfinite(self.hi) and self.lo < self.hi):
            raise ValueError(
                f"species {self.short_name!r}: lo={self.lo!r} and hi={self.hi!r} must be finite "
                "with lo < hi."
            )
        if not 0.0 <= self.sieving <= 1.0:
            raise ValueError(
                f"species {self.short_name!r}: sieving={self.sieving!r} must lie in [0, 1]."
            )
        if not (math.isfinite(self.cv) and self.cv >= 0.0):
            raise ValueError(
                f"species {self.short_name!r}: cv={self.cv!r} must be finite and >= 0."
            )


class SpeciesEnum(str, Enum):  # noqa: UP042  (a plain StrEnum would change what str() prints)
    """Canonical short names, as an enumeration."""

    VCD = "VCD"
    VCV = "VCV"
    VIA = "Via"
    DIAM = "Diam"
    GLC = "Glc"
    GLN = "Gln"
    GLU = "Glu"
    LAC = "Lac"
    AMM = "Amm"
    PYR = "Pyr"
    TITER = "Titer"
    DCD = "DCD"
    LYS = "Lys"


class SpeciesRegistry:
    """Ordered, immutable collection of species.

    `SpeciesRegistry.DEFAULT` is the one the library uses.

    Args:
        species: Entries in column order; names must be unique.

    Raises:
        ValueError: If it is empty or a name occurs twice.

    Examples:
        >>> SpeciesRegistry.DEFAULT.names[:3]
        ['VCD', 'VCV', 'Via']
        >>> SpeciesRegistry.DEFAULT["VCD"].unit
        '10⁶ cells mL⁻¹'
    """

    DEFAULT: ClassVar["SpeciesRegistry"]
    """Thirteen species of a perfusion run in the library's order."""

    def __init__(self, species: Sequence[Species]) -> None:
        self._species = tuple(species)
        self._index = {s.short_name: i for i, s in enumerate(self._species)}
        if not self._species:
            raise ValueError("a species registry needs at least one species, none was given.")
        if len(self._index) != len(self._species):
            names = [s.short_name for s in self._species]
            twice = sorted({n for n in names if names.count(n) > 1})
            raise ValueError(f"species names must be unique; given more than once: {twice}.")

    def _missing(self, names: Sequence[object]) -> KeyError:
        return KeyError(f"unknown species {list(names)}; known are {self.names}.")

    def __getitem__(self, name: str) -> Species:
        """Species called `name`; KeyError lists the known names."""
        return self._species[self.index(name)]

    def __contains__(self, name: object) -> bool:
        """Whether `name` is registered."""
        return name in self._index

    def __iter__(self) -> Iterator[Species]:
        """Species in column order."""
        return iter(self._species)

    def __len__(self) -> int:
        """Number of species."""
        return len(self._species)

    def __repr__(self) -> str:
        """Names in order."""
        return f"SpeciesRegistry({self.names})"

    @property
    def names(self) -> list[str]:
        """Short names in column order."""
        return [s.short_name for s in self._species]

    @property
    def measured(self) -> list[Species]:
        """Species with a reading of their own."""
        return [s for s in self._species if s.is_measured]

    @property
    def derived(self) -> list[Species]:
        """Species computed from others."""
        return [s for s in self._species if not s.is_measured]

    def index(self, name: str) -> int:
        """Column of `name`, from 0.

        Raises:
            KeyError: If `name` is not registered; the message lists what is.
        """
        if name not in self._index:
            raise self._missing([str(name)])
        return self._index[name]

    def subset(self, names: Sequence[str]) -> "SpeciesRegistry":
        """Registry of the listed species, in the order listed.

        Raises:
            KeyError: If a name is not registered.
        """
        unknown = [n for n in names if n not in self._index]
        if unknown:
            raise self._missing(unknown)
        return SpeciesRegistry([self[n] for n in names])

    def sieving(self, names: Sequence[str] | None = None) -> np.ndarray:
        """Default sieving coefficients of `names` (all if None), shape (K,) [-]."""
        chosen = self.names if names is None else names
        return np.array([self[n].sieving for n in chosen], float)

    def cv(self, names: Sequence[str] | None = None) -> np.ndarray:
        """Assay coefficients of variation of `names` (all if None), shape (K,) [-]."""
        chosen = self.names if names is None else names
        return np.array([self[n].cv for n in chosen], float)


def _known(name: str, unit: str, is_measured: bool = True, **more: Any) -> Species:
    """A species of the registry with its plausible range and its assay."""
    known, assay = PLAUSIBLE[name], ASSAYS[name]
    return Species(name, assay.label, unit, known.lo, known.hi, is_measured, cv=assay.cv, **more)


SpeciesRegistry.DEFAULT = SpeciesRegistry(
    [
        _known("VCD", _CELLS, sieving=0.0),
        _known("VCV", "%", False, sieving=0.0),
        _known("Via", "%", sieving=0.0),
        _known("Diam", "µm", sieving=0.0),
        _known("Glc", "g L⁻¹", is_control=True),
        _known("Gln", "mmol L⁻¹"),
        _known("Glu", "mmol L⁻¹"),
        _known("Lac", "mmol L⁻¹"),
        _known("Amm", "mmol L⁻¹"),
        _known("Pyr", "mmol L⁻¹", is_control=True),
        _known("Titer", "mg L⁻¹"),
        _known("DCD", _CELLS, False, sieving=0.0),
        _known("Lys", _CELLS, False, sieving=0.0),
    ]
)

DEFAULT_SIEVING = (0.0, 0.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0)
"""Sieving coefficients in `BALANCED` order [-]: cells retained, everything else free."""

DEFAULT_CV: tuple[float, ...] = tuple(float(v) for v in SpeciesRegistry.DEFAULT.cv(STATE_ORDER))
"""Assay CVs in `STATE_ORDER` [-]; the one of Via applies to the viability reading."""

_VIA = STATE_ORDER.index("Via")
_XV = BALANCED.index("Xv")
_XD = BALANCED.index("Xd")


def viability(Xv: Float[Array, "..."], Xd: Float[Array, "..."]) -> Float[Array, "..."]:
    """Viability [%] of viable and dead cells [1e6 cells/mL].

    Equals `100 Xv / (Xv + Xd)` up to one cell per mL, which is added to the viable cells:
    an empty vessel then reads 100 % and value and gradient stay finite. Slightly negative
    densities, as an integrator may leave them, count as zero. NaN passes through.

    Args:
        Xv: Viable cells [1e6 cells/mL].
        Xd: Dead cells that are still whole [1e6 cells/mL]; lysed ones are not counted.

    Returns:
        Between 0 and 100 [%].
    """
    live = jnp.maximum(Xv, 0.0) + VIABILITY_SOFTENING
    return 100.0 * live / (live + jnp.maximum(Xd, 0.0))


def dead_cells(Xv: Float[Array, "..."], via: Float[Array, "..."]) -> Float[Array, "..."]:
    """Dead cell density [1e6 cells/mL] behind a viability reading [%].

    The exact inverse of `viability` in its second argument. A reading above 100 % gives
    zero dead cells; one below 1e-4 % is read as 1e-4 %, so that the result stays finite.

    Args:
        Xv: Viable cells [1e6 cells/mL]; below zero they count as zero.
        via: Viability [%].

    Returns:
        Not negative [1e6 cells/mL]; NaN where either input is.
    """
    live = jnp.maximum(Xv, 0.0) + VIABILITY_SOFTENING
    fraction = jnp.clip(via / 100.0, 1e-6, 1.0)
    return live * (1.0 - fraction) / fraction


def cell_diameter(
    via: Float[Array, "..."], diam_base: Float[Array, "..."], diam_death_coeff: Float[Array, "..."]
) -> Float[Array, "..."]:
    """Mean cell diameter [µm]: base plus a swelling proportional to the dead fraction.

    Args:
        via: Viability [%].
        diam_base: Diameter of an all-viable population [µm].
        diam_death_coeff: Increase per unit of dead fraction [µm].
    """
    return diam_base + diam_death_coeff * (1.0 - via / 100.0)


def cell_volume_fraction(
    Xv: Float[Array, "..."], diameter_um: Float[Array, "..."]
) -> Float[Array, "..."]:
    """Viable cell volume VCV [%] of spheres: `1e-4 Xv pi d^3 / 6`.

    Args:
        Xv: Viable cells [1e6 cells/mL].
        diameter_um: Mean diameter [µm]; 1 µm³ is 1e-12 mL.
    """
    return 1e-4 * Xv * (math.pi / 6.0) * diameter_um**3


def to_balanced(face: Float[Array, "... 9"]) -> Float[Array, "... 9"]:
    """Measured face (`STATE_ORDER`) to balanced concentrations (`BALANCED`).

    Only the viability column changes: it becomes dead cells. A missing entry (NaN) makes
    NaN of what depends on it and of nothing else; dead cells need both VCD and Via.

    Args:
        face: Readings: cells [1e6 cells/mL], viability [%], glucose [g/L], the other
            metabolites [mmol/L], product [mg/L].

    Returns:
        The same with dead cells [1e6 cells/mL] in place of the viability.
    """
    return face.at[..., _XD].set(dead_cells(face[..., _XV], face[..., _VIA]))


def from_balanced(balanced: Float[Array, "... 9"]) -> Float[Array, "... 9"]:
    """Balanced concentrations (`BALANCED`) to the measured face (`STATE_ORDER`).

    Args:
        balanced: Viable and dead cells [1e6 cells/mL], glucose [g/L], the other metabolites
            [mmol/L], product [mg/L].

    Returns:
        The same with the viability [%] in place of the dead cells.
    """
    return balanced.at[..., _VIA].set(viability(balanced[..., _XV], balanced[..., _XD]))


def report(
    balanced: Float[Array, "... 9"],
    diam_base: Float[Array, "..."] | float,
    diam_death_coeff: Float[Array, "..."] | float,
) -> Float[Array, "... 12"]:
    """All twelve reported species (`FORECAST_SPECIES`) of balanced concentrations.

    Args:
        balanced: Concentrations in `BALANCED` order.
        diam_base: Diameter of an all-viable population [µm], scalar or batch-shaped.
        diam_death_coeff: Diameter increase per unit of dead fraction [µm], likewise.
    """
    Xv, Xd = balanced[..., _XV], balanced[..., _XD]
    via = viability(Xv, Xd)
    diameter = cell_diameter(via, jnp.asarray(diam_base), jnp.asarray(diam_death_coeff))
    columns = {name: balanced[..., i] for i, name in enumerate(BALANCED)}
    columns |= {
        "VCD": Xv,
        "VCV": cell_volume_fraction(Xv, diameter),
        "Via": via,
        "Diam": diameter,
        "DCD": Xd,
    }
    return jnp.stack([columns[name] for name in FORECAST_SPECIES], axis=-1)
