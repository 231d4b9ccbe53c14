"""CHO cells in any vessel: the laws of `kinetics.py` by name, as far as a process knows the names.

What a process does not measure is taken as plenty (glutamine, glucose) or as not there (pyruvate,
ammonium that would inhibit); temperature and stirring that nobody sets are at their reference. Data
may move each kind of rate by a factor; the constants within a rate law stay.
"""

from collections.abc import Mapping
from typing import Final

import equinox as eqx
from jaxtyping import Array, Float

from perfusio_jax._core import ConfigError
from perfusio_jax._core.units import conversion
from perfusio_jax.process import Process

from .kinetics import CHOKinetics, saturation
from .mechanism import Mechanism, constant

# Defaults of fields cannot be arrays, which are mutable; the field's converter makes them.
# pyright: reportArgumentType=false

NAMES: Final[Mapping[str, tuple[str, ...]]] = {
    "live": ("Xv", "VCD"),
    "dead": ("Xd", "DCD"),
    "glc": ("Glc",),
    "gln": ("Gln",),
    "glu": ("Glu",),
    "lac": ("Lac",),
    "amm": ("Amm",),
    "pyr": ("Pyr",),
    "titer": ("Titer",),
}
"""What each part of the laws is called in a process; the first that is carried counts."""
_SOURCE = "shared by CHO lines only roughly"


class CHOCells(Mechanism):
    """Growth, death, uptake and formation by CHO cells; make it with `cho_cells`.

    Reference:
        `CHOKinetics`, whose laws these are.
    """

    kinetics: CHOKinetics
    """Constants within the laws."""
    names: tuple[tuple[str, str], ...] = eqx.field(static=True)
    """Name of each part in the process."""
    slopes: tuple[float, ...] = eqx.field(static=True)
    """Canonical unit of each per unit of the process."""
    controls: tuple[str, ...] = eqx.field(static=True)
    """Of temperature and agitation what the process sets."""
    growth: Float[Array, ""] = constant(1.0, unit="-", log_sd=0.3, source=_SOURCE)
    """Factor on the growth rate."""
    death: Float[Array, ""] = constant(1.0, unit="-", log_sd=0.7, source=_SOURCE)
    """Factor on the death rate."""
    glucose: Float[Array, ""] = constant(1.0, unit="-", log_sd=0.4, source=_SOURCE)
    """Factor on the uptake of glucose."""
    glutamine: Float[Array, ""] = constant(1.0, unit="-", log_sd=0.5, source=_SOURCE)
    """Factor on the uptake of glutamine."""
    lactate: Float[Array, ""] = constant(1.0, unit="-", log_sd=0.5, source=_SOURCE)
    """Factor on the lactate made per glucose, and on its uptake."""
    ammonium: Float[Array, ""] = constant(1.0, unit="-", log_sd=0.5, source=_SOURCE)
    """Factor on the ammonium made per glutamine."""
    product: Float[Array, ""] = constant(1.0, unit="-", log_sd=1.0, source=_SOURCE)
    """Factor on the formation of product, which clones differ in most."""

    def rates(
        self, state: Mapping[str, Array], environment: Mapping[str, Array]
    ) -> dict[str, Array]:
        """Rates of what the process knows of [its units / h]."""
        kin = self.kinetics
        of, slope = dict(self.names), dict(zip(dict(self.names), self.slopes, strict=True))
        c = {part: slope[part] * state[name] for part, name in of.items()}
        live = c["live"]
        temperature = environment["temperature"] if "temperature" in self.controls else kin.T_ref
        speed = environment["agitation"] if "agitation" in self.controls else kin.agitation_ref
        crowding = live / kin.oxygen_cell_limit(speed)
        oxygen = 1.0 / (1.0 + crowding**4)
        held = 1.0 + (kin.inhibition_amm * c.get("amm", 0.0)) ** 2
        held = held * (1.0 + (kin.inhibition_lac * c.get("lac", 0.0)) ** 2)
        at = kin.mu_max * kin.growth_factor(temperature) * oxygen / held
        if "glc" in c:
            at = at * saturation(c["glc"], kin.K_glc)
        if "gln" in c:
            at = at * saturation(c["gln"], kin.K_gln)
        mu = self.growth * at
        dying = kin.k_death(temperature) + kin.shear_death(speed) + kin.k_starve * (1.0 - oxygen)
        died = self.death * dying * live
        # what cells take up for growth follows the law's own growth, not the factor on it twice
        q_glc = self.glucose * kin.q_glc(mu, live, c.get("glc"))
        q_gln = self.glutamine * kin.q_gln(mu, live, c.get("gln"))
        found = {"live": mu * live - died, "glc": -q_glc, "gln": -q_gln}
        found["titer"] = self.product * kin.q_mab(mu, live)
        if "dead" in c:
            found["dead"] = died - kin.k_lysis * c["dead"]
        if "glu" in c:
            found["glu"] = kin.q_glu(q_gln, live, c["glu"])
        if "lac" in c:
            plenty = kin.glc_switch + 10.0 * kin.glc_switch_width
            found["lac"] = self.lactate * kin.q_lac(c.get("glc", plenty), q_glc, live, c["lac"])
        scavenged = kin.pyruvate_scavenging(c.get("pyr", 0.0), c.get("amm", 0.0))
        found["amm"] = self.ammonium * kin.alpha_amm_gln * q_gln - scavenged
        found["pyr"] = -scavenged
        return {name: found[part] / slope[part] for part, name in of.items()}


def cho_cells(process: Process, kinetics: CHOKinetics | None = None) -> CHOCells:
    """The laws of CHO cells for a process.

    Args:
        process: A culture of counted cells, in any units of what it names.
        kinetics: Constants within the laws; those of clone X by default.

    Raises:
        ConfigError: If its biomass is no density of viable cells, or a unit does not fit.

    Example:
        >>> from perfusio_jax.process import CHO_FED_BATCH
        >>> [name for _, name in cho_cells(CHO_FED_BATCH).names]
        ['Xv', 'Xd', 'Glc', 'Gln', 'Glu', 'Lac', 'Amm', 'Titer']
    """
    there: dict[str, str] = {}
    for part, known in NAMES.items():
        name = next((n for n in known if n in process.carried), None)
        if name is not None:
            there[part] = name
    if there.get("live") is None or there["live"] != process.biomass:
        raise ConfigError(
            "mechanism cho is of viable cells that are counted and called "
            f"{' or '.join(NAMES['live'])}; the biomass of {process.name} is "
            f"{process.biomass or 'not named'}. monod fits any."
        )
    slopes = []
    for part, name in there.items():
        column = NAMES[part][-1]
        try:
            line = conversion(process.quantity(name).unit, column)
        except ValueError as error:
            raise ConfigError(f"mechanism cho: {error}") from None
        slopes.append(float(line.slope))
    named = {c.name for c in process.controls if c.role == "environment"}
    return CHOCells(
        kinetics=CHOKinetics() if kinetics is None else kinetics,
        names=tuple(there.items()),
        slopes=tuple(slopes),
        controls=tuple(n for n in ("temperature", "agitation") if n in named),
    )
