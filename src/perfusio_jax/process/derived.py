"""Numbers that follow from samples and flows: rates, yields, cell hours, balances that close.

For each interval between two samples the exact balance of every carried quantity,

    c1 = keep (c0 + dose / V0) + supplied + weight R,

gives its mean volumetric rate `R` (see `chemistry.schemes`; the same solution). Rates per cell are
`R` over the logarithmic mean of the biomass, the time average of cells that grow exponentially.

Standard errors are those of the assays alone. A number is a smooth function of the readings at both
ends, whose derivatives are taken by complex step, exact to rounding; the errors of one sample's
readings are independent. Two intervals in a row share a sample, so their errors are correlated, and
`shared` holds that covariance: sums and means over a run need it. Flows and compositions count as
exact.
"""

import functools
import operator
from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple

import numpy as np
from jaxtyping import Float

from perfusio_jax.states import Trajectory

from .assays import assay_deviation
from .carbon import carbon_contents
from .derived_units import DerivedUnits
from .description import Process
from .recorded import PumpLaw, RecordedFlows, column_of, recorded_flows

_STEP: Final = 1e-30
"""Of the complex step; nothing is subtracted, so it can be as small as one likes."""

_CLEAR: Final = 2.0
"""Standard errors by which uptake has to differ from nothing before a yield on it is told."""


class Number(NamedTuple):
    """One derived number over the I intervals of a run; NaN where unknown."""

    name: str
    """Name of its column."""
    unit: str
    """Its unit."""
    label: str
    """What it is, for people."""
    values: Float[np.ndarray, " I"]
    """Value of each interval; of a cumulated one that at its end."""
    errors: Float[np.ndarray, " I"]
    """Standard errors from the noise of the assays."""
    shared: Float[np.ndarray, " I-1"]
    """Covariance of the errors of an interval and the next; NaN for a cumulated number, whose
    errors are correlated with all later ones."""


class Derived(NamedTuple):
    """Everything that follows from one run."""

    run_id: str
    """Run."""
    reactor_id: str
    """Vessel."""
    clone_id: str
    """Cell line."""
    from_h: Float[np.ndarray, " I"]
    """Start of each interval [h]."""
    to_h: Float[np.ndarray, " I"]
    """Its end [h]."""
    numbers: tuple[Number, ...]
    """The numbers."""
    is_recorded: np.ndarray
    """Whether flows were recorded; else set-points or a pump law stand in."""

    def number(self, name: str) -> Number:
        """A number by its name.

        Raises:
            KeyError: If there is none; the message lists those there are.
        """
        for number in self.numbers:
            if number.name == name:
                return number
        raise KeyError(f"no number {name!r}; there are {', '.join(n.name for n in self.numbers)}")


class _Readings(NamedTuple):
    """Readings of a run that enter numbers."""

    names: tuple[str, ...]
    values: np.ndarray
    """(T, R)"""
    variances: np.ndarray
    """(T, R); zero where nothing was read."""


def derive(
    process: Process, run: Trajectory, pumps: Mapping[str, PumpLaw] | None = None
) -> Derived:
    """Rates, yields, cell hours and closures of one run.

    Args:
        process: The culture.
        run: Its samples and set-points, at any hours.
        pumps: Laws of streams that hold a target, see `recorded_flows`.

    Returns:
        The numbers; none of an interval without readings at both ends is guessed. Cell hours alone
        are bridged: over a sample without a count cells are taken to have grown exponentially
        between its neighbours, and they count from the first one on.

    Raises:
        DataError: If there are fewer than two samples, or a control has no column.

    Example:
        >>> import numpy as np
        >>> from perfusio_jax.process import MONOD_CHEMOSTAT
        >>> steady = Trajectory(
        ...     np.tile([2.0, 0.5, 1.0], (3, 1)), np.tile([0.1, 10.0], (3, 1)), np.ones(3),
        ...     np.arange(3), ["X", "S", "P"], ["dilution", "feed_S"],
        ... )
        >>> found = derive(MONOD_CHEMOSTAT, steady)
        >>> found.number("growth_net").values.round(6).tolist()
        [0.1, 0.1]
    """
    flows = recorded_flows(process, run, pumps)
    readings = _readings(process, run)
    units = DerivedUnits(process)
    balance = _Balance(process, flows, units, readings.names)
    made = _with_errors(balance.rates, readings)
    made |= _with_errors(
        balance.yields(
            {n: v < -_CLEAR * s for n, (_, _, v, s, _) in made.items() if n.startswith("rate_")}
        ),
        readings,
    )
    numbers = [Number(name, *rest) for name, rest in made.items()]
    nothing = np.full(max(flows.dt_h.size - 1, 0), np.nan)
    if process.biomass is not None:
        numbers.append(_cell_hours(process.biomass, units, run, readings))
    if np.isfinite(flows.unexplained_L).any():
        zero = np.where(np.isfinite(flows.unexplained_L), 0.0, np.nan)
        numbers.append(
            Number("volume_unexplained", "L", "Volume that flows do not explain",
                   flows.unexplained_L, zero, nothing * 0.0)
        )  # fmt: skip
    times = np.asarray(run.times_h, float)
    return Derived(
        run.run_id, run.reactor_id, run.clone_id, times[:-1], times[1:], tuple(numbers),
        flows.is_recorded,
    )  # fmt: skip


