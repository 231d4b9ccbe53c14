"""PEtab problems (version 1) as a culture, its mechanism with priors, and recorded runs.

Conditions become runs: what they set of parameters are set-points, what they set of species is
where a run starts. Measurements become readings. What a problem says beyond that is refused or told
in words.
"""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from perfusio_jax._core import HOURS_PER_DAY, ConfigError, DataError
from perfusio_jax.process import Control, Process, Quantity
from perfusio_jax.simulator import virtual_plant
from perfusio_jax.states import Trajectory
from perfusio_jax.study import described_experiment

from .petab_writing import petab_problem, require_petab
from .rates import plain_name
from .sbml_reading import ReadModel, read_sbml
from .sbml_writing import START_VOLUME, at_interval, begins

_LN10 = math.log(10.0)
_USUAL_CV = 0.07


class ReadProblem(NamedTuple):
    """What was read."""

    model: ReadModel
    """The culture and its mechanism; constants at their nominal values, with priors."""
    runs: tuple[Trajectory, ...]
    """One for each condition that was measured."""
    sought: tuple[str, ...]
    """Constants that the problem asks for."""
    remarks: tuple[str, ...]
    """What was assumed or left out."""


class _Assay(NamedTuple):
    """An observable that is a quantity."""

    quantity: str
    cv: float
    floor: float


def read_petab(path: Path) -> ReadProblem:
    """Read a problem.

    Args:
        path: Its YAML file.

    Raises:
        ConfigError: If a library is missing.
        DataError: If it cannot be read, or has something that cannot be taken; it is named.
    """
    require_petab()
    if not path.is_file():
        raise DataError(f"{path} does not exist.")
    import petab.v1 as petab

    try:
        found = petab_problem(path)
        model_file = _model_file(petab.load_yaml(str(path)), path)
    except (ValueError, KeyError, OSError, AttributeError, TypeError) as error:
        raise DataError(f"{path} is no PEtab problem of version 1: {error}.") from None
    try:
        return _Reader(found, model_file).read()
    except ConfigError as error:
        raise DataError(f"{path}: {error}") from None


def _model_file(told: Mapping[str, Any], path: Path) -> Path:
    if str(told.get("format_version", "1"))[:1] != "1":
        raise ValueError(f"format_version {told['format_version']}; version 1 is read")
    problems = told["problems"]
    if len(problems) != 1:
        raise ValueError(f"it holds {len(problems)} problems; one is read")
    files = problems[0].get("sbml_files") or [
        m["location"] for m in (problems[0].get("model_files") or {}).values()
    ]
    if len(files) != 1:
        raise ValueError(f"it names {len(files)} models; one is read")
    return path.parent / files[0]


def _rows(table: Any) -> list[dict[str, Any]]:
    return [] if table is None else table.reset_index().to_dict("records")


def _is_blank(value: Any) -> bool:
    return value is None or (isinstance(value, float) and math.isnan(value)) or value == ""


