"""Stream totals: volumes since the sample before, or a counter that runs on.

The contract is the volume since the sample before. Many pumps and scales show a counter
instead, and read as increments a counter feeds a reactor ten times over. It is told apart by
what flows can be: set-points times volume where both are known, what the glucose pump can give
at most, and a total that rises from row to row and never falls.
"""

from collections.abc import Callable, Sequence
from typing import Final, Literal, NamedTuple

import numpy as np

from perfusio_jax._core import HOURS_PER_DAY, DataError
from perfusio_jax._core.glucose import GLUCOSE_FEED, LARGEST_FLUX

Totals = Literal["cumulative", "increments"]
TOTALS: Final = ("cumulative", "increments")

RATE_OF: Final = {"V_perfusion_L": "perfusion_rate", "V_bleed_L": "bleed_rate"}
"""The control that says what a total should be."""
_RESET: Final = 0.5
"""A counter that falls below this share of what it was has started anew."""
_SLIGHT: Final = 0.9
"""A counter that falls no further than to this share may have drifted instead."""
_AGREES: Final = 1.5
"""Totals within this factor of set-point times volume are what they say."""
_CONTRADICTS: Final = 3.0
"""Totals beyond this factor in most rows are in another unit, or something else."""
_ROWS: Final = 5
"""Values that have to rise before a total looks like a counter on its own."""
_SURE: Final = 12
"""Values that have to rise before that alone is enough; what a young culture is fed rises for a
week or so."""
_LARGEST_FEED: Final = LARGEST_FLUX / GLUCOSE_FEED
"""Most the glucose pump gives [1/h], in vessel volumes."""


class Differenced(NamedTuple):
    """A counter made volumes since the row before."""

    increments: np.ndarray
    """Volume by row [L]; NaN where the row before has no value."""
    resets: tuple[int, ...]
    """Rows at which the counter had started anew."""
    n_unknown: int
    """Values whose increment nobody knows, because the one before is missing."""


def differenced(values: Sequence[float] | np.ndarray) -> Differenced:
    """Volumes since the row before, from a counter.

    The counter begins at zero with the run: a first value in the second row is an increment, one
    in the first row is where it stood. A counter that falls has started anew from zero.

    Args:
        values: Counter by row [L], NaN where it was not read.

    Example:
        >>> differenced([float("nan"), 1.0, 2.5, 0.5]).increments.tolist()[1:]
        [1.0, 1.5, 0.5]
    """
    counter = np.asarray(values, np.float64)
    before = np.concatenate([[0.0], counter[:-1]]) if counter.size else counter
    if counter.size > 1 and np.isnan(counter[0]):
        before[1] = 0.0
    steps = counter - before
    if steps.size:
        steps[0] = np.nan
    resets = np.flatnonzero(steps < 0.0)
    steps[resets] = counter[resets]
    n_unknown = int(np.sum(~np.isnan(counter[1:]) & np.isnan(steps[1:])))
    return Differenced(steps, tuple(int(row) for row in resets), n_unknown)


class Verdict(NamedTuple):
    """What a total is taken for."""

    is_counter: bool
    """Whether it cannot be what it stands for, and is well explained as a counter."""
    text: str
    """What is odd about it; empty if nothing is."""


class Settled(NamedTuple):
    """A total as it is used."""

    values: np.ndarray
    """Volume since the row before [L]; NaN where it is not known or not to be used."""
    note: str
    """What was done to it; empty if nothing was."""
    doubt: str
    """What somebody has to look at; empty if nothing is odd."""


def settle(
    name: str,
    totals: Sequence[float] | np.ndarray,
    times_h: Sequence[float] | np.ndarray,
    *,
    kind: str | None,
    where: Callable[[int], str],
    rate: Sequence[float] | np.ndarray | None = None,
    volume_L: Sequence[float] | np.ndarray | None = None,
) -> Settled:
    """A total of one run, differenced if it is a counter, left out if it seems to be one.

    Args:
        name: Which of `STREAM_TOTALS`.
        totals: Value by row [L], NaN where missing.
        times_h: Time of the rows [h], ascending.
        kind: What it is, if that is known.
        where: Names a row in a message.
        rate: Set-point by row [vvd] from that row until the next, if there is one.
        volume_L: Volume of the vessel by row [L], if it is known.

    Raises:
        DataError: If `kind` is none of `TOTALS`.
    """
    values = np.asarray(totals, np.float64)
    if kind is not None and kind not in TOTALS:
        raise DataError(f"totals of {name} is {kind!r}; allowed are {' and '.join(TOTALS)}.")
    if kind == "increments":
        return Settled(values, "", "")
    if kind == "cumulative":
        steps = differenced(values)
        note = f"{name} is cumulative and was differenced"
        if steps.resets:
            note += f"; it starts anew in {', '.join(where(row) for row in steps.resets)}"
        if steps.n_unknown:
            note += f"; {steps.n_unknown} without the value before are missing"
        slight = [k for k in steps.resets if values[k] > _SLIGHT * values[k - 1]]
        doubt = (
            f"{name} falls by little in {', '.join(where(k) for k in slight)} and is taken to "
            "start anew there: a scale that drifts? Leave the cell empty if it is"
        )
        return Settled(steps.increments, note, doubt if slight else "")
    verdict = judge(name, values, times_h, rate=rate, volume_L=volume_L)
    if not verdict.is_counter:
        return Settled(values, "", f"{name} {verdict.text}" if verdict.text else "")
    return Settled(np.full_like(values, np.nan), "", f"{name} {verdict.text}")