def mean_of(number: Number, weights: Float[np.ndarray, " I"]) -> tuple[float, float]:
    """Weighted mean of a number over the intervals where it is known, and its standard error.

    Args:
        number: Not a cumulated one.
        weights: Weight of each interval, as its length.

    Returns:
        Mean and standard error, shared samples accounted for; NaN where nothing is known.
    """
    is_known = np.isfinite(number.values)
    if not is_known.any():
        return float("nan"), float("nan")
    w = np.where(is_known, weights, 0.0)
    w = w / w.sum()
    values, errors = np.nan_to_num(number.values), np.nan_to_num(number.errors)
    variance = np.sum((w * errors) ** 2)
    variance += 2.0 * np.sum(w[:-1] * w[1:] * np.nan_to_num(number.shared))
    return float(np.sum(w * values)), float(np.sqrt(max(variance, 0.0)))


def _readings(process: Process, run: Trajectory) -> _Readings:
    """Everything that is measured and carried, or tells something carried."""
    names, values, variances = [], [], []
    for q in process.quantities:
        seen = column_of(run, q.name)
        if not (q.kind == "carried" or q.formula) or not np.isfinite(seen).any():
            continue
        names.append(q.name)
        values.append(seen)
        variances.append(np.nan_to_num(assay_deviation(q, seen)) ** 2)
    shape = (run.n_days, len(names))
    return _Readings(
        tuple(names), np.array(values).T.reshape(shape), np.array(variances).T.reshape(shape)
    )