class _Reader:
    """Reads one problem."""

    def __init__(self, found: Any, model_file: Path) -> None:
        self.model_file = model_file
        self.conditions = {r["conditionId"]: r for r in _rows(found.condition_df)}
        self.parameters = {r["parameterId"]: r for r in _rows(found.parameter_df)}
        self.observables = {r["observableId"]: r for r in _rows(found.observable_df)}
        self.measurements = _rows(found.measurement_df)
        self.remarks: list[str] = []
        self._refuse()
        self.columns = [
            n
            for n in next(iter(self.conditions.values()))
            if n not in ("conditionId", "conditionName", "index")
        ]

    def _refuse(self) -> None:
        if not self.conditions or not self.measurements:
            raise ConfigError("it has no condition or no measurement.")
        for row in self.measurements:
            if not _is_blank(row.get("preequilibrationConditionId")):
                raise ConfigError(
                    "it lets a model come to rest first (preequilibrationConditionId), which a "
                    "run here does not; give starts instead."
                )
            if not _is_blank(row.get("observableParameters")):
                raise ConfigError(
                    f"measurements of {row['observableId']} have parameters of their own "
                    "(observableParameters); scales and offsets are not taken."
                )
            if not math.isfinite(float(row["time"])):
                raise ConfigError("a measurement is at the time inf, a steady state; runs end.")

    def read(self) -> ReadProblem:
        """Put it together."""
        plain = read_sbml(self.model_file, priors=self._priors())
        self.remarks += plain.remarks
        if plain.is_ours:
            model, runs = self._ours(plain)
        else:
            model, runs = self._other()
        sought = tuple(n for n, r in self.parameters.items() if int(r["estimate"]))
        model = self._at_nominal(model)
        return ReadProblem(model, tuple(runs), sought, tuple(dict.fromkeys(self.remarks)))

    def _value(self, cell: Any) -> float:
        """A number, or that of a parameter."""
        if isinstance(cell, str):
            if cell in self.parameters:
                return float(self.parameters[cell]["nominalValue"])
            try:
                return float(cell)
            except ValueError:
                raise ConfigError(f"{cell!r} in the conditions is no parameter.") from None
        return float(cell)

    def _priors(self) -> dict[str, tuple[str, float]]:
        found = {}
        for name, row in self.parameters.items():
            if not int(row["estimate"]):
                continue
            prior = _prior_of(row)
            if prior is None:
                self.remarks.append(f"{name} has bounds that say nothing; its prior is unknown")
            else:
                found[name] = prior
        return found

    def _at_nominal(self, model: ReadModel) -> ReadModel:
        from perfusio_jax.mechanistic.mechanism import told_constants, with_constants

        known = told_constants(model.mechanism)
        values = {
            n: float(r["nominalValue"])
            for n, r in self.parameters.items()
            if n in known and not _is_blank(r.get("nominalValue"))
        }
        lost = [n for n in self.parameters if n not in known and self._is_of_model(n)]
        if lost:
            self.remarks.append(f"{', '.join(lost)}: no rate depends on them")
        return model._replace(mechanism=with_constants(model.mechanism, values))

    def _is_of_model(self, name: str) -> bool:
        cells = {c for r in self.conditions.values() for c in r.values() if isinstance(c, str)}
        return name not in cells

    # ------------------------------------------------------------------ a problem of ours

    def _ours(self, model: ReadModel) -> tuple[ReadModel, list[Trajectory]]:
        process = model.process
        known = {plain_name(q.name): q for q in process.quantities if q.is_measured}
        assays = {}
        for name, row in self.observables.items():
            quantity = known.get(str(row["observableFormula"]))
            if quantity is None:
                self._left_out(name, row)
                continue
            assays[name] = _Assay(quantity.name, quantity.cv, quantity.floor)
        runs = []
        for name, row in self.conditions.items():
            times, readings = self._readings(name, assays, process)
            if times.size == 0:
                continue
            controls = np.stack(
                [self._control_at(row, c.name, times, model) for c in process.controls], axis=1
            ).reshape(times.size, len(process.controls))
            start = float(self._value(row.get(START_VOLUME, model.volume_L)))
            volumes = np.full(times.size, start)
            if process.may_move:
                volumes = self._volumes(model, row, times, controls)
            runs.append(_run(name, process, times, readings, controls, volumes))
        return model, runs

    def _volumes(
        self, model: ReadModel, row: Mapping[str, Any], times: np.ndarray, controls: np.ndarray
    ) -> np.ndarray:
        """Volumes at the samples [L], as flows make them; nobody recorded any."""
        plant = virtual_plant(model.process, model.mechanism)
        begun = {
            n: self._value(row.get(f"start_{plain_name(n)}", v)) for n, v in model.start.items()
        }
        first = self._value(row.get(START_VOLUME, model.volume_L)) + model.sample_L
        run = described_experiment(
            plant,
            times,
            controls=controls[:-1],
            start=begun,
            volume_L=first,
            sample_L=model.sample_L,
        )
        found = np.asarray(run.course().values)[:, -1]
        if not np.all(np.isfinite(found)):
            raise ConfigError(f"run {row['conditionId']} of the model does not get to its end.")
        self.remarks.append("volumes of runs are those of the model; a problem records none")
        return found

    def _control_at(
        self, row: Mapping[str, Any], name: str, times: np.ndarray, model: ReadModel
    ) -> np.ndarray:
        """A control from each time on; a bolus at its own time only."""
        first = at_interval(name, 0)
        if first not in row:
            fixed = model.schedule.get(name, [(0.0, math.nan)])
            if name in row:
                return np.full(times.size, self._value(row[name]))
            table = [(t, v) for t, v in fixed]
        else:
            table = [(0.0, self._value(row[first]))]
            k = 1
            while at_interval(name, k) in row:
                when = self._value(row[begins(k)])
                table.append((when, self._value(row[at_interval(name, k)])))
                k += 1
        is_bolus = model.process.control(name).role == "bolus"
        if is_bolus:
            given = {round(t, 9): v for t, v in table}
            return np.array([given.get(round(float(t), 9), 0.0) for t in times])
        at = np.searchsorted([t for t, _ in table], times + 1e-9, side="right") - 1
        return np.array([table[k][1] for k in at])

    # ------------------------------------------------------------------ another's problem

    def _other(self) -> tuple[ReadModel, list[Trajectory]]:
        bare = read_sbml(self.model_file)
        states = {q.name for q in bare.process.quantities}
        starts = [n for n in self.columns if plain_name(n) in states]
        steered = [n for n in self.columns if n not in starts]
        model = read_sbml(self.model_file, controls=steered, priors=self._priors())
        assays = {}
        for name, row in self.observables.items():
            formula = plain_name(str(row["observableFormula"]))
            if formula not in states:
                self._left_out(name, row)
                continue
            assays[name] = _Assay(formula, *self._noise(name, row))
        if not assays:
            raise ConfigError(
                "no observable is a state of the model by itself; functions of states are not "
                "taken."
            )
        process = self._with_assays(model.process, assays, steered)
        usual = dict(model.start)
        runs = []
        for name, row in self.conditions.items():
            times, readings = self._readings(name, assays, process)
            if times.size == 0:
                continue
            for column in starts:
                value = self._value(row[column])
                place = process.readings.index(plain_name(column))
                if math.isfinite(value) and value != usual[plain_name(column)]:
                    readings[0, place] = value
                    self.remarks.append("starts that conditions set stand as first readings")
            values = [
                self._value(row[c]) if c in row else model.schedule[c][0][1]
                for c in process.control_names
            ]
            controls = np.tile(np.array(values, float), (times.size, 1))
            volumes = np.full(times.size, model.volume_L)
            runs.append(_run(name, process, times, readings, controls, volumes))
        return model._replace(process=process), runs

    def _noise(self, name: str, row: Mapping[str, Any]) -> tuple[float, float]:
        """Coefficient of variation and floor of an assay."""
        sd = self._noise_number(name, row)
        kind = str(row.get("observableTransformation") or "lin")
        if sd is None:
            self.remarks.append(f"the noise of {name} is a formula; {_USUAL_CV:.0%} is assumed")
            return _USUAL_CV, 0.0
        if kind == "lin":
            return 0.0, sd
        return min(sd * (_LN10 if kind == "log10" else 1.0), 1.0), 0.0

    def _noise_number(self, name: str, row: Mapping[str, Any]) -> float | None:
        text = str(row["noiseFormula"])
        if text.startswith("noiseParameter"):
            told = {str(m.get("noiseParameters")) for m in self.measurements_of(name)}
            if len(told) != 1:
                return None
            text = told.pop()
        try:
            return self._value(text) if text in self.parameters else float(text)
        except ValueError:
            return None

    def measurements_of(self, observable: str) -> list[dict[str, Any]]:
        """Measurements of one observable."""
        return [m for m in self.measurements if m["observableId"] == observable]

    def _left_out(self, name: str, row: Mapping[str, Any]) -> None:
        n = len(self.measurements_of(name))
        self.remarks.append(
            f"observable {name} ({row['observableFormula']}) is no quantity by itself; its {n} "
            "measurement(s) are left out"
        )

    @staticmethod
    def _with_assays(
        process: Process, assays: Mapping[str, _Assay], steered: Sequence[str]
    ) -> Process:
        by_quantity = {a.quantity: a for a in assays.values()}
        quantities: list[Quantity] = []
        for q in process.quantities:
            one = by_quantity.get(q.name)
            told = {"is_measured": one is not None}
            quantities.append(
                q.model_copy(
                    update=told if one is None else {**told, "cv": one.cv, "floor": one.floor}
                )
            )
        controls: list[Control] = list(process.controls)
        return process.model_copy(
            update={"quantities": tuple(quantities), "controls": tuple(controls)}
        )

    def _readings(
        self, condition: str, assays: Mapping[str, _Assay], process: Process
    ) -> tuple[np.ndarray, np.ndarray]:
        """Times from the start on, and what was read; of several readings at a time the mean."""
        own = [
            m
            for m in self.measurements
            if m["simulationConditionId"] == condition and m["observableId"] in assays
        ]
        if not own:
            return np.zeros(0), np.zeros((0, len(process.readings)))
        times = np.unique([0.0, *(float(m["time"]) for m in own)])
        found: dict[tuple[int, int], list[float]] = {}
        for m in own:
            quantity = assays[m["observableId"]].quantity
            at = int(np.searchsorted(times, float(m["time"])))
            place = (at, process.readings.index(quantity))
            found.setdefault(place, []).append(float(m["measurement"]))
        table = np.full((times.size, len(process.readings)), np.nan)
        for place, values in found.items():
            table[place] = float(np.mean(values))
        if any(len(v) > 1 for v in found.values()):
            self.remarks.append("several readings of one time count as one, their mean")
        return times, table


