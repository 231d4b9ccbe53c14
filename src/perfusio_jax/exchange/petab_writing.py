"""A problem of calibration as PEtab (version 1): a model, its runs, and what is sought.

The model is SBML; each run is a condition with its own start, set-points and times of changes.
Readings are measurements, with the assay's own error as their noise. Constants are parameters with
their priors.
"""

import csv
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from perfusio_jax._core import ConfigError, DataError
from perfusio_jax.states import Trajectory
from perfusio_jax.study import Experiment, Lever, Records, choose_levers, records_of
from perfusio_jax.study.identifiability.records import assay_sd

from .formulas import Book
from .mathml import to_tree
from .rates import AGE, RateModel, Steered, plain_name, rate_model
from .sbml_writing import START_VOLUME, at_interval, begins, write_sbml
from .tracing import Tracer

MODEL, CONDITIONS, OBSERVABLES, MEASUREMENTS, PARAMETERS, PROBLEM = (
    "model.xml",
    "conditions.tsv",
    "observables.tsv",
    "measurements.tsv",
    "parameters.tsv",
    "problem.yaml",
)
_BOUND: Final = 4.0
"""Prior standard deviations at which a constant is bounded."""
_START_WIDTH: Final = 1.0
"""Prior standard deviation of the logarithm of a start that is sought [-]; nearly none."""

Row = dict[str, Any]


class WrittenProblem(NamedTuple):
    """What was written."""

    problem: Path
    """The file that names the others."""
    n_measurements: int
    n_parameters: int
    remarks: tuple[str, ...]
    """What could not be said in it."""


def require_petab() -> None:
    """Refuse to go on without the PEtab library.

    Raises:
        ConfigError: If it is not installed.
    """
    if find_spec("petab") is None or find_spec("libsbml") is None:
        raise ConfigError(
            "PEtab is read and checked by petab and python-libsbml, which are not installed: "
            "pip install 'perfusio-jax[exchange]'."
        )


def write_petab(
    experiment: Experiment,
    runs: Sequence[Trajectory],
    folder: Path,
    *,
    constants: Sequence[str] | None = None,
    free_starts: bool = False,
    name: str = "",
) -> WrittenProblem:
    """Write a problem of calibration.

    Args:
        experiment: The plant, any run of it.
        runs: Recorded runs, with the plant's controls among their columns.
        folder: Where its six files go.
        constants: What is sought; all that have a prior if None.
        free_starts: Whether starts are sought too; else a run starts at its first sample.
        name: What to call the model.

    Returns:
        What was written, and what could not be.

    Raises:
        ConfigError: If a library is missing, a constant is unknown or has no prior, or the
            mechanism uses what cannot be written down.
        DataError: If the runs do not fit the plant, or two have one name.
    """
    require_petab()
    usable = [run for run in runs if run.n_days >= 2]
    records = records_of(experiment, usable)
    ids = _run_names(usable)
    levers = choose_levers(experiment, constants or ("constants",))
    model = _widest(experiment, records, name)
    folder.mkdir(parents=True, exist_ok=True)
    write_sbml(model, folder / MODEL)
    conditions = [_condition(model, records, r, run) for r, run in enumerate(ids)]
    parameters = [_parameter(experiment, model, lever) for lever in levers]
    if free_starts:
        parameters += _free_starts(model, conditions)
    measured, lost = _measurements(experiment, records, ids)
    _write(folder / CONDITIONS, conditions)
    _write(folder / OBSERVABLES, _observables(experiment, model))
    _write(folder / MEASUREMENTS, measured)
    _write(folder / PARAMETERS, parameters)
    _write_problem(folder)
    remarks = []
    if lost:
        remarks.append(
            f"{lost} limit(s) of assays (< or >) are left out: PEtab has readings alone."
        )
    if _gives_at_start(model, records):
        remarks.append(
            "a bolus at the first sample is part of the start: a reading of it at that time is "
            "compared with what is there after the bolus."
        )
    if len(usable) < len(runs):
        remarks.append(f"{len(runs) - len(usable)} run(s) of one sample are left out.")
    return WrittenProblem(folder / PROBLEM, len(measured), len(parameters), tuple(remarks))