class _Balance:
    """Numbers of intervals as functions of the readings at both ends."""

    def __init__(
        self, process: Process, flows: RecordedFlows, units: DerivedUnits, names: tuple[str, ...]
    ) -> None:
        self.process, self.flows, self.units, self.names = process, flows, units, names
        self.dead = None
        self.via: tuple[str, str, str] | None = None
        for q in process.quantities:
            if q.formula == "viability" and q.of[0] == process.biomass:
                self.dead = q.of[1]
                if q.name in names and q.of[0] in names and q.of[1] not in names:
                    self.via = (q.name, *q.of)  # pyright: ignore[reportAttributeAccessIssue]
        self.known = [n for n in process.carried if n in names or (self.via and n == self.via[2])]
        brought = {n for s in process.streams for n in (*s.carries, *s.adds)}
        brought |= {name for c in process.controls for name in c.given}
        cells = (*process.growers, self.dead)
        self.fed = [n for n in self.known if n in brought and n not in cells]
        self.made = [n for n in self.known if n not in brought and n != self.dead]
        self.carbon = carbon_contents(process, self.known)

    def concentrations(self, z: np.ndarray) -> dict[str, np.ndarray]:
        """Carried quantities from readings (I, R)."""
        found = {n: z[:, self.names.index(n)] for n in self.known if n in self.names}
        if self.via is not None:
            via, live, dead = self.via
            share = z[:, self.names.index(via)]
            safe = np.where(np.real(share) > 0.0, share, np.nan)
            found[dead] = found[live] * (100.0 / safe - 1.0)
        return found

    def volumetric(self, z0: np.ndarray, z1: np.ndarray) -> dict[str, np.ndarray]:
        """Mean rate of each carried quantity [unit/h]."""
        first, last, out = self.concentrations(z0), self.concentrations(z1), {}
        for name in self.known:
            k = self.process.carried.index(name)
            keep, supplied, weight = _solution(self.flows, k)
            before, after = self.flows.start_L, self.flows.start_L + self.flows.given_L
            begin = (first[name] * before + self.flows.dose[:, k]) / after
            out[name] = (last[name] - keep * begin - supplied) / weight
        return out

    def cells(self, z0: np.ndarray, z1: np.ndarray) -> np.ndarray:
        """Mean biomass of the intervals, of all strains; NaN where one is not above zero."""
        growers = self.process.growers
        if not growers or not set(growers) <= set(self.known):
            return np.full(self.flows.dt_h.size, np.nan)
        first, last = self.concentrations(z0), self.concentrations(z1)
        each = [log_mean(first[name], last[name]) for name in growers]
        return functools.reduce(operator.add, each)

    def rates(self, z0: np.ndarray, z1: np.ndarray) -> dict[str, tuple[str, str, np.ndarray]]:
        """Unit, label and value of everything but yields."""
        units, process = self.units, self.process
        R, X = self.volumetric(z0, z1), self.cells(z0, z1)
        out: dict[str, tuple[str, str, np.ndarray]] = {}
        if process.biomass in self.known and process.biomass is not None:
            per, scale = f"1/{units.time}", units.hours
            if process.strains:
                first, last = self.concentrations(z0), self.concentrations(z1)
                for name in (n for n in process.growers if n in self.known):
                    own = scale * R[name] / log_mean(first[name], last[name])
                    label = f"Net growth rate of {units.label(name)}"
                    out[f"growth_net_{name}"] = (per, label, own)
            else:
                out["growth_net"] = (per, "Net growth rate", scale * R[process.biomass] / X)
            if self.dead in R and self.dead is not None:
                death = scale * R[self.dead] / X
                both = scale * (R[process.biomass] + R[self.dead]) / X
                out["growth"] = (per, "Growth rate", both)
                out["death"] = (per, "Death rate", death)
        for name in self.known:
            if name not in (*process.growers, self.dead) and process.biomass in self.known:
                unit, factor = units.specific(name)
                label = f"Specific rate of {units.label(name)}"
                out[f"q_{name}"] = (unit, label, factor * R[name] / X)
        if process.biomass in self.known and units.is_counted and process.streams:
            volume = 0.5 * (self.flows.start_L + self.flows.end_L)
            per_cell = units.per_cell * self.flows.medium / volume / X
            out["CSPR"] = ("pL/cell/d", "Cell-specific perfusion rate", per_cell)
        for name in self.known:
            unit = f"{process.quantity(name).unit}/{units.time}"
            label = f"Volumetric rate of {units.label(name)}"
            out[f"rate_{name}"] = (unit, label, units.hours * R[name])
        if self.carbon:
            out["carbon_found"] = ("%", "Carbon found again", self._carbon_found(R))
        return out

    def yields(
        self, is_taken_up: Mapping[str, np.ndarray]
    ) -> Callable[[np.ndarray, np.ndarray], dict[str, tuple[str, str, np.ndarray]]]:
        """What is made of what is fed, where its uptake is told from nothing."""

        def ratios(z0: np.ndarray, z1: np.ndarray) -> dict[str, tuple[str, str, np.ndarray]]:
            R, out = self.volumetric(z0, z1), {}
            for source in self.fed:
                clear = is_taken_up[f"rate_{source}"]
                for made in self.made:
                    unit, factor = self.units.ratio(made, source)
                    label = f"{self.units.label(made)} per {self.units.label(source)}"
                    used = np.where(clear, -R[source], np.nan)
                    out[f"yield_{made}_{source}"] = (unit, label, factor * R[made] / used)
            return out

        return ratios

    def _carbon_found(self, R: Mapping[str, np.ndarray]) -> np.ndarray:
        """Share of the carbon taken up that is found in what is made [%].

        The rest went into what nobody measures, carbon dioxide and amino acids above all.
        """
        moles = [self.carbon[n] * R[n] for n in self.carbon]
        zero = np.zeros(self.flows.dt_h.size)
        used = sum((np.where(np.real(m) < 0.0, -m, 0.0 * m) for m in moles), zero)
        made = sum((np.where(np.real(m) > 0.0, m, 0.0 * m) for m in moles), zero)
        return 100.0 * made / np.where(np.real(used) > 0.0, used, np.nan)


def log_mean(first: np.ndarray, last: np.ndarray) -> np.ndarray:
    """Logarithmic mean: the mean over time of what goes from one to the other exponentially.

    Both may be complex, so that a derivative can be taken by a complex step.

    Args:
        first: Values at the start of each interval, of any unit and shape.
        last: Values at its end, same unit and shape.

    Returns:
        `(first - last) / log(first / last)`, in their unit; by its series where the two are
        nearly the same. NaN where the real part of one is not above zero.
    """
    is_there = (np.real(first) > 0.0) & (np.real(last) > 0.0)
    safe, end = np.where(is_there, first, np.nan), np.where(is_there, last, np.nan)
    x = (safe - end) / end
    is_near = np.abs(x) < 1e-3  # also where both are the same
    series = 1.0 - x * (0.5 - x * (1.0 / 3.0 - x * (0.25 - x * (0.2 - x / 6.0))))
    apart = np.where(is_near, 2.0, safe / end)
    return np.where(is_near, end / series, (safe - end) / np.log(apart))