def _run(
    name: str,
    process: Process,
    times: np.ndarray,
    readings: np.ndarray,
    controls: np.ndarray,
    volume_L: np.ndarray,
) -> Trajectory:
    return Trajectory(
        species=readings,
        controls=controls,
        volume_L=volume_L,
        days=np.floor(times / HOURS_PER_DAY).astype(int),
        species_names=process.readings,
        control_names=process.control_names,
        run_id=name,
        times_h=times,
    )


def _prior_of(row: Mapping[str, Any]) -> tuple[str, float] | None:
    """What a parameter's row says of its uncertainty, as a normal law of it or its logarithm."""
    kind, told = row.get("objectivePriorType"), row.get("objectivePriorParameters")
    scale = str(row.get("parameterScale") or "lin")
    unit = {"log10": _LN10, "log": 1.0}.get(scale, 1.0)
    is_log = scale in ("log10", "log")
    if not _is_blank(kind) and not _is_blank(told):
        a, b = (float(v) for v in str(told).split(";"))
        if kind in ("logNormal", "logLaplace"):
            return "log_sd", b * (math.sqrt(2.0) if kind == "logLaplace" else 1.0)
        if kind in ("normal", "laplace"):
            return "sd", b * (math.sqrt(2.0) if kind == "laplace" else 1.0)
        if kind in ("parameterScaleNormal", "parameterScaleLaplace"):
            width = b * unit * (math.sqrt(2.0) if kind.endswith("Laplace") else 1.0)
            return ("log_sd" if is_log else "sd"), width
        if kind == "uniform":
            return "sd", (b - a) / math.sqrt(12.0)
        if kind == "parameterScaleUniform":
            return ("log_sd" if is_log else "sd"), (b - a) * unit / math.sqrt(12.0)
    lower, upper = float(row.get("lowerBound", math.nan)), float(row.get("upperBound", math.nan))
    if is_log and 0.0 < lower < upper < math.inf:
        return "log_sd", math.log(upper / lower) / math.sqrt(12.0)
    if not is_log and math.isfinite(lower) and math.isfinite(upper) and lower < upper:
        return "sd", (upper - lower) / math.sqrt(12.0)
    return None
