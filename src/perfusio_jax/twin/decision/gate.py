"""The write gate: the one place a set-point passes on its way to a reactor.

A pure function of numbers: no file, no clock, no network. Whatever is wrong upstream, the
set-points it lets through are finite, inside the hard limits, on the device's grid and no
further from the *read-back* than the rate limit allows. Anything else is held, and the
reasons say why.

Arithmetic on limits is exact (each float is read as the decimal a person would write), so
that "one step of 0.1 from 1.2" is 1.3 and neither refused nor exceeded by rounding.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from types import MappingProxyType
from typing import Final, Literal

from perfusio_jax._core import HOURS_PER_DAY

from .balancing import excess, lowered, row_of, too_much
from .gate_limits import GateLimits
from .grid import as_held, exact, is_number, nearest

Action = Literal["write", "hold", "fallback", "disarm"]

CLOCK_SLACK_H: Final[float] = 0.05
"""How far [h] a sample may seem to come from the future before the clocks are not believed."""


@dataclass(frozen=True, slots=True)
class GateRequest:
    """Everything the gate may look at when one set of set-points asks to be written."""

    setpoints: Mapping[str, float]
    """What is asked for, by control name."""
    read_back: Mapping[str, float | None]
    """What the device says is in force now."""
    data_age_h: float | None
    """Age [h] of the sample the request rests on; `None`: there was none."""
    hours_without_good_data: float
    """Time [h] since the last good and plausible sample (or since arming, before the first)."""
    quality: str = "good"
    """Quality of that sample: only "good" passes."""
    implausible: tuple[str, ...] = ()
    """Names of measurements that are missing by force, stuck, jumped or out of range."""
    allow_write: bool = False
    """Whether this run may write at all."""
    armed: bool = False
    """Whether the session has been armed by a person and not disarmed since."""
    operator_override: frozenset[str] = frozenset()
    """Controls an operator has taken by hand: never written."""
    hours_since_write: float = HOURS_PER_DAY
    """Time [h] since the last write; scales the rate limit, counted up to one day."""
    vetoes: tuple[str, ...] = ()
    """What else forbids any write, the fallback recipe included: manual mode, clocks, a stop."""
    approved: bool = True
    """Whether those who must agree have; the fallback recipe was agreed on beforehand."""
    volume_L: float | None = None
    """Volume in the vessel [L], for a culture whose volume moves; `None`: nobody knows."""


@dataclass(frozen=True, slots=True)
class GateVerdict:
    """What the shell is to do, and why."""

    action: Action
    """What to do: send `setpoints` ("write", "fallback"), nothing ("hold"), or also disarm."""
    setpoints: Mapping[str, float]
    """What may be sent; empty for "hold" and "disarm": the device keeps its values."""
    reasons: tuple[str, ...] = ()
    """One sentence for each check that failed or changed something."""
    clamped: tuple[str, ...] = ()
    """Controls whose value is not the one asked for beyond the device's rounding."""

    @property
    def is_write(self) -> bool:
        """Whether there is anything to send."""
        return bool(self.setpoints)


def gate(request: GateRequest, limits: GateLimits) -> GateVerdict:
    """Judge one request.

    The order is fixed: permission; time without good data (T2, then T1); the data the
    request rests on; the request itself; then hard limits, rate limit, device grid and
    volume balance, which change values rather than refuse them where that is safe.

    A read-back outside the hard limits that cannot be brought inside within the rate limit
    is held for an operator: both promises cannot be kept at once.

    Args:
        request: Set-points with the state of data, device and session.
        limits: What the reactor tolerates.

    Returns:
        The verdict; its set-points are empty unless the action is "write" or "fallback".
    """
    refusals = _permission(request)
    if refusals:
        return _hold(refusals)
    blind_h = _hours(request.hours_without_good_data)
    if blind_h >= limits.disarm_after_h:
        return GateVerdict(
            "disarm",
            MappingProxyType({}),
            (f"no good data for {blind_h:g} h (limit {limits.disarm_after_h:g} h): disarmed",),
        )
    if blind_h >= limits.fallback_after_h:
        why = f"no good data for {blind_h:g} h (limit {limits.fallback_after_h:g} h)"
        if not limits.fallback_recipe:
            return _hold([f"{why} and no fallback recipe is set"])
        verdict = _limited("fallback", limits.fallback_recipe, request, limits)
        return GateVerdict(
            verdict.action, verdict.setpoints, (why, *verdict.reasons), verdict.clamped
        )
    refusals = _data(request, limits) + _request(request, limits)
    if refusals:
        return _hold(refusals)
    return _limited("write", request.setpoints, request, limits)


