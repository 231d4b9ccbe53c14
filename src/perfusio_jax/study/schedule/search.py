"""The search for a schedule: sequential quadratic programs from coarse to fine."""

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import ArrayLike
from scipy.optimize import minimize
from scipy.stats import norm, qmc

from perfusio_jax._core import ConfigError, SimulationError
from perfusio_jax._core.progress import tell
from perfusio_jax._core.text import shown_unit
from perfusio_jax.study.experiment import SET_POINT, WHOLE_RUN, Experiment, choose_levers
from perfusio_jax.study.outputs import Output
from perfusio_jax.study.schedule.limits import Limit
from perfusio_jax.study.schedule.looking import look, outcomes
from perfusio_jax.study.schedule.pieces import Chosen, Level, rows_of
from perfusio_jax.study.schedule.result import FEASIBLE, Kept, Schedule, scale_of

_CANDIDATES = 64
_MOST_TURNS = 100
_TOLERANCE = 1e-7
"""Progress below which a search has come to its end [scales of the objective]; much less than this
is the integrator's noise, in which a line search finds no end."""
_FAILED = 1e3
"""What a schedule that cannot be run is worth [scales of the objective]."""
_MOST_SEEN = 64
_OUT_OF_REACH = 1e-3
"""How far beyond its limits, at the least, a search is not begun [scales of the limits]."""


