"""`perfusio-jax validate`: leave runs out, forecast them, write down how good that was."""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax

from perfusio_jax._core.text import shown as fit_to_show
from perfusio_jax.connectors import completed, named_mechanism, read_culture
from perfusio_jax.connectors.files.parts import Tables, title_of
from perfusio_jax.connectors.tables.file_rules import FileRules
from perfusio_jax.gp import FitReport
from perfusio_jax.hybrid import (
    NO_PLAIN,
    HybridConfig,
    HybridStateSpaceModel,
    Layout,
    at_steps,
    best_of,
    candidates,
    cross_validate,
    fit_hybrid,
    has_mechanism,
    never_left_out,
    refuse_mechanism,
    save,
    verdict_score,
    write_verdict,
)
from perfusio_jax.process import Process
from perfusio_jax.states import Trajectory
from perfusio_jax.viz import Card, Table, show_card

from .horizons import Horizons, horizons_of
from .model_card import Subject, model_card
from .scoring import (
    Judged,
    judged,
    share,
    shown_names,
    summary_of,
    verdict_of,
    with_nothing,
    write_figures,
    write_scores,
)

__all__ = ["validate_campaign", "verdict_of"]


class _Work(NamedTuple):
    """Everything a validation needs beside the mechanism."""

    runs: list[Trajectory]
    process: Process | None
    config: HybridConfig | None
    ahead: Horizons
    n_folds: int
    seed: int
    console: Any
    status: Any


class _Outcome(NamedTuple):
    """A model of all runs, and how well its like did on runs left out."""

    judgement: Judged
    model: HybridStateSpaceModel
    report: FitReport
    remarks: tuple[str, ...] = ()
    scores: Mapping[str, float] = {}
    """By mechanism, where there was a choice."""


def validate_campaign(
    campaign: Tables,
    out: Path,
    *,
    n_folds: int,
    horizon: int | None = None,
    hours: Sequence[float] | None = None,
    seed: int,
    console: Any,
    config: HybridConfig | None = None,
    mech_model: Any = None,
    fill_down: bool = False,
    culture: str | None = None,
    mechanism: str | None = None,
    rules: FileRules | None = None,
    on_card: Callable[[Card], None] | None = None,
) -> None:
    """Cross-validate on a campaign table and write scores, figures, model and model card.

    Args:
        campaign: Campaign table, several, or a folder of them.
        out: Folder for the results.
        n_folds: Number of folds.
        horizon: Days ahead; see `horizons_of` for what is taken by default.
        hours: Hours ahead, in place of days.
        seed: Random seed.
        console: Where to print.
        config: Settings of the fits.
        mech_model: Mechanistic prior of CHO perfusion; `CHOPerfusionModel()` by default.
        fill_down: Whether a blank set-point means that the one before it stayed.
        culture: Which culture; see `read_culture`.
        mechanism: Which mechanism, of a culture that is described; by default the best of those
            that suit it on runs left out.
        rules: How the table is read.
        on_card: Is given what was concluded.

    Raises:
        ConfigError: If what is asked for does not fit the table.
        DataError: If the table cannot be read, or its runs cannot be left out.
    """
    named = named_mechanism(mechanism)
    table = read_culture(campaign, culture, rules)
    runs = completed(table, fill_down=fill_down, console=console)
    refuse_mechanism(table.process, named)
    ahead = horizons_of(runs, days=horizon, hours=hours)
    alone = never_left_out(runs, config)
    remarks = [
        f"run {runs[i].run_id} is the only one of clone {runs[i].clone_id}: the model learns from "
        "it, and it is not left out or judged."
        for i in alone
    ]
    for line in remarks:
        console.print(line, soft_wrap=True)
    n_folds = min(n_folds, len(runs) - len(alone))
    with console.status("compiling and running the first fold") as status:
        work = _Work(runs, table.process, config, ahead, n_folds, seed, console, status)
        if table.process is None or named is not None:
            found = _outcome(work, mech_model if table.process is None else named)
        else:
            found = _better(work, table.process)
    for line in found.remarks:
        console.print(line, soft_wrap=True)
    subject = Subject(
        runs,
        found.model,
        found.report,
        title_of(campaign),
        table.assumptions,
        (*found.remarks, *remarks),
    )
    _write(out, found, subject)
    source = title_of(campaign)
    card = validation_card(found.judgement, found.model.layout, n_folds, source=source)
    show_card(card, console)
    if on_card is not None:
        on_card(card)
    console.print(f"model card, scores, figures and model: {out}", soft_wrap=True)


