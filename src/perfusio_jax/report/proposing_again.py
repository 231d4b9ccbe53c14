"""The next runs of a campaign, proposed again and again in memory while somebody looks at them.

It is `propose` with the same settings, on tables as they are, with runs left out and recipes
refused; its table goes into a folder that is gone when it is read.
"""

import csv
import io
import math
import shlex
import tempfile
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from rich.console import Console

from perfusio_jax._core import PerfusioError
from perfusio_jax._core.units import canonical_unit
from perfusio_jax.bed.policy.campaign_settings import CampaignSettings
from perfusio_jax.connectors import read_culture
from perfusio_jax.connectors.files.cultures import CultureTable
from perfusio_jax.connectors.files.parts import title_of
from perfusio_jax.connectors.tables.file_rules import FileRules
from perfusio_jax.hybrid import HybridConfig
from perfusio_jax.twin.records.secrets import in_short
from perfusio_jax.viz import Card
from perfusio_jax.viz.dashboard.views import Campaign, PastRun, Proposal

from .cho_aims import read_space
from .proposing import propose_file
from .recipes import read_recipes
from .wishes import Wishes, culture_of

MOST_KEPT: Final = 16
"""Answers that are kept; the one asked for longest ago goes first."""
MOST_FITS: Final = 4
"""Models that are kept; other recipes are refused of the same one."""
MOST_REFUSED: Final = 24
"""Recipes that may be refused at once."""

_WORKING: Final = (
    "The next runs are being searched: a model is fitted to the runs and recipes are rolled out. "
    "This takes from some seconds to a few minutes; the page shows them when they are there."
)

_Asked = tuple[str, tuple[str, ...], tuple[tuple[float, ...], ...]]
"""State of the tables, runs left out, recipes refused."""
_Job = tuple[_Asked, CultureTable, Campaign]