class Search:
    """One problem: looks are kept, so that values and slopes of a point are made once."""

    def __init__(
        self,
        experiment: Experiment,
        target: Output,
        limits: tuple[Limit, ...],
        chosen: Chosen,
        n_pieces: int,
        least: bool,
        chance: float,
        draws: Mapping[str, ArrayLike] | None,
    ) -> None:
        self.experiment = experiment
        self.target, self.limits, self.chosen = target, limits, chosen
        self.n_intervals = int(experiment.lengths_h.shape[0])
        self.n_pieces = n_pieces
        self.sign = 1.0 if least else -1.0
        self.whole = [
            v for v in experiment.levers if v.group == SET_POINT and v.interval == WHOLE_RUN
        ]
        names = [f"{n}@{t + 1}" for t in range(self.n_intervals) for n in chosen.names]
        constants = dict(draws or {})
        if any(n not in {v.name for v in experiment.levers} for n in names):
            raise ConfigError(
                "this run has one set-point for all its days; make it with by_interval=True."
            )
        self.levers = choose_levers(experiment, [*names, *constants])
        self.fixed = rows_of(constants)
        self.margin = float(norm.ppf(chance)) if len(self.fixed) > 1 else 0.0
        self.outputs = tuple(
            dict.fromkeys((target, *(o for limit in limits for o in limit.outputs)))
        )
        self.rows = [
            (i, self.outputs.index(o)) for i, limit in enumerate(limits) for o in limit.outputs
        ]
        self.signs = np.array([limits[i].sign for i, _ in self.rows])
        self.bounds = np.array([limits[i].bound for i, _ in self.rows])
        self.scales = np.array([scale_of(limits[i]) for i, _ in self.rows])
        self.columns = np.array([c for _, c in self.rows], int)
        self.worth = 1.0
        self.n_looks = self.n_failed = 0
        self._forward = experiment.forward_only()
        self._seen: dict[tuple[int, bytes], tuple[np.ndarray, np.ndarray] | None] = {}

    # ------------------------------------------------------------ what a table gives

    def _rows(self, tables: np.ndarray) -> np.ndarray:
        """Lever rows of tables `(N,T,M)`, draw by draw."""
        flat = tables.reshape(len(tables), -1)
        whole = np.repeat(flat, len(self.fixed), axis=0)
        return np.concatenate([whole, np.tile(self.fixed, (len(tables), 1))], axis=1)

    def look(self, level: Level, z: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
        """Outputs `(K,O)` and slopes by the pieces in parts of their ranges; None if it fails."""
        table = self.table(level, z)
        key = level.n, table.tobytes()
        if key not in self._seen:
            width = self.n_pieces * len(self.chosen.names)
            directions = np.zeros((width, len(self.levers)))
            span = np.tile(self.chosen.span, level.shape[0])
            directions[: level.n, : level.basis.shape[1]] = level.basis * span[:, None]
            values, slopes, codes = look(
                self._forward,
                jnp.asarray(self._rows(table[None])),
                jnp.asarray(directions),
                self.levers,
                self.outputs,
            )
            self.n_looks += 1
            values, slopes = np.asarray(values), np.asarray(slopes)[:, : level.n]
            is_fine = not np.any(codes) and np.isfinite(values).all() and np.isfinite(slopes).all()
            self.n_failed += not is_fine
            if len(self._seen) > _MOST_SEEN:
                self._seen.clear()
            self._seen[key] = (values, slopes) if is_fine else None
        return self._seen[key]

    def table(self, level: Level, z: np.ndarray) -> np.ndarray:
        """Set-points by interval of pieces in parts of their ranges."""
        u = self.chosen.lo + self.chosen.span * np.clip(z, 0.0, 1.0).reshape(level.shape)
        return u[level.of_interval]

    # ------------------------------------------------------------ objective and limits

    def cost(self, level: Level, z: np.ndarray) -> tuple[float, np.ndarray]:
        """What is made small, in its scale, and its slope."""
        seen = self.look(level, z)
        if seen is None:
            return _FAILED, np.zeros(level.n)
        k = self.outputs.index(self.target)
        values, slopes = seen
        by = self.sign / self.worth
        return by * float(values[:, k].mean()), by * slopes[:, :, k].mean(axis=0)

    def room(self, level: Level, z: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Room to each limit in its scale, margin taken off, and the slopes."""
        seen = self.look(level, z)
        if seen is None:
            return np.full(len(self.rows), -_FAILED), np.zeros((len(self.rows), level.n))
        y, s = seen[0][:, self.columns], seen[1][:, :, self.columns]
        mean, slope = y.mean(axis=0), s.mean(axis=0).T
        value, moves = self.signs * (mean - self.bounds), self.signs[:, None] * slope
        if self.margin > 0.0:
            away, along = y - mean, s - s.mean(axis=0)
            sd = np.sqrt(np.sum(away**2, axis=0) / (len(y) - 1) + 1e-300)
            of_sd = np.einsum("ko,kwo->ow", away, along) / (len(y) - 1) / sd[:, None]
            value, moves = value - self.margin * sd, moves - self.margin * of_sd
        return value / self.scales, moves / self.scales[:, None]

    def merit(self, values: np.ndarray) -> float:
        """How good outputs `(K,O)` are, to put candidates in order; infinite if one is missing."""
        if np.isnan(values).any():
            return np.inf
        y = values[:, self.columns]
        sd = y.std(axis=0, ddof=1) if self.margin > 0.0 else 0.0
        room = (self.signs * (y.mean(axis=0) - self.bounds) - self.margin * sd) / self.scales
        cost = self.sign * values[:, self.outputs.index(self.target)].mean() / self.worth
        return float(cost + 10.0 * np.sum(np.maximum(-room, 0.0)))

    # ------------------------------------------------------------ the search

    def run(self, n_starts: int, seed: int) -> Schedule:
        """Search from the best candidates, and tell of the best end."""
        given = np.broadcast_to(
            np.asarray(self.experiment.controls),
            (self.n_intervals, self.experiment.controls.shape[1]),
        )
        place = [next(v.place for v in self.whole if v.name == n) for n in self.chosen.names]
        begin = np.clip(given[:, place], self.chosen.lo, self.chosen.hi)
        tables, before = self._candidates(begin, n_starts, seed)
        sizes = self._sizes()
        found: list[tuple[float, float, np.ndarray, Level, bool]] = []
        constant = np.nan
        for number, table in enumerate(tables):
            steps = sizes if number or not np.ptp(begin, axis=0).any() else sizes[-1:]
            is_done = False
            for size in steps:
                tell(f"start {number + 1} of {len(tables)}, {size} piece(s)")
                level = Level(size, self.n_intervals, len(place))
                z = (level.pieces_of(table) - self.chosen.lo) / self.chosen.span
                z, is_done = self._searched(level, z.ravel())
                table = self.table(level, z)
                if size == 1:
                    constant = self._better(constant, level, z)
            z = (level.pieces_of(table) - self.chosen.lo) / self.chosen.span
            found.append((*self._rank(level, z.ravel()), z.ravel(), level, is_done))
        beyond, _, z, level, is_done = min(found, key=lambda one: one[:2])
        if beyond > 0.0:
            z = self._nearest(level, z)
        return self._told(level, z, given, place, before, constant, is_done)

    def _sizes(self) -> list[int]:
        sizes = [1]
        while sizes[-1] * 2 < self.n_pieces:
            sizes.append(sizes[-1] * 2)
        return sizes if self.n_pieces == 1 else [*sizes, self.n_pieces]

    def _candidates(
        self, begin: np.ndarray, n_starts: int, seed: int
    ) -> tuple[list[np.ndarray], float]:
        """Where searches begin, and what the schedule gives that was there."""
        tell("schedules to begin with")
        part = qmc.Sobol(len(self.chosen.names), rng=seed).random(_CANDIDATES)[1:]
        recipes = self.chosen.lo + self.chosen.span * part
        tables = np.concatenate(
            [begin[None], np.tile(recipes[:, None], (1, self.n_intervals, 1))], axis=0
        )
        values = np.asarray(
            outcomes(self.experiment, jnp.asarray(self._rows(tables)), self.levers, self.outputs)
        ).reshape(len(tables), len(self.fixed), -1)
        target = values[:, :, self.outputs.index(self.target)].mean(axis=1)
        is_run = np.asarray(np.isfinite(values).all(axis=(1, 2)))
        self.n_failed += int(np.sum(~is_run))
        if not is_run.any():
            raise SimulationError(
                f"none of {len(tables)} schedules can be run over its whole length; look at the "
                "ranges, the start and the mechanism."
            )
        self.worth = float(np.max(np.abs(target[is_run]))) or 1.0
        order = np.argsort([self.merit(v) for v in values], kind="stable")
        best = [int(i) for i in order[:n_starts] if is_run[i]]
        first = [0] if is_run[0] and 0 not in best else []
        return [tables[i] for i in (*first, *best)], float(target[0])

    def _searched(self, level: Level, z: np.ndarray) -> tuple[np.ndarray, bool]:
        """The end of one sequential quadratic program, and whether it came to rest.

        It begins within the limits, where a search for that finds a way: a program whose limits
        cannot be kept turns in circles.
        """
        if self._rank(level, z)[0] > 0.0:
            z = self._nearest(level, z)
            if self._rank(level, z)[0] > _OUT_OF_REACH:
                return z, False
        constraints: list[dict[str, Any]] = []
        if self.rows:
            constraints.append(
                {
                    "type": "ineq",
                    "fun": lambda v: self.room(level, v)[0],
                    "jac": lambda v: self.room(level, v)[1],
                }
            )
        steps = self._steps(level)
        if steps is not None:
            a, b = steps
            constraints.append({"type": "ineq", "fun": lambda v: b - a @ v, "jac": lambda _: -a})
        found = minimize(
            lambda v: self.cost(level, v),
            np.clip(z, 0.0, 1.0),
            jac=True,
            method="SLSQP",
            bounds=[(0.0, 1.0)] * level.n,
            constraints=constraints,
            options={"maxiter": _MOST_TURNS, "ftol": _TOLERANCE},
        )
        end = np.clip(found.x, 0.0, 1.0)
        # a line search that finds nothing better ends where it began
        best = min((np.clip(z, 0.0, 1.0), end), key=lambda v: self._rank(level, v))
        return best, bool(found.status in (0, 8))

    def _steps(self, level: Level) -> tuple[np.ndarray, np.ndarray] | None:
        """Rows a, b with a z <= b: what neighbouring pieces may differ by."""
        n, m = level.shape
        part = self.chosen.step / self.chosen.span
        own = np.flatnonzero(part < 1.0)
        if n < 2 or not own.size:
            return None
        rows, ends = [], []
        for k in range(n - 1):
            for j in own:
                row = np.zeros(level.n)
                row[k * m + j], row[(k + 1) * m + j] = -1.0, 1.0
                rows += [row, -row]
                ends += [part[j]] * 2
        return np.array(rows), np.array(ends)

    def _rank(self, level: Level, z: np.ndarray) -> tuple[float, float]:
        """How far beyond the limits, then the cost."""
        room = self.room(level, z)[0]
        beyond = float(np.sum(np.maximum(-room, 0.0))) if room.size else 0.0
        steps = self._steps(level)
        if steps is not None:
            beyond += float(np.sum(np.maximum(steps[0] @ z - steps[1], 0.0)))
        return (0.0 if beyond <= FEASIBLE else beyond), self.cost(level, z)[0]

    def _better(self, old: float, level: Level, z: np.ndarray) -> float:
        beyond, cost = self._rank(level, z)
        value = self.sign * cost * self.worth
        if beyond > 0.0 or cost >= _FAILED:
            return old
        return value if np.isnan(old) or self.sign * value < self.sign * old else old

    def _nearest(self, level: Level, z: np.ndarray) -> np.ndarray:
        """The schedule that is least beyond its limits."""
        steps = self._steps(level)

        def beyond(v: np.ndarray) -> tuple[float, np.ndarray]:
            room, moves = self.room(level, v)
            short = np.minimum(room, 0.0)
            value, slope = float(short @ short), 2.0 * moves.T @ short
            if steps is not None:
                over = np.maximum(steps[0] @ v - steps[1], 0.0)
                value, slope = value + float(over @ over), slope + 2.0 * steps[0].T @ over
            return value, slope

        found = minimize(
            beyond,
            z,
            jac=True,
            method="L-BFGS-B",
            bounds=[(0.0, 1.0)] * level.n,
            options={"ftol": 1e-15, "gtol": 1e-9},
        )
        return min((z, np.clip(found.x, 0.0, 1.0)), key=lambda v: self._rank(level, v))

    # ------------------------------------------------------------ what is told

    def _told(
        self,
        level: Level,
        z: np.ndarray,
        given: np.ndarray,
        place: list[int],
        before: float,
        constant: float,
        is_done: bool,
    ) -> Schedule:
        seen = self.look(level, z)
        if seen is None:
            raise SimulationError("no schedule was found that can be run over its whole length.")
        values = seen[0]
        table = given.copy()
        table[:, place] = self.table(level, z)
        target = values[:, self.outputs.index(self.target)]
        room = self.room(level, z)[0] * self.scales
        prices = self._prices(level, z)
        kept = []
        for i, limit in enumerate(self.limits):
            own = np.array([r for r, (owner, _) in enumerate(self.rows) if owner == i])
            worst = own[np.argmin(room[own])]
            y = values[:, self.columns[own]]
            is_kept = limit.sign * (y - limit.bound) >= -FEASIBLE * scale_of(limit)
            kept.append(
                Kept(
                    limit,
                    float(values[:, self.columns[worst]].mean()),
                    self.outputs[self.columns[worst]],
                    float(room[worst]),
                    float(np.mean(is_kept.all(axis=1))),
                    float(prices[own].sum()),
                )
            )
        return Schedule(
            hours=self.experiment.hours,
            names=tuple(v.name for v in self.whole),
            units=tuple(v.unit for v in self.whole),
            controls=table,
            moved=self.chosen.names,
            objective=self.target,
            is_largest=self.sign < 0.0,
            value=float(target.mean()),
            spread=float(target.std(ddof=1)) if target.size > 1 else 0.0,
            n_draws=target.size,
            before=before,
            constant=constant,
            kept=tuple(kept),
            at_bounds=self._at_bounds(level, z),
            is_feasible=self._rank(level, z)[0] == 0.0,
            is_converged=is_done,
            n_looks=self.n_looks,
            n_failed=self.n_failed,
        )

    def _prices(self, level: Level, z: np.ndarray) -> np.ndarray:
        """Multipliers of the limits that are reached [objective / unit of the limit]."""
        room, moves = self.room(level, z)
        prices = np.zeros(len(self.rows))
        active = np.flatnonzero(np.abs(room) < 1e-4)
        free = (z > 1e-6) & (z < 1.0 - 1e-6)
        if active.size and free.any():
            slope = self.cost(level, z)[1]
            found = np.linalg.lstsq(moves[active][:, free].T, slope[free], rcond=None)[0]
            prices[active] = np.maximum(found, 0.0) * self.worth / self.scales[active]
        return prices

    def _at_bounds(self, level: Level, z: np.ndarray) -> tuple[str, ...]:
        part: np.ndarray = np.reshape(z, level.shape)
        said: list[str] = []
        for m, name in enumerate(self.chosen.names):
            for n_there, end, word in (
                (int(np.sum(part[:, m] < 1e-4)), self.chosen.lo[m], "lowest"),
                (int(np.sum(part[:, m] > 1.0 - 1e-4)), self.chosen.hi[m], "highest"),
            ):
                if n_there:
                    count = f"in {n_there} of {level.shape[0]} pieces"
                    where = count if level.shape[0] > 1 else "throughout"
                    unit = shown_unit(self.chosen.units[m])
                    said.append(f"{name} is at the {word} allowed, {end:g} {unit}, {where}")
        return tuple(said)