def _solution(flows: RecordedFlows, k: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """`keep`, `supplied` and `weight` of the exact balance; see `chemistry.schemes`."""
    V0, V1, dt = flows.start_L + flows.given_L, flows.end_L, flows.dt_h
    growth = (V1 - V0) / V0
    ratio = np.log1p(growth)
    theta = dt / V0 * np.where(growth == 0.0, 1.0, ratio / np.where(growth == 0.0, 1.0, growth))
    z = flows.cleared[:, k] * theta
    keep = np.exp(-(z + ratio))
    supplied = flows.supply[:, k] * theta * _decay(z + ratio)
    return keep, supplied, V1 * theta * _decay(z + 2.0 * ratio)


def _decay(z: np.ndarray) -> np.ndarray:
    """`(1 - exp(-z)) / z`, one at zero."""
    safe = np.where(z == 0.0, 1.0, z)
    return np.where(z == 0.0, 1.0, -np.expm1(-safe) / safe)


def _with_errors(
    numbers: Callable[[np.ndarray, np.ndarray], dict[str, tuple[str, str, np.ndarray]]],
    readings: _Readings,
) -> dict[str, tuple[Any, ...]]:
    """Unit, label, value, standard error and shared covariance of each number."""
    z = readings.values.astype(complex)
    z0, z1 = z[:-1], z[1:]
    with np.errstate(divide="ignore", invalid="ignore"):
        plain = numbers(z0, z1)
        slopes = {name: ([], []) for name in plain}
        for end in (0, 1):
            for r in range(len(readings.names)):
                ends = [z0.copy(), z1.copy()]
                ends[end][:, r] += 1j * _STEP
                for name, (_, _, value) in numbers(*ends).items():
                    slopes[name][end].append(np.imag(value) / _STEP)
    before, after = readings.variances[:-1].T, readings.variances[1:].T
    out = {}
    for name, (unit, label, value) in plain.items():
        at_start, at_end = (np.array(s).reshape(before.shape) for s in slopes[name])
        values = np.real(value)
        is_known = np.isfinite(values)
        variance = np.sum(at_start**2 * before + at_end**2 * after, axis=0)
        covariance = np.sum(at_end[:, :-1] * at_start[:, 1:] * after[:, :-1], axis=0)
        out[name] = (
            unit,
            label,
            np.where(is_known, values, np.nan),
            np.where(is_known, np.sqrt(variance), np.nan),
            np.where(is_known[:-1] & is_known[1:], covariance, np.nan),
        )
    return out


def _cell_hours(biomass: str, units: DerivedUnits, run: Trajectory, readings: _Readings) -> Number:
    """Integral of viable cells since the first count, at the end of each interval."""
    times = np.asarray(run.times_h, float)
    values, errors = np.full(times.size, np.nan), np.full(times.size, np.nan)
    column = readings.names.index(biomass) if biomass in readings.names else None
    if column is not None:
        seen = readings.values[:, column]
        rows = np.flatnonzero(np.isfinite(seen) & (seen > 0.0))
        x, t = seen[rows], times[rows] / units.hours
        dt = np.diff(t)
        first, last = x[:-1].astype(complex), x[1:].astype(complex)
        by_first = np.imag(log_mean(first + 1j * _STEP, last)) / _STEP
        by_last = np.imag(log_mean(first, last + 1j * _STEP)) / _STEP
        variance = readings.variances[rows, column]
        total, inner = 0.0, 0.0  # inner: variance from counts that have both their intervals
        for i in range(rows.size - 1):
            total += float(np.real(log_mean(first[i : i + 1], last[i : i + 1])[0])) * dt[i]
            slope = by_first[i] * dt[i] + (by_last[i - 1] * dt[i - 1] if i else 0.0)
            inner += slope**2 * variance[i]
            values[rows[i + 1]] = total
            errors[rows[i + 1]] = np.sqrt(inner + (by_last[i] * dt[i]) ** 2 * variance[i + 1])
    name = "IVCD" if units.is_counted else f"integral_{biomass}"
    unit = f"{units.biomass_unit} {units.time}"
    label = "Integral of viable cells" if units.is_counted else f"Integral of {biomass}"
    nothing = np.full(max(times.size - 2, 0), np.nan)
    return Number(name, unit, label, values[1:], errors[1:], nothing)