class ProposingAgain:
    """Proposes the next runs; a `Proposing`. One question at a time, the newest one first.

    Args:
        tables: Campaign tables.
        wishes: What is wanted, as `propose` takes it.
        culture: Which culture; see `read_culture`.
        mechanism: Mechanism of a described culture.
        space: File of the design space of CHO perfusion.
        rules: How the tables are read.
        settings: Sizes of the search.
        config: Settings of the fit.
        monotonic: Clock [s].
    """

    def __init__(
        self,
        tables: Sequence[Path],
        wishes: Wishes,
        *,
        culture: str | None = None,
        mechanism: Any = None,
        space: Path | None = None,
        rules: FileRules | None = None,
        settings: CampaignSettings | None = None,
        config: HybridConfig | None = None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._tables, self._wishes = list(tables), wishes
        self._culture, self._mechanism, self._space = culture, mechanism, space
        self._rules, self._settings, self._config = rules, settings, config
        self._now = monotonic
        self._lock = threading.Lock()
        self._read: tuple[str, CultureTable] | None = None
        self._known: OrderedDict[_Asked, Campaign] = OrderedDict()
        self._fits: OrderedDict[tuple[str, tuple[str, ...]], Any] = OrderedDict()
        self._doing: _Asked | None = None
        self._next: _Job | None = None

    def close(self) -> None:
        """Begin nothing more; what is being searched does not keep the program from ending."""
        with self._lock:
            self._next = None

    def version(self) -> str:
        """A text that changes whenever a table may have changed."""
        found = []
        for path in self._tables:
            for part in sorted(path.rglob("*")) if path.is_dir() else [path]:
                try:
                    status = part.stat()
                    found.append(f"{part.name}:{status.st_mtime_ns}:{status.st_size}")
                except OSError:
                    found.append(f"{part.name}:gone")
        return "|".join(found)

    def __call__(self, without: Sequence[str], refused: Sequence[Sequence[float]], /) -> Campaign:
        """The next runs, or that they are being searched, or why there are none.

        Args:
            without: Runs that nothing is learned from; of one that is not there nothing is taken.
            refused: Recipes nobody wants, their set-points in the order of the controls. They count
                as under way, so that others are looked for elsewhere.
        """
        title = title_of(self._tables)
        try:
            stamp, table = self._table()
        except (PerfusioError, OSError) as error:
            return Campaign(title, "none", f"The runs cannot be read: {in_short(error)}")
        known = {run.run_id for run in table.trajectories}
        left_out = tuple(sorted({name for name in without if name in known}))
        units = self._units(table)
        unwanted = tuple(
            sorted({tuple(map(float, r)) for r in refused[:MOST_REFUSED] if _fits(r, len(units))})
        )
        key = (stamp, left_out, unwanted)
        bare = Campaign(
            title, "working", _WORKING, _past(table, left_out, ()), units=units, refused=unwanted
        )
        with self._lock:
            if key in self._known:
                self._known.move_to_end(key)
                return self._known[key]
            # what was asked before and has not begun, nobody waits for any more
            self._next = None if key == self._doing else (key, table, bare)
            if self._doing is None:
                self._doing = key
                threading.Thread(target=self._work, daemon=True, name="propose").start()
        return bare

    # ------------------------------------------------------------------ the work

    def _table(self) -> tuple[str, CultureTable]:
        """The runs so far, read anew where a file has changed."""
        stamp = self.version()
        with self._lock:
            if self._read is None or self._read[0] != stamp:
                place = self._tables if len(self._tables) > 1 else self._tables[0]
                culture = culture_of(self._wishes, self._culture)
                self._read = (stamp, read_culture(place, culture, self._rules))
            return self._read

    def _units(self, table: CultureTable) -> dict[str, str]:
        """Unit of each control, in array order."""
        if table.process is not None:
            return {c.name: c.unit for c in table.process.controls}
        return {n: canonical_unit(n) for n in read_space(self._space).control_names}

    def _work(self) -> None:
        """Answer what was asked last until nothing is."""
        while True:
            with self._lock:
                job, self._next = self._next, None
                self._doing = None if job is None else job[0]
            if job is None:
                return
            self._propose(*job)

    def _propose(self, key: _Asked, table: CultureTable, bare: Campaign) -> None:
        began = self._now()
        try:
            found = self._searched(key, table, bare)
        except (PerfusioError, OSError) as error:
            found = bare._replace(state="none", text=f"There is no proposal: {in_short(error)}")
        except Exception as error:  # the page goes on, and this is told
            text = f"There is no proposal ({type(error).__name__}: {in_short(error)})."
            found = bare._replace(state="none", text=text)
        with self._lock:
            self._known[key] = found._replace(seconds=self._now() - began)
            while len(self._known) > MOST_KEPT:
                self._known.popitem(last=False)

    def _searched(self, key: _Asked, table: CultureTable, bare: Campaign) -> Campaign:
        _, left_out, unwanted = key
        names, cards = list(bare.units), []
        with tempfile.TemporaryDirectory(prefix="perfusio-propose-") as place:
            out, pending = Path(place) / "proposed.csv", Path(place) / "unwanted.csv"
            if unwanted:
                with pending.open("w", newline="", encoding="utf-8") as file:
                    rows = csv.writer(file)
                    rows.writerow(["run_id", *names])
                    rows.writerows(["", *(f"{v!r}" for v in recipe)] for recipe in unwanted)
            told = propose_file(
                self._tables if len(self._tables) > 1 else self._tables[0],
                wishes=self._wishes._replace(without=left_out),
                pending=pending if unwanted else None,
                space=self._space,
                out=out,
                console=Console(file=io.StringIO()),
                settings=self._settings,
                config=self._config,
                culture=self._culture,
                mechanism=self._mechanism,
                rules=self._rules,
                on_card=cards.append,
                fitted_by=lambda fit: self._fitted(key[:2], fit),
            )
            recipes = (
                [] if self._wishes.profile else read_recipes(out, names, bare.units.__getitem__)
            )
        return bare._replace(
            state="ready",
            text="",
            runs=_past(table, left_out, told["runs_so_far"]),
            proposals=_proposals(told, recipes, names),
            goals=told["directions"],
            limits=[c["limit"] for c in told["constraints"]],
            words=[line for card in cards for line in _said(card)],
            command="" if unwanted else self._command(left_out),
        )

    def _fitted(self, of: tuple[str, tuple[str, ...]], fit: Callable[[], Any]) -> Any:
        """The model of some runs; fitted once, by the one thread there is for it."""
        if of not in self._fits:
            self._fits[of] = fit()
        self._fits.move_to_end(of)
        while len(self._fits) > MOST_FITS:
            self._fits.popitem(last=False)
        return self._fits[of]

    def _command(self, left_out: Sequence[str]) -> str:
        """What the same is asked with on the command line, as far as it has a name there."""
        wishes = self._wishes
        words = ["perfusio-jax", "propose", *(str(path) for path in self._tables)]
        words += ["--runs", str(wishes.n_runs)]
        words += [] if wishes.goals else ["--goal", wishes.goal]
        for name in left_out:
            words += ["--without", name]
        return shlex.join(words)


def _past(
    table: CultureTable, left_out: Sequence[str], expected: Sequence[Mapping[str, float]]
) -> list[PastRun]:
    """The runs so far; what is expected is of those that were learned from, in their order."""
    used = [run for run in table.trajectories if run.run_id not in left_out and run.n_days > 1]
    found = dict(zip((run.run_id for run in used), expected, strict=False))
    return [
        PastRun(
            run.run_id, run.clone_id, run.n_days, run.run_id in left_out, found.get(run.run_id, {})
        )
        for run in table.trajectories
    ]


def _proposals(told: Mapping[str, Any], recipes: Any, names: Sequence[str]) -> list[Proposal]:
    found = []
    for k, run in enumerate(told["runs"]):
        set_points = dict(zip(names, map(float, recipes[k]), strict=True)) if len(recipes) else {}
        expected = {
            label: (value, run["q10"][label], run["q90"][label])
            for label, value in run["expected"].items()
        }
        found.append(Proposal(str(k + 1), set_points, expected, run["probability_kept"]))
    return found


def _said(card: Card) -> list[str]:
    """The sentences that are not a row of the table of proposals."""
    return [
        line
        for line in (*card.warnings, *card.sentences)
        if not line.startswith("   ") and not line.split(". ")[0].isdigit()
    ]


def _fits(recipe: Sequence[float], n: int) -> bool:
    return len(recipe) == n and all(math.isfinite(v) for v in recipe)