def is_sound(problem: Path) -> bool:
    """Whether PEtab's own checks find nothing wrong with a problem.

    Args:
        problem: Its YAML file.

    Raises:
        ConfigError: If the library is missing.
    """
    require_petab()
    import petab.v1 as petab

    found = petab_problem(problem)
    with in_old_words():  # it returns whether something is wrong
        return not petab.lint_problem(found)


def petab_problem(path: Path) -> Any:
    """A problem as the PEtab library has it.

    Args:
        path: Its YAML file.

    Raises:
        ConfigError: If the library is missing.
    """
    require_petab()
    import petab.v1 as petab

    with in_old_words():
        return petab.Problem.from_yaml(str(path))


@contextmanager
def in_old_words() -> Iterator[None]:
    """For calls of the PEtab library, which speaks to pandas in words that pandas gives up."""
    with warnings.catch_warnings():
        for kind in (DeprecationWarning, FutureWarning):
            warnings.simplefilter("ignore", kind)
        yield


def _run_names(runs: Sequence[Trajectory]) -> list[str]:
    names = [plain_name(run.run_id) for run in runs]
    twice = sorted({n for n in names if names.count(n) > 1})
    if twice:
        raise DataError(
            f"runs are called {', '.join(twice)} more than once, in letters, digits and "
            "underscores; PEtab needs names that differ."
        )
    return names


def _widest(experiment: Experiment, records: Records, name: str) -> RateModel:
    """The model of the first run, with every control steered that changes within any."""
    one = experiment.of_run(*(v[0] for v in records[:4]))
    model = rate_model(one, name=name)
    tables = np.asarray(records.controls)
    kept: list[Steered] = []
    for k, control in enumerate(model.steered):
        if control.name == AGE:
            kept.append(control._replace(is_constant=False))
            continue
        is_constant = bool(np.all(tables[:, :, k] == tables[:, :1, k]))
        kept.append(control._replace(is_constant=is_constant))
    return model._replace(steered=tuple(kept))


def _condition(model: RateModel, records: Records, r: int, run: str) -> Row:
    row: Row = {"conditionId": run}
    starts, table = np.asarray(records.start[r]), np.asarray(records.controls[r])
    hours = np.concatenate([[0.0], np.cumsum(np.asarray(records.lengths_h[r]))])
    for held, value in zip(model.held, starts, strict=True):
        row[f"start_{held.name}"] = float(value)
    row[START_VOLUME] = float(records.volume_L[r])
    for k, control in enumerate(model.steered):
        middles = 0.5 * (hours[1:] + hours[:-1])
        values = middles if control.name == AGE else table[:, k]
        if control.is_constant:
            row[control.name] = float(values[0])
        else:
            row |= {at_interval(control.name, t): float(v) for t, v in enumerate(values)}
    if model.has_jumps or any(not c.is_constant for c in model.steered):
        row |= {begins(t): float(hours[t]) for t in range(1, hours.size - 1)}
    return row


def _gives_at_start(model: RateModel, records: Records) -> bool:
    first = np.asarray(records.controls[:, 0])
    n = first.shape[1]
    acts = (np.any(model.bolus != 0.0, axis=0) | (model.bolus_L != 0.0))[:n]
    return bool(np.any(first[:, acts] != 0.0))


def _parameter(experiment: Experiment, model: RateModel, lever: Lever) -> Row:
    law = experiment.usual_law(lever)
    name = next(c.name for c in model.constants if c.lever == lever.name)
    value = float(np.asarray(experiment.lever_values((lever,)))[0])
    if law is None:
        raise ConfigError(
            f"{lever.name} has no prior, so nobody could bound it; leave it out (--only names the "
            "others), or give it one where its mechanism declares it."
        )
    if law.is_log:
        ends = value * np.exp([-_BOUND * law.b, _BOUND * law.b])
        return _row(name, lever.name, "log10", ends, value, ("logNormal", law.a, law.b))
    if law.is_normal:
        ends = np.array([value - _BOUND * law.b, value + _BOUND * law.b])
        return _row(name, lever.name, "lin", ends, value, ("normal", law.a, law.b))
    ends = np.array([law.a, law.a + law.b])
    return _row(name, lever.name, "lin", ends, value, ("uniform", *ends))


