"""Which limits a forecast or a measurement crosses, and how badly. Pure."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

import numpy as np

from perfusio_jax._core import ConfigError, DataError

from .events import AlarmEvent

_Z90: Final = 1.2815515655446004
"""90 % point of the standard normal distribution."""


class AlarmLimits:
    """Finds limits that are crossed.

    A forecast crosses one for every species and day within the lead window whose mean lies beyond
    a limit or, where it has a spread, whose probability of lying beyond it reaches
    `min_probability`.

    Args:
        thresholds: Lower and upper limit per species, in its unit; `None` or an infinity for
            no limit on that side.
        lead_days: How many days [d] ahead to look.
        critical: Limits beyond which an alarm is "critical" rather than "warning".
        min_probability: Probability of violation from which on an alarm is raised although
            the mean is still within limits.

    Raises:
        ConfigError: For limits the wrong way round, no day ahead, or a probability that is none.
    """

    def __init__(
        self,
        thresholds: Mapping[str, tuple[float | None, float | None]],
        lead_days: int,
        *,
        critical: Mapping[str, tuple[float | None, float | None]],
        min_probability: float,
    ) -> None:
        if lead_days < 1:
            raise ConfigError(f"lead_days is {lead_days!r}; at least 1 day is needed.")
        if not 0.0 < min_probability <= 1.0:
            raise ConfigError(f"min_probability is {min_probability!r}; allowed is 0 to 1.")
        self.thresholds = {name: _limits(name, pair) for name, pair in thresholds.items()}
        self.critical = {name: _limits(name, pair) for name, pair in critical.items()}
        self.lead_days = lead_days
        self.min_probability = min_probability

    def check_forecast(
        self, forecast: Mapping[str, Any], species_names: Sequence[str], current_day: float
    ) -> list[AlarmEvent]:
        """Scan a forecast for violations within the lead window.

        Args:
            forecast: "mean" (horizon, n_species); optionally "samples" (n_samples, horizon,
                n_species), or the quantiles "q10" and "q90" shaped like the mean; "lead_days"
                (horizon,), how far ahead [d] each row is, where they are no days apart.
            species_names: Names of the columns.
            current_day: Culture day [d] the forecast starts from; its first row is the next
                day, unless "lead_days" says otherwise.

        Returns:
            All violations, by day and species. A watched species whose forecast is missing
            or not finite gives an event of direction "unknown".

        Raises:
            DataError: If the shapes do not fit one another.
        """
        names = list(species_names)
        mean = np.asarray(forecast["mean"], float)
        if mean.ndim != 2 or mean.shape[1] != len(names):
            raise DataError(
                f"The forecast's mean has shape {mean.shape}; (horizon, {len(names)}) is needed "
                f"for the species {', '.join(names)}."
            )
        spread = _Spread.of(forecast, mean.shape)
        leads = _leads(forecast, len(mean))
        n = sum(lead <= self.lead_days + 1e-9 for lead in leads)
        leads = leads[: max(n, 1)]  # a row beyond the window is still the next there is
        events: list[AlarmEvent] = []
        for name, limits in self.thresholds.items():
            if name not in names:
                events.append(_unknown(name, current_day, leads[0] if leads else 1))
                continue
            column = names.index(name)
            path = mean[: len(leads), column]
            for step in np.flatnonzero(~np.isfinite(path)):
                events.append(_unknown(name, current_day, leads[int(step)]))
            for side, limit in zip(("below", "above"), limits, strict=True):
                if math.isfinite(limit):
                    odds = partial(spread.beyond, column, side, n_rows=len(leads))
                    events += self._crossings(name, path, side, limit, (current_day, leads), odds)
        order = {name: n for n, name in enumerate(self.thresholds)}
        return sorted(events, key=lambda event: (event.lead_days, order[event.species]))

    def check_sample(
        self, values: Mapping[str, float | None], current_day: float
    ) -> list[AlarmEvent]:
        """Compare a measurement with the limits as they stand.

        Args:
            values: Value per species; missing ones are not judged.
            current_day: Culture day [d] of the sample.

        Returns:
            Violations, with `lead_days` 0.
        """
        events = []
        for name, limits in self.thresholds.items():
            value = values.get(name)
            if value is None or not math.isfinite(value):
                continue
            for side, limit in zip(("below", "above"), limits, strict=True):
                if _is_beyond(value, side, limit):
                    severity, crossed = self._crossed(name, side, limit, value)
                    events.append(
                        AlarmEvent(
                            current_day,
                            name,
                            value,
                            crossed,
                            side,
                            0,
                            severity=severity,
                            kind="sample",
                        )
                    )
        return events

    def _crossings(
        self,
        name: str,
        path: np.ndarray,
        side: str,
        limit: float,
        when: tuple[float, Sequence[float]],
        odds_of: Callable[[float], tuple[np.ndarray, float] | None],
    ) -> list[AlarmEvent]:
        events, (day, leads) = [], when
        beyond_limit = odds_of(limit)
        for step, value in enumerate(path):
            likely = beyond_limit is not None and beyond_limit[0][step] >= self.min_probability
            if not np.isfinite(value) or not (_is_beyond(value, side, limit) or likely):
                continue
            severity, crossed = self._crossed(name, side, limit, float(value))
            beyond = beyond_limit if crossed == limit else odds_of(crossed)
            events.append(
                AlarmEvent(
                    day=day,
                    species=name,
                    predicted_value=float(value),
                    threshold=crossed,
                    direction=side,
                    lead_days=leads[step],
                    probability=None if beyond is None else float(beyond[0][step]),
                    probability_within_lead=None if beyond is None else beyond[1],
                    severity=severity,
                )
            )
        return events

    def _crossed(self, name: str, side: str, limit: float, value: float) -> tuple[str, float]:
        """How bad it is, and the limit that makes it so: beyond both, people hear of the worse."""
        low, high = self.critical.get(name, (-math.inf, math.inf))
        critical = low if side == "below" else high
        is_critical = _is_beyond(value, side, critical)
        return ("critical", critical) if is_critical else ("warning", limit)


@dataclass(frozen=True)
class _Spread:
    """What a forecast knows about its own uncertainty."""

    samples: np.ndarray | None = None
    quantiles: tuple[np.ndarray, np.ndarray, np.ndarray] | None = None

    @classmethod
    def of(cls, forecast: Mapping[str, Any], shape: tuple[int, ...]) -> "_Spread":
        found = {
            name: np.asarray(forecast[name], float)
            for name in ("samples", "q10", "q50", "q90")
            if forecast.get(name) is not None
        }
        for name, array in found.items():
            if array.shape[-2:] != shape or array.ndim != (3 if name == "samples" else 2):
                raise DataError(
                    f"The forecast's {name} have shape {array.shape}, which does not fit the "
                    f"mean's {shape}."
                )
        if "samples" in found:
            return cls(samples=found["samples"])
        if "q10" in found and "q90" in found:
            centre = found.get("q50", np.asarray(forecast["mean"], float))
            return cls(quantiles=(found["q10"], centre, found["q90"]))
        return cls()

    def beyond(
        self, column: int, side: str, limit: float, n_rows: int
    ) -> tuple[np.ndarray, float] | None:
        """Probability of lying beyond a limit by row, and in any row of the window."""
        if self.samples is not None:
            paths = self.samples[:, :n_rows, column]
            paths = paths[np.all(np.isfinite(paths), axis=1)]
            if len(paths) == 0:
                return None
            out = paths < limit if side == "below" else paths > limit
            return out.mean(axis=0), float(out.any(axis=1).mean())
        if self.quantiles is None:
            return None
        low, centre, high = (q[:n_rows, column] for q in self.quantiles)
        # Two half normals with the forecast's own 10 % and 90 % points.
        width = np.where(limit < centre, centre - low, high - centre) / _Z90
        score = (limit - centre) / np.maximum(width, 1e-12 * (1.0 + np.abs(centre)))
        under = np.array([0.5 * math.erfc(-z / math.sqrt(2.0)) for z in score])
        by_day = under if side == "below" else 1.0 - under
        return by_day, float(np.max(by_day))


def _limits(name: str, pair: tuple[float | None, float | None]) -> tuple[float, float]:
    try:
        low, high = pair
        low = -math.inf if low is None else float(low)
        high = math.inf if high is None else float(high)
    except (TypeError, ValueError):
        raise ConfigError(
            f"The limits of {name} are {pair!r}; a lower and an upper one are needed, or None."
        ) from None
    if not low < high:
        raise ConfigError(f"The limits of {name} are {low:g} to {high:g}; the lower goes first.")
    return low, high


def _is_beyond(value: float, side: str, limit: float) -> bool:
    return value < limit if side == "below" else value > limit


def _leads(forecast: Mapping[str, Any], n_rows: int) -> list[float]:
    """How far ahead each row of a forecast is [d].

    Raises:
        DataError: If the forecast says it of another number of rows.
    """
    told = forecast.get("lead_days")
    if told is None:
        return list(range(1, n_rows + 1))
    if len(told) != n_rows:
        raise DataError(f"The forecast has {n_rows} rows and {len(told)} lead_days.")
    return [float(lead) for lead in told]


def _unknown(name: str, day: float, lead_days: float) -> AlarmEvent:
    return AlarmEvent(day, name, math.nan, math.nan, "unknown", lead_days)
