"""`perfusio-jax calibrate`: a campaign table in, a posterior of constants out."""

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from perfusio_jax._core.progress import tell
from perfusio_jax.connectors import completed, read_culture
from perfusio_jax.connectors.files.parts import Tables, title_of
from perfusio_jax.connectors.tables.file_rules import FileRules
from perfusio_jax.mechanistic import build_of
from perfusio_jax.process import CHO_PERFUSION
from perfusio_jax.states import Trajectory
from perfusio_jax.study import (
    CHOExperiment,
    DescribedExperiment,
    Plan,
    Posterior,
    calibrate,
    calibration_problem,
    save_posterior,
    uniform,
)
from perfusio_jax.study.calibration.posterior import Method
from perfusio_jax.viz import (
    Card,
    Table,
    posterior_figure,
    readings_figure,
    save_figure,
    show_card,
)

from .identifying import plant_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_RTOL, _ATOL = 1e-5, 1e-8
"""Accuracy of a described culture: a thousandth of what assays see, in half the steps."""
_MOST_RUNS, _MOST_COLUMNS = 6, 9
"""Runs and quantities of a figure."""


class Wish(NamedTuple):
    """What is asked, as the command line has it."""

    culture: str | None
    """Which culture; see `read_culture`."""
    mechanism: str | None
    """`monod` or `module:Class`, of a culture that is described; `monod` if None."""
    constants: tuple[str, ...] | None
    """Names; all that have a prior if None."""
    ranges: Mapping[str, tuple[float, float]]
    """Priors by constant, where those of the mechanism are not meant."""
    by_clone: bool
    """Whether clones have constants of their own."""
    learn_noise: bool
    """Whether a factor on the error of each assay is learned."""
    starts_known: bool
    """Whether the first sample of a run is taken for true."""
    method: Method
    """`nuts`, `svi` or `map`."""
    plan: Plan
    """How it is sampled."""
    fill_down: bool
    """Whether a blank set-point means that the one before it stayed."""
    seed: int
    """Of all random numbers."""
    accept_warnings: bool = False
    """Whether a person accepts what speaks against the draws; kept with them."""


def calibrate_table(
    campaign: Tables,
    wish: Wish,
    *,
    out: Path,
    figure: Path | None,
    console: Any,
    rules: FileRules | None = None,
    clock: Callable[[], float] = time.monotonic,
    on_card: Callable[[Card], None] | None = None,
) -> bool:
    """Find constants of a mechanism from a campaign, and store them.

    Args:
        campaign: The table, several, or a folder of them.
        wish: What is asked.
        out: Folder for the posterior.
        figure: Picture to write as well; one of the readings lies beside it.
        console: Where to print.
        rules: How the table is read.
        clock: Seconds, for what is left to wait.
        on_card: Is given what was concluded.

    Returns:
        Whether nothing speaks against what was found.
    """
    table = read_culture(campaign, wish.culture, rules)
    runs = completed(table, fill_down=wish.fill_down, console=console)
    runs = [run for run in runs if run.n_days >= 2]
    plant = plant_of(table.process, wish.mechanism, rtol=_RTOL, atol=_ATOL)
    problem = calibration_problem(
        plant,
        runs,
        wish.constants,
        priors={name: uniform(*ends) for name, ends in wish.ranges.items()},
        clones=[run.clone_id for run in runs] if wish.by_clone else None,
        learn_noise=wish.learn_noise,
        starts_known=wish.starts_known,
    )
    for line in problem.lines():
        console.print(line, soft_wrap=True)
    with console.status("calibrating"):
        found = calibrate(
            problem,
            method=wish.method,
            plan=wish.plan,
            seed=wish.seed,
            on_part=_progress(clock, "draws" if wish.method == "nuts" else "steps"),
        )
    card = calibration_card(found, runs, len(problem.lines()), source=title_of(campaign))
    show_card(card._replace(warnings=()), console)  # these come last, where they are seen
    name = "cho_perfusion" if table.process is None else table.process.name
    mechanism = wish.mechanism or ("cho" if table.process in (None, CHO_PERFUSION) else "monod")
    culture: dict[str, Any] = {"process": name, "mechanism": mechanism}
    if table.process is not None:
        culture["description"] = table.process.model_dump(mode="json", exclude_defaults=True)
    if isinstance(plant, DescribedExperiment):
        culture["build"] = build_of(plant.plant.mechanism).as_json()
    elif isinstance(plant, CHOExperiment):
        culture["build"] = build_of(plant.reactor.kinetics).as_json()
    if found.problems and wish.accept_warnings:
        culture["is_accepted"] = True
    save_posterior(found, out, culture=culture)
    console.print(f"posterior: {out}", soft_wrap=True)
    if figure is not None:
        for path in draw_posterior(found, runs, figure):
            console.print(f"figure: {path}", soft_wrap=True)
    for line in card.warnings:
        console.print(line, soft_wrap=True)
    if on_card is not None:
        on_card(card)
    return not found.problems


def calibration_card(
    found: Posterior, runs: Sequence[Trajectory], n_said: int = 0, *, source: str = ""
) -> Card:
    """What a calibration concludes.

    Args:
        found: The posterior.
        runs: The runs it was found from.
        n_said: Notes of it that a person was told already.
        source: What it was found from.
    """
    constants = _constants(found)
    return Card(
        "calibrate",
        constants.title,
        tuple(_told(found, n_said)),
        tuple(f"not to be believed as it is: {line}." for line in found.problems),
        (constants, _readings(found)),
        f"{source}, {len(runs)} runs" if source else f"{len(runs)} runs",
        lambda: _drawn(found),
    )