def judge(
    name: str,
    totals: Sequence[float] | np.ndarray,
    times_h: Sequence[float] | np.ndarray,
    *,
    rate: Sequence[float] | np.ndarray | None = None,
    volume_L: Sequence[float] | np.ndarray | None = None,
) -> Verdict:
    """Whether a total of one run is a counter rather than the volume since the row before.

    Args:
        name: Which of `STREAM_TOTALS`.
        totals: Value by row [L], NaN where missing.
        times_h: Time of the rows [h], ascending.
        rate: Set-point by row [vvd] from that row until the next, if there is one.
        volume_L: Volume of the vessel by row [L], if it is known.
    """
    values = np.asarray(totals, np.float64)
    if values.size < 2 or np.sum(~np.isnan(values)) < 2:
        return Verdict(False, "")
    hours = np.diff(np.asarray(times_h, np.float64))
    volume = _between(volume_L, hours.size)
    steps, given = differenced(values).increments[1:], values[1:]
    control = RATE_OF.get(name, "")
    if rate is not None and control:
        flows = _between(rate, hours.size) * hours / HOURS_PER_DAY
        is_known = bool(np.any(~np.isnan(volume)))
        vessel = volume if is_known else _middle(_factors(steps, flows))
        as_given, as_steps = _factors(given, flows * vessel), _factors(steps, flows * vessel)
        if as_given.size >= 2 and as_steps.size >= 2:
            grows = as_given[-1] > _AGREES * as_given[0]
            if _middle(as_given) <= _AGREES and as_given[-1] <= _CONTRADICTS and is_known:
                return Verdict(False, _unit_remark(as_given, control))
            if not is_known and np.max(as_given) <= _AGREES * np.min(as_given):
                return Verdict(False, "")  # of one volume throughout, whichever it is
            if grows and np.median(np.abs(np.log(as_steps))) <= np.log(_AGREES):
                grown = ", ".join(f"{factor:.3g}" for factor in as_given[-3:])
                text = f"is {grown} times {control} x volume_L, its rises are once that"
                return Verdict(True, f"{text}; {_advice(is_used=False)}")
            if is_known and (remark := _unit_remark(as_given, control)):
                return Verdict(False, remark)
    above = 0.0
    if name == "V_glucose_L":
        with np.errstate(divide="ignore", invalid="ignore"):
            shares = given / (_LARGEST_FEED * volume * hours)
        above = float(np.max(shares[np.isfinite(shares)], initial=0.0))
    pump = f", up to {above:.2g} times what the glucose pump gives" if above > 1.0 else ""
    is_strong = above > _CONTRADICTS
    if _rises(values, at_least=3 if is_strong else _ROWS):
        n_values = int(np.sum(~np.isnan(values)))
        is_strong = is_strong or n_values >= _SURE
        text = f"rises over {n_values} rows and never falls{pump}"
        return Verdict(is_strong, f"{text}; {_advice(is_used=not is_strong)}")
    return Verdict(False, f"is{pump[1:]}: is the unit right?" if is_strong else "")


def _unit_remark(factors: np.ndarray, control: str) -> str:
    middle = _middle(factors)
    if abs(np.log(middle)) <= np.log(_CONTRADICTS):
        return ""
    return f"is {middle:.3g} times {control} x volume_L: is the unit right?"


def _advice(*, is_used: bool) -> str:
    how = "is read as the volume since the sample before" if is_used else "is not used"
    return (
        f"it looks cumulative and {how}. Say totals = 'cumulative' to have it differenced, or "
        "'increments' (in the sidecar or the column map, or --totals of inspect)"
    )


def _middle(factors: np.ndarray) -> float:
    return float(np.median(factors)) if factors.size else float("nan")


def _between(values: Sequence[float] | np.ndarray | None, n: int) -> np.ndarray:
    """What acted between two rows: the value of the earlier, else that of the later."""
    if values is None:
        return np.full(n, np.nan)
    rows = np.asarray(values, np.float64)
    return np.where(np.isnan(rows[:-1]), rows[1:], rows[:-1])


def _factors(values: np.ndarray, expected: np.ndarray) -> np.ndarray:
    """Values over what is expected, where both are above zero."""
    with np.errstate(divide="ignore", invalid="ignore"):
        factors = values / expected
    return factors[np.isfinite(factors) & (factors > 0.0)]


def _rises(values: np.ndarray, *, at_least: int) -> bool:
    """Whether a total goes up like a counter: never down but to start anew, and not levelling.

    What is fed to a growing culture goes up too, and then levels off; the last rises of a counter
    are as large as those before.
    """
    known = values[~np.isnan(values)]
    if known.size < at_least:
        return False
    steps = np.diff(known)
    anew = (steps < 0.0) & (known[1:] < _RESET * known[:-1])
    rises = steps[~anew]
    if rises.size < at_least - 1 or np.any(rises <= 0.0):
        return False
    return bool(np.min(rises[rises.size // 2 :]) >= 0.2 * np.max(rises)) and bool(
        known.max() >= 2.0 * known[0] or anew.any()
    )