def out_of_reach(
    setpoints: Mapping[str, float],
    in_force: Mapping[str, float],
    limits: GateLimits,
    fixed: frozenset[str] = frozenset(),
) -> str:
    """Why set-points are none to recommend: what is in force lies where no step leads back.

    Such a set-point is the longest step towards the limits, which is still beyond them; the gate
    would hold it. Most often the value in force has another unit.

    Args:
        setpoints: What would be recommended.
        in_force: What is believed to be in force.
        limits: Hard limits and rate limits of a day.
        fixed: Controls an operator holds: theirs to answer for.

    Returns:
        The sentence; empty where every set-point can be brought within its limits.
    """
    asked = GateRequest(setpoints, in_force, data_age_h=None, hours_without_good_data=0.0)
    for name in setpoints:
        if name not in fixed and name in limits.lower:
            window = _window(name, asked, limits)
            if isinstance(window, str):
                return window
    return ""


def operator_edits(
    last_written: Mapping[str, float],
    read_back: Mapping[str, float | None],
    resolution: Mapping[str, float],
) -> frozenset[str]:
    """Controls whose read-back is not what was last written: somebody else moved them.

    Args:
        last_written: Values the twin wrote last, by control name.
        read_back: Values the device reports now.
        resolution: Device step; differences up to half a step are rounding.

    Returns:
        Names that differ. A value that cannot be read is not an edit.
    """
    edited = set()
    for name, written in last_written.items():
        actual = read_back.get(name)
        if actual is None or not math.isfinite(actual):
            continue
        slack = 0.5 * resolution.get(name, 0.0) + 1e-6 * max(abs(written), abs(actual))
        if abs(actual - written) > slack:
            edited.add(name)
    return frozenset(edited)


def _permission(request: GateRequest) -> list[str]:
    refusals = []
    if request.allow_write is not True:
        refusals.append("writing is not allowed in this run (allow_write is off)")
    if request.armed is not True:
        refusals.append("the session is not armed")
    return [*refusals, *request.vetoes]


def _data(request: GateRequest, limits: GateLimits) -> list[str]:
    refusals = []
    age = request.data_age_h
    if age is None or not math.isfinite(age):
        refusals.append("the age of the data is unknown")
    elif age < -CLOCK_SLACK_H:
        refusals.append(f"the sample is dated {-age:g} h in the future: check the clocks")
    elif age > limits.max_data_age_h:
        refusals.append(f"the sample is {age:g} h old (limit {limits.max_data_age_h:g} h)")
    if request.quality != "good":
        refusals.append(f'the quality of the sample is "{request.quality}", not "good"')
    if request.implausible:
        refusals.append("implausible: " + ", ".join(request.implausible))
    return refusals


def _request(request: GateRequest, limits: GateLimits) -> list[str]:
    refusals = [] if request.setpoints else ["no set-point was asked for"]
    if request.approved is not True:
        refusals.append("the set-points have not been approved")
    for name, value in request.setpoints.items():
        if name not in limits.lower:
            known = ", ".join(limits.controls)
            refusals.append(f"{name} is not a control of this reactor (known: {known})")
        elif not is_number(value):
            refusals.append(f"{name} was asked to be {value!r}, which is not a finite number")
    if not refusals and limits.balance is not None:
        out, into = (request.setpoints.get(name) for name in limits.balance)
        if out is not None and into is not None and out > into:
            refusals.append(
                f"{limits.balance[0]} {out:g} was asked to exceed {limits.balance[1]} {into:g}"
            )
    if not refusals and limits.flows is not None:
        row = row_of(limits.flows, request.volume_L)
        if row is not None and all(name in request.setpoints for name in row[0]):
            asked = {name: exact(request.setpoints[name]) for name in row[0]}
            if excess(asked, *row) > 0:
                refusals.append(too_much(limits.flows, asked))
    return refusals


def _limited(
    action: Action, wanted: Mapping[str, float], request: GateRequest, limits: GateLimits
) -> GateVerdict:
    """Clamp, rate-limit, put on the grid and balance; hold where that cannot be done."""
    reasons: list[str] = []
    clamped: list[str] = []
    allowed: dict[str, float] = {}
    windows: dict[str, tuple[Fraction, Fraction]] = {}
    grids = limits.grids
    for name, value in wanted.items():
        if name in request.operator_override:
            reasons.append(f"{name} is under manual control and stays as it is")
            continue
        window = _window(name, request, limits)
        if isinstance(window, str):
            return _hold([window])
        chosen = nearest(exact(value), window, grids.get(name))
        if chosen is None:
            reasons.append(f"{name} stays as it is: no device step lies within its rate limit")
            continue
        step = exact(limits.resolution.get(name, 0.0))
        if abs(exact(chosen) - exact(value)) > step / 2:
            clamped.append(name)
            reasons.append(_why_clamped(name, float(value), chosen, limits))
        allowed[name], windows[name] = chosen, window
    for keep in (_balance, _flows):
        failure = keep(allowed, windows, clamped, reasons, request=request, limits=limits)
        if failure:
            return _hold([*reasons, failure])
    if not allowed:
        return _hold([*reasons, "nothing is left to write"])
    return GateVerdict(action, MappingProxyType(allowed), tuple(reasons), tuple(clamped))