def draw_posterior(found: Posterior, runs: Sequence[Trajectory], path: Path) -> list[Path]:
    """Draw constants, and readings beside what the posterior would read.

    Args:
        found: The posterior.
        runs: The runs it was found from, in its order.
        path: Picture of the constants; that of the readings has `-readings` in its name.

    Returns:
        The pictures.
    """
    chains = _drawn(found)
    beside = path.with_name(f"{path.stem}-readings{path.suffix}")
    columns = [k for k in range(len(found.columns)) if found.check.n_read[k]][:_MOST_COLUMNS]
    hours, readings, bands = {}, {}, {}
    for r, run in enumerate(runs[:_MOST_RUNS]):
        name = run.run_id if run.run_id not in hours else f"{run.run_id} ({r + 1})"
        n = run.n_days
        hours[name] = np.asarray(run.times_h, float)
        seen = np.asarray(run.host_readings([found.columns[k] for k in columns]), float)
        readings[name] = {found.columns[k]: seen[:, i] for i, k in enumerate(columns)}
        bands[name] = {found.columns[k]: found.check.quantiles[:, r, :n, k] for k in columns}
    named = {found.columns[k]: found.column_units[k] for k in columns}
    return [
        save_figure(chains, path),
        save_figure(readings_figure(hours, readings, bands, named), beside),
    ]


def _drawn(found: Posterior) -> "Figure":
    """The constants beside their priors."""
    priors = {
        name: (bool(found.prior[0, i]), float(found.prior[1, i]), float(found.prior[2, i]))
        for i, name in enumerate(found.names)
    }
    draws = {name: found.pooled[:, i] for i, name in enumerate(found.names)}
    units = dict(zip(found.names, found.units, strict=True))
    return posterior_figure(draws, priors, units, n_chains=found.draws.shape[0])


def _progress(clock: Callable[[], float], what: str) -> Callable[[int, int], None]:
    """Says how far it is, and how long it will take from the pace so far."""
    seen: list[tuple[float, int]] = []

    def on_part(done: int, left: int) -> None:
        now = clock()
        seen.append((now, done))
        line = f"{done} of {done + left} {what}"
        if len(seen) > 1 and left:  # the first part compiles, and says nothing of the pace
            (then, before), last = seen[max(0, len(seen) - 6)], seen[-1]
            pace = (last[0] - then) / max(last[1] - before, 1)
            line += f", about {_span(pace * left)} left"
        tell(line)

    return on_part


def _span(seconds: float) -> str:
    return f"{seconds / 60.0:.0f} min" if seconds >= 90.0 else f"{max(1, round(seconds))} s"


def _constants(found: Posterior) -> Table:
    how = {"nuts": "sampled", "svi": "a normal law, fitted", "map": "a normal law at the top"}
    has_chains = found.diagnostics is not None
    heads = ["constant", "unit", "median", "2.5 %", "97.5 %", "of the prior's spread"]
    heads += ["R-hat", "ESS", "ESS of tails"] if has_chains else []
    low, middle, high = np.quantile(found.pooled, (0.025, 0.5, 0.975), axis=0)
    rows = []
    for i, name in enumerate(found.names):
        is_log, _, width = found.prior[:, i]
        draws = found.pooled[:, i]
        spread = np.std(np.log(draws)) if is_log else np.std(draws)
        cells = [f"{v[i]:.4g}" for v in (middle, low, high)]
        cells.append(f"{100.0 * spread / width:.0f} %")
        if found.diagnostics is not None:
            said = found.diagnostics.constants
            cells += [f"{said.r_hat[i]:.3f}"]
            cells += [f"{v[i]:.0f}" for v in (said.ess_bulk, said.ess_tail)]
        rows.append((name, found.units[i], *cells))
    title = f"{len(found.names)} constants, {how[found.method]}"
    return Table(title, tuple(heads), tuple(rows), tuple(range(2, len(heads))))


def _readings(found: Posterior) -> Table:
    heads = ("quantity", "readings", "in 80 %", "in 95 %", "prior: in 95 %", "assay's error")
    factor = found.noise.reshape(-1, len(found.columns)).mean(axis=0)
    rows = []
    for k, name in enumerate(found.columns):
        if not found.check.n_read[k]:
            continue
        shares = (found.check.inside[0.8], found.check.inside[0.95], found.before.inside[0.95])
        cells = [f"{100.0 * v[k]:.0f} %" for v in shares]
        rows.append((name, f"{int(found.check.n_read[k])}", *cells, f"x {factor[k]:.2f}"))
    title = "what the posterior would read, beside what was read"
    return Table(title, heads, tuple(rows), tuple(range(1, len(heads))))


def _told(found: Posterior, n_said: int) -> list[str]:
    """What the sampler did, and what is left open; what was said before is not said again."""
    lines = list(found.notes[n_said:])
    said = found.diagnostics
    if said is not None:
        n = found.draws.shape[0] * found.draws.shape[1]
        lines.insert(
            0,
            f"{n} draws of {found.draws.shape[0]} chains; {said.n_divergent} diverged, "
            f"{said.n_deep} at the deepest; trees {said.depth:.1f} deep, E-BFMI "
            f"{np.min(said.e_bfmi):.2f} and more, {100 * said.accepted:.0f} % taken; "
            f"{said.n_gradients} derivatives.",
        )
    return lines
