"""`perfusio-jax fit`: a campaign table in, a model with a verdict out."""

from pathlib import Path
from typing import Any

from perfusio_jax._core import ConfigError
from perfusio_jax.connectors import completed, named_mechanism, read_culture
from perfusio_jax.connectors.files.cultures import CultureTable
from perfusio_jax.connectors.files.parts import Tables
from perfusio_jax.connectors.tables.file_rules import FileRules
from perfusio_jax.hybrid import Fitted, HybridConfig, fitted_best, save, write_verdict


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
    posterior: Path | None = None,
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
        posterior: Folder of a posterior, in whose middle the constants of the mechanism stay.

    Raises:
        ConfigError: If the posterior is of another culture or mechanism, or the culture is CHO
            perfusion or of several clones.
    """
    table = read_culture(campaign, culture, rules)
    config = None
    if posterior is None:
        named: Any = named_mechanism(mechanism)
    else:
        named = _calibrated(posterior, table, mechanism)
        config = HybridConfig(calibrate=False)
    runs = completed(table, fill_down=fill_down, console=console)
    with console.status("fitting") as status:
        fitted = fitted_best(
            runs,
            table.process,
            seed=seed,
            mechanism=named,
            config=config,
            say=lambda text: status.update(text),
        )
    for line in fitted[1]:
        console.print(line, soft_wrap=True)
    _save(fitted[0], out, len(runs), console)


def _calibrated(posterior: Path, table: CultureTable, mechanism: str | None) -> Any:
    """The mechanism of a posterior, its constants in the middle of it."""
    if table.process is None:
        raise ConfigError(
            "--posterior of fit is of cultures that are described (--process FILE, or table); a "
            "model of CHO perfusion finds its constants when it is fitted."
        )
    from perfusio_jax.connectors.files.calibrated import (  # here: it brings the samplers along
        calibrated_mechanism,
        refuse_clones,
    )

    refuse_clones(table.trajectories)
    # whether draws are believed is asked where decisions rest on them
    return calibrated_mechanism(posterior, table.process, mechanism, accept_warnings=True)


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