def _window(name: str, request: GateRequest, limits: GateLimits) -> tuple[Fraction, Fraction] | str:
    """Reachable interval of one control, or the sentence that says why there is none."""
    low, high = exact(limits.lower[name]), exact(limits.upper[name])
    actual = request.read_back.get(name)
    if not is_number(actual):
        return f"{name} could not be read back ({actual!r}), so its rate limit cannot be judged"
    rate = limits.max_rate.get(name)
    if rate is None:
        return low, high
    elapsed = request.hours_since_write
    if not is_number(elapsed) or elapsed < 0.0:
        return f"the time since the last write ({elapsed!r} h) cannot be used for rate limits"
    days = exact(min(float(elapsed), HOURS_PER_DAY)) / Fraction(int(HOURS_PER_DAY))
    reach = exact(rate) * days
    centre = as_held(actual, (low, high), limits.grids.get(name))
    low, high = max(low, centre - reach), min(high, centre + reach)
    if low > high:
        return (
            f"{name} reads back {actual:g}, outside its limits {limits.lower[name]:g} to "
            f"{limits.upper[name]:g} by more than its rate limit can mend: an operator must act"
        )
    return low, high


def _balance(
    allowed: dict[str, float],
    windows: Mapping[str, tuple[Fraction, Fraction]],
    clamped: list[str],
    reasons: list[str],
    *,
    request: GateRequest,
    limits: GateLimits,
) -> str | None:
    """Lower the outflow to the inflow if it may be; otherwise say that it cannot."""
    if limits.balance is None:
        return None
    out_name, in_name = limits.balance
    if out_name not in allowed and in_name not in allowed:
        return None
    out, into = (_in_force(n, allowed, request, limits) for n in limits.balance)
    if out is None or into is None:
        return f"{out_name} or {in_name} is unknown, so the volume balance cannot be judged"
    if out <= into:
        return None
    failure = f"{out_name} {float(out):g} would exceed {in_name} {float(into):g}"
    if out_name not in allowed:
        return failure
    low, high = windows[out_name]
    if into < low:
        return failure
    lowered = nearest(into, (low, min(high, into)), limits.grids.get(out_name))
    if lowered is None:
        return failure
    allowed[out_name] = lowered
    if out_name not in clamped:
        clamped.append(out_name)
    reasons.append(f"{out_name} {float(out):g} lowered to {lowered:g}: it may not exceed {in_name}")
    return None


def _flows(
    allowed: dict[str, float],
    windows: Mapping[str, tuple[Fraction, Fraction]],
    clamped: list[str],
    reasons: list[str],
    *,
    request: GateRequest,
    limits: GateLimits,
) -> str | None:
    """Lower what leaves to what enters and is there, if it may be; else say that it cannot."""
    balance = limits.flows
    if balance is None or not set(balance.controls) & set(allowed):
        return None
    row = row_of(balance, request.volume_L)
    if row is None:
        return "the volume in the vessel is unknown, so the volume balance cannot be judged"
    found = {name: _in_force(name, allowed, request, limits) for name in balance.controls}
    unknown = [name for name, value in found.items() if value is None]
    if unknown:
        return f"{', '.join(unknown)} is unknown, so the volume balance cannot be judged"
    values = {name: value for name, value in found.items() if value is not None}
    if excess(values, *row) == 0:
        return None
    reachable = {name: window for name, window in windows.items() if name in allowed}
    new = lowered(values, reachable, limits.grids, row)
    if new is None:
        return too_much(balance, values)
    for name, value in new.items():
        reasons.append(
            f"{name} {allowed[name]:g} lowered to {value:g}: more would move than the other "
            "streams cover"
        )
        allowed[name] = value
        if name not in clamped:
            clamped.append(name)
    return None


def _in_force(
    name: str, allowed: Mapping[str, float], request: GateRequest, limits: GateLimits
) -> Fraction | None:
    """What a control would be after the write; `None` if nobody can say."""
    if name in allowed:
        return exact(allowed[name])
    actual = request.read_back.get(name)
    if not is_number(actual):
        return None
    if name not in limits.lower:
        return exact(actual)
    bounds = (exact(limits.lower[name]), exact(limits.upper[name]))
    return as_held(actual, bounds, limits.grids.get(name))


def _why_clamped(name: str, asked: float, given: float, limits: GateLimits) -> str:
    low, high = limits.lower[name], limits.upper[name]
    cause = f"limits {low:g} to {high:g}" if not low <= asked <= high else "rate limit"
    return f"{name} was asked to be {asked:g} and is {given:g} ({cause})"


def _hold(reasons: Iterable[str]) -> GateVerdict:
    return GateVerdict("hold", MappingProxyType({}), tuple(reasons))


def _hours(value: float) -> float:
    """A duration that errs towards caution: what is not a number counts as for ever."""
    return float(value) if is_number(value) else math.inf