def _row(
    name: str,
    label: str,
    scale: str,
    ends: np.ndarray,
    value: float,
    prior: tuple[str, float, float],
) -> Row:
    return {
        "parameterId": name,
        "parameterName": label,
        "parameterScale": scale,
        "lowerBound": float(ends[0]),
        "upperBound": float(ends[1]),
        "nominalValue": value,
        "estimate": 1,
        "objectivePriorType": prior[0],
        "objectivePriorParameters": f"{prior[1]!r};{prior[2]!r}",
    }


def _free_starts(model: RateModel, conditions: list[Row]) -> list[Row]:
    """Parameters for what runs start with, put into the conditions in place of the numbers."""
    found = []
    for row in conditions:
        for held in model.held:
            key = f"start_{held.name}"
            value = row[key]
            if not value > 0.0:  # a factor changes nothing
                continue
            name = f"{key}_{row['conditionId']}"
            ends = value * np.exp([-_BOUND * _START_WIDTH, _BOUND * _START_WIDTH])
            prior = ("logNormal", float(np.log(value)), _START_WIDTH)
            label = f"{held.name} at the start of {row['conditionId']}"
            found.append(_row(name, label, "log10", ends, value, prior))
            row[key] = name
    return found


def _observables(experiment: Experiment, model: RateModel) -> list[Row]:
    """Assays with their errors, traced from the function that likelihoods are made of."""
    by_column = {s.column: s for s in model.shown}
    book = Book()
    symbols = np.empty(len(experiment.assays), object)
    for k, assay in enumerate(experiment.assays):
        symbols[k] = book.name(by_column[assay.column].name)

    def noise(values: Float[Array, " A"]) -> Array:
        return jnp.asarray(assay_sd(experiment.assays, values))

    errors = Tracer(book).formulas(noise, symbols)[0]
    import libsbml

    return [
        {
            "observableId": f"read_{by_column[assay.column].name}",
            "observableName": assay.column,
            "observableFormula": by_column[assay.column].name,
            "noiseFormula": libsbml.formulaToL3String(to_tree(errors[k])),
            "noiseDistribution": "normal",
            "observableTransformation": "lin",
        }
        for k, assay in enumerate(experiment.assays)
    ]


def _measurements(
    experiment: Experiment, records: Records, ids: Sequence[str]
) -> tuple[list[Row], int]:
    readings, limits = np.asarray(records.readings), np.asarray(records.limits)
    rows = []
    for r, run in enumerate(ids):
        hours = np.concatenate([[0.0], np.cumsum(np.asarray(records.lengths_h[r]))])
        for t, hour in enumerate(hours):
            rows += [
                {
                    "observableId": f"read_{plain_name(assay.column)}",
                    "simulationConditionId": run,
                    "measurement": float(readings[r, t, k]),
                    "time": float(hour),
                }
                for k, assay in enumerate(experiment.assays)
                if np.isfinite(readings[r, t, k])
            ]
    return rows, int(np.sum(np.any(np.isfinite(limits), axis=-1)))


def _write(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]), delimiter="\t", lineterminator="\n")
        writer.writeheader()
        for row in rows:
            writer.writerow({k: repr(v) if isinstance(v, float) else v for k, v in row.items()})


def _write_problem(folder: Path) -> None:
    lines = [
        "format_version: 1",
        f"parameter_file: {PARAMETERS}",
        "problems:",
        f"- sbml_files: [{MODEL}]",
        f"  condition_files: [{CONDITIONS}]",
        f"  observable_files: [{OBSERVABLES}]",
        f"  measurement_files: [{MEASUREMENTS}]",
    ]
    (folder / PROBLEM).write_text("\n".join(lines) + "\n", encoding="utf-8")
