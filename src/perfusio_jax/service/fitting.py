"""`perfusio-jax fit`: a campaign table in, a model with a verdict out."""

import importlib
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from perfusio_jax._core import CONTROL_NAMES, ConfigError
from perfusio_jax.connectors import CultureTable, read_culture
from perfusio_jax.gp import FitReport
from perfusio_jax.hybrid import (
    HybridStateSpaceModel,
    Verdict,
    fit_hybrid,
    judge_fit,
    save,
    write_verdict,
)
from perfusio_jax.mechanistic import Mechanism
from perfusio_jax.process import Process
from perfusio_jax.states import (
    Trajectory,
    complete_setpoints,
    intervals_text,
    sampling_intervals,
)

PLAIN = ("monod", "none")
"""Mechanisms that are tried where none is named."""


class Fitted(NamedTuple):
    """A model, how it was found, and what it is fit for."""

    model: HybridStateSpaceModel
    report: FitReport
    verdict: Verdict | None
    name: str
    """Its mechanism."""


def fit_table(
    campaign: Path,
    out: Path,
    *,
    seed: int,
    fill_down: bool,
    culture: str | None,
    mechanism: str | None,
    console: Any,
) -> None:
    """Fit a model to a campaign table and save it.

    Args:
        campaign: The table.
        out: Folder for the model.
        seed: Random seed.
        fill_down: Whether a blank set-point means that the one before it stayed.
        culture: Which culture; see `read_culture`.
        mechanism: Which mechanism, of a culture that is described.
        console: Where to print.
    """
    table = read_culture(campaign, culture)
    runs = completed(table, fill_down=fill_down, console=console)
    with console.status("fitting") as status:
        fitted = fitted_best(
            runs,
            table.process,
            seed=seed,
            mechanism=mechanism,
            say=lambda text: status.update(text),
        )
    for line in fitted[1]:
        console.print(line, soft_wrap=True)
    _save(fitted[0], out, len(runs), console)


def completed(table: CultureTable, *, fill_down: bool, console: Any) -> list[Trajectory]:
    """Runs of a table with every set-point, everything that was assumed told.

    Args:
        table: As read.
        fill_down: Whether a blank set-point means that the one before it stayed.
        console: Where to print.
    """
    console.print(str(table.report), soft_wrap=True)
    for line in table.assumptions:
        console.print(f"assumed: {line}", soft_wrap=True)
    runs, told = complete_setpoints(
        table.trajectories,
        fill_down=fill_down,
        stated=table.lacking,
        source="",
        names=CONTROL_NAMES if table.process is None else table.process.control_names,
    )
    for line in told:
        console.print(line, soft_wrap=True)
    apart = intervals_text(sampling_intervals(runs))
    console.print(f"samples {apart}.", soft_wrap=True)
    return runs


def fitted_best(
    runs: Sequence[Trajectory],
    process: Process | None,
    *,
    seed: int,
    mechanism: str | None = None,
    say: Any = None,
) -> tuple[Fitted, list[str]]:
    """A model of a campaign; without a mechanism named, the better of a plain one and none.

    Args:
        runs: Runs with every set-point.
        process: The culture; None for CHO perfusion.
        seed: Random seed.
        mechanism: `monod`, `none`, or `module:Class` of one's own.
        say: Called with what is being done.

    Returns:
        The model, and sentences about the choice.

    Raises:
        ConfigError: If a mechanism is named for CHO perfusion, or cannot be found.
    """
    if process is None and mechanism is not None:
        raise ConfigError(
            f"--mechanism {mechanism} was given, and CHO perfusion has one of its own; --process "
            "table reads the culture off the table instead."
        )
    if process is None or mechanism is not None:
        named = None if process is None else named_mechanism(mechanism)
        return _fit(runs, process, seed, named), []
    found = []
    for name in PLAIN:
        if say is not None:
            say(f"fitting, mechanism: {name}")
        found.append(_fit(runs, process, seed, name))
    if found[0].model.mech_model.kinetics is None:
        return found[1], [
            "mechanism: none, since no biomass is named, or nothing that it takes up."
        ]
    scores = [_score(f.verdict) for f in found]
    best = found[int(np.argmin(scores))]
    told = " and ".join(f"{s:.2f} with {f.name}" for f, s in zip(found, scores, strict=True))
    return best, [
        f"mechanism: {best.name}. Error one sampling interval ahead, over that if nothing changed, "
        f"each run by the process without it: {told}."
    ]


def named_mechanism(text: str | None) -> str | Mechanism | None:
    """A mechanism by what a person says of it.

    Args:
        text: `monod`, `none`, or `module:Class`; the module may lie in the present folder.

    Raises:
        ConfigError: If there is no such class, or it is no mechanism.
    """
    if text is None or text in PLAIN:
        return text
    module, _, name = text.partition(":")
    if not name:
        raise ConfigError(
            f"mechanism {text!r} is unknown; allowed are {', '.join(PLAIN)} and module:Class."
        )
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        found = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise ConfigError(f"mechanism {text}: {error}.") from None
    made = found() if isinstance(found, type) else found
    if not isinstance(made, Mechanism):
        raise ConfigError(
            f"mechanism {text} is a {type(made).__name__}; it has to be a Mechanism of "
            "perfusio_jax.mechanistic."
        )
    return made


def _fit(runs: Sequence[Trajectory], process: Process | None, seed: int, mechanism: Any) -> Fitted:
    model, report = fit_hybrid(
        list(runs), key=jax.random.key(seed), process=process, mech_model=mechanism
    )
    name = mechanism if isinstance(mechanism, str) else type(mechanism).__name__
    return Fitted(model, report, judge_fit(model, list(runs)), name)


def _score(verdict: Verdict | None) -> float:
    """Geometric mean of the errors over those if nothing changed; infinite without any."""
    if verdict is None:
        return float("inf")
    ratio = np.asarray(verdict.error) / np.asarray(verdict.nothing_changes)
    ratio = ratio[np.isfinite(ratio) & (ratio > 0.0)]
    return float(np.exp(np.mean(np.log(ratio)))) if ratio.size else float("inf")


def _save(fitted: Fitted, out: Path, n_runs: int, console: Any) -> None:
    model, report, verdict, _ = fitted
    save(model, out)
    if verdict is not None:
        write_verdict(verdict, model, out)
    console.print(
        f"{n_runs} runs, {report.details['rows']} intervals; "
        f"{report.optimiser} took {int(report.n_iterations)} iterations, "
        f"{'converged' if report.converged else 'then stopped at its limit'}; log evidence "
        f"{float(report.log_evidence):.1f}; condition {float(report.condition_number):.1e}"
    )
    if report.at_bounds:
        console.print("at the edge of what is sensible: " + ", ".join(report.at_bounds))
    layout = model.layout
    if layout.latent:
        never = ", ".join(layout.face[k] for k in layout.latent)
        console.print(
            f"never measured: {never}. The mechanism alone moves what they stand for; forecasts of "
            "them rest on nothing else.",
            soft_wrap=True,
        )
    if verdict is not None:
        console.print(f"{verdict.line()} Runs left out: perfusio-jax validate.", soft_wrap=True)
    console.print(f"model: {out}")
