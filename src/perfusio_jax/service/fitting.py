"""`perfusio-jax fit`: a campaign table in, a model with a verdict out."""

from pathlib import Path
from typing import Any

from perfusio_jax.connectors import completed, named_mechanism, read_culture
from perfusio_jax.connectors.files.parts import Tables
from perfusio_jax.connectors.tables.file_rules import FileRules
from perfusio_jax.hybrid import Fitted, fitted_best, save, write_verdict


def fit_table(
    campaign: Tables,
    out: Path,
    *,
    seed: int,
    fill_down: bool,
    culture: str | None,
    mechanism: str | None,
    console: Any,
    rules: FileRules | None = None,
) -> None:
    """Fit a model to a campaign table and save it.

    Args:
        campaign: The table, several, or a folder of them.
        out: Folder for the model.
        seed: Random seed.
        fill_down: Whether a blank set-point means that the one before it stayed.
        culture: Which culture; see `read_culture`.
        mechanism: Which mechanism, of a culture that is described.
        console: Where to print.
        rules: How the table is read.
    """
    named = named_mechanism(mechanism)
    table = read_culture(campaign, culture, rules)
    runs = completed(table, fill_down=fill_down, console=console)
    with console.status("fitting") as status:
        fitted = fitted_best(
            runs,
            table.process,
            seed=seed,
            mechanism=named,
            say=lambda text: status.update(text),
        )
    for line in fitted[1]:
        console.print(line, soft_wrap=True)
    _save(fitted[0], out, len(runs), console)


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
    console.print(f"model: {out}", soft_wrap=True)