def _better(work: _Work, process: Process) -> _Outcome:
    """The best of the mechanisms that suit the process, by the errors of runs left out."""
    names = candidates(process)
    work.status.update("fitting to all runs")
    model, report = _fit(work, names[0])
    if not has_mechanism(model):
        names = names[1:]
    if len(names) == 1:
        return _Outcome(_crossed(work, names[0]), model, report, (NO_PLAIN,))
    results = {name: _crossed(work, name) for name in names}
    scores = {name: verdict_score(result.verdict) for name, result in results.items()}
    best, told = best_of(scores)
    if best != "monod":
        work.status.update("fitting to all runs")
        model, report = _fit(work, best)
    line = (
        f"mechanism: {best}. Error of runs left out, {work.ahead.text()}, over that if nothing "
        f"changed: {told}. Its scores are those of the best of {len(names)}, so a little kind."
    )
    return _Outcome(results[best], model, report, (line,), scores)


def _outcome(work: _Work, mechanism: Any) -> _Outcome:
    """With one mechanism, nothing to choose."""
    judgement = _crossed(work, mechanism)
    work.status.update("fitting to all runs")
    return _Outcome(judgement, *_fit(work, mechanism))


def _fit(work: _Work, mechanism: Any) -> tuple[HybridStateSpaceModel, FitReport]:
    return fit_hybrid(
        work.runs,
        key=jax.random.key(work.seed),
        config=work.config,
        mech_model=mechanism,
        process=work.process,
    )


def _crossed(work: _Work, mechanism: Any) -> Judged:
    """Forecasts of runs left out, with one mechanism, at the horizons."""
    is_one_of = work.process is not None and isinstance(mechanism, str)
    told = f", mechanism: {mechanism}" if is_one_of else ""

    def tell(fold: int, count: int) -> None:
        kind = "compiling and running" if fold == 0 else "running"
        work.status.update(f"{kind} fold {fold + 1} of {count}{told}")
        if not work.console.is_terminal:
            work.console.print(f"fold {fold + 1} of {count}{told}")

    found = cross_validate(
        work.runs,
        key=jax.random.key(work.seed),
        config=work.config,
        n_folds=work.n_folds,
        horizon=work.ahead.steps[-1],
        mech_model=mechanism,
        on_fold=tell,
        process=work.process,
        step_h=work.ahead.step_h,
    )
    return judged(at_steps(found, work.ahead.steps), work.ahead)


def _write(out: Path, found: _Outcome, subject: Subject) -> None:
    """Scores, card, summary, model with its verdict, and figures."""
    judgement, model = found.judgement, found.model
    out.mkdir(parents=True, exist_ok=True)
    write_scores(judgement, model.layout, out / "scores.csv")
    card = model_card(subject, judgement)
    (out / "model_card.md").write_text(fit_to_show(card), encoding="utf-8")
    verdict = judgement.verdict
    summary = summary_of(judgement, model.layout)
    if model.layout.process is not None:
        summary |= _of_culture(model.layout, model, found)
    summary["verdict"] = verdict.as_dict()
    (out / "summary.json").write_text(json.dumps(summary, indent=1) + "\n", encoding="utf-8")
    write_verdict(verdict, model, save(model, out / "model"))
    write_figures(judgement, model.layout, out / "figures")


def _of_culture(layout: Layout, model: HybridStateSpaceModel, found: _Outcome) -> dict[str, Any]:
    kinetics = model.mech_model.kinetics
    return {
        "culture": "" if layout.process is None else layout.process.name,
        "mechanism": "none" if kinetics is None else type(kinetics).__name__,
        "mechanisms_compared": {name: round(v, 5) for name, v in found.scores.items()},
        "never_measured": [layout.face[k] for k in layout.latent],
    }


def validation_card(judgement: Judged, layout: Layout, n_folds: int, *, source: str) -> Card:
    """What a validation concludes.

    Args:
        judgement: Forecasts of runs left out.
        layout: Of the model.
        n_folds: How often runs were left out.
        source: What was validated on.
    """
    validation, ahead, scores, beside = judgement
    last = len(ahead.steps) - 1
    steps = sorted({0, min(2, last), last}) if ahead.in_days else list(range(last + 1))[-5:]
    rows: list[tuple[str, ...]] = []
    for name in shown_names(layout):
        k = validation.names.index(name)
        values = (with_nothing(scores.rrmse[h, k], beside.nothing_changes[h, k]) for h in steps)
        rows.append((name, *values))
    for row, level in enumerate((80, 95)):
        rows.append((f"in {level} %", *(share(scores, row, h) for h in steps)))
    heads = ("species", *(f"{ahead.texts[h]} {ahead.unit} ahead" for h in steps))
    title = f"{n_folds} folds, runs left out: rRMSE (in brackets: nothing changes)"
    table = Table(title, heads, tuple(rows), tuple(range(1, len(heads))))
    about = f"Forecasts of runs left out, {source}"
    return Card("validate", about, (judgement.verdict.line(),), (), (table,), source)
