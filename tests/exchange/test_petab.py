"""Problems of calibration as PEtab: its own checks, its own likelihood, and the way back."""

import jax
import numpy as np
import pytest

from perfusio_jax._core import DataError
from perfusio_jax.exchange import is_sound, read_petab, write_petab
from perfusio_jax.exchange.petab_writing import in_old_words, petab_problem
from perfusio_jax.exchange.rates import plain_name
from perfusio_jax.simulator import simulate_runs, virtual_plant
from perfusio_jax.study import choose_levers, described_experiment, records_of
from perfusio_jax.study.identifiability.records import assay_sd
from tests.study.cultures import fed_batch

pytest.importorskip("petab", reason="petab is not installed (extra exchange)")
pytest.importorskip("libsbml", reason="python-libsbml is not installed (extra exchange)")


@pytest.fixture(scope="module")
def problem(tmp_path_factory):
    run = fed_batch()
    rng = np.random.default_rng(0)
    controls = np.asarray(run.controls) * rng.uniform(0.8, 1.2, (2, *run.controls.shape))
    controls[:, 0, 1] = 0.0
    starts = np.tile(np.asarray(run.start), (2, 1))
    key = jax.random.key(0)
    runs = simulate_runs(run.plant, starts, controls, run.hours, key=key, noise=True)
    folder = tmp_path_factory.mktemp("petab")
    return run, runs, write_petab(run, runs, folder / "fixed"), folder


def test_its_own_checks_find_nothing_wrong(problem):
    run, runs, written, folder = problem
    assert written.n_measurements == 2 * 4 * 2 and written.n_parameters == 3
    assert not written.remarks
    assert is_sound(written.problem)
    free = write_petab(run, runs, folder / "free", constants=["mu_max"], free_starts=True)
    assert free.n_parameters == 1 + 2 * 2
    assert is_sound(free.problem)


def test_a_broken_problem_is_found(problem, tmp_path):
    run, runs, _, _ = problem
    written = write_petab(run, runs, tmp_path)
    table = tmp_path / "measurements.tsv"
    table.write_text(table.read_text().replace("read_X", "read_Y"))
    assert not is_sound(written.problem)


def test_petab_computes_the_likelihood_we_compute(problem):
    import petab.v1 as petab

    run, runs, written, _ = problem
    records = records_of(run, runs)
    theirs = petab_problem(written.problem)
    model = [
        np.asarray(run.of_run(*(v[r] for v in records[:4])).course().values)[:, :2]
        for r in range(2)
    ]
    hours = np.concatenate([[0.0], np.cumsum(np.asarray(records.lengths_h[0]))])
    simulated = theirs.measurement_df.rename(columns={"measurement": "simulation"}).copy()
    place = {"read_X": 0, "read_S": 1}
    simulated["simulation"] = [
        model[int(row.simulationConditionId[-1]) - 1][
            int(np.searchsorted(hours, row.time - 1e-9)), place[row.observableId]
        ]
        for row in simulated.itertuples()
    ]
    # its calculator knows observables in a noise formula, its checks know states
    seen = theirs.observable_df.copy()
    seen["noiseFormula"] = seen["noiseFormula"].str.replace(r"\b([XS])\b", r"read_\1", regex=True)
    with in_old_words():
        found = petab.calculate_llh(theirs.measurement_df, simulated, seen, theirs.parameter_df)
    ours = 0.0
    for r in range(2):
        sd = np.asarray(assay_sd(run.assays, jax.numpy.asarray(model[r])))
        z = (np.asarray(records.readings[r]) - model[r]) / sd
        ours += float(np.sum(-0.5 * z**2 - np.log(sd) - 0.5 * np.log(2.0 * np.pi)))
    np.testing.assert_allclose(found, ours, rtol=1e-10)


def test_a_problem_comes_back_as_culture_runs_and_priors(problem):
    run, runs, written, _ = problem
    read = read_petab(written.problem)
    assert read.model.process == run.plant.process
    assert read.sought == ("mu_max", "K_S", "yield_XS")
    for old, new in zip(runs, read.runs, strict=True):
        assert old.run_id == new.run_id
        np.testing.assert_allclose(new.species, old.species, rtol=1e-14)
        np.testing.assert_allclose(new.controls[:-1], old.controls[:-1], rtol=1e-14)
        np.testing.assert_allclose(new.times_h, old.times_h)
    plant = virtual_plant(read.model.process, read.model.mechanism)
    again = described_experiment(plant, run.hours)
    laws = {v.name: again.usual_law(v) for v in again.levers}
    for lever in choose_levers(run, ("constants",)):
        law, back = run.usual_law(lever), laws[plain_name(lever.name)]
        assert back.is_log == law.is_log
        np.testing.assert_allclose([back.a, back.b], [law.a, law.b], rtol=1e-12)


FOREIGN = """<?xml version="1.0" encoding="UTF-8"?>
<sbml xmlns="http://www.sbml.org/sbml/level3/version1/core" level="3" version="1">
  <model id="decay">
    <listOfCompartments>
      <compartment id="flask" size="1" constant="true" spatialDimensions="3"/>
    </listOfCompartments>
    <listOfSpecies><species id="A" compartment="flask" initialConcentration="3"
      hasOnlySubstanceUnits="false" boundaryCondition="false" constant="false"/></listOfSpecies>
    <listOfParameters>
      <parameter id="k" value="0.5" constant="true"/>
      <parameter id="warmth" value="1" constant="true"/>
    </listOfParameters>
    <listOfRules><rateRule variable="A"><math xmlns="http://www.w3.org/1998/Math/MathML">
      <apply><times/><apply><minus/><ci>k</ci></apply><ci>warmth</ci><ci>A</ci></apply></math>
    </rateRule></listOfRules>
  </model>
</sbml>"""
TABLES = {
    "conditions.tsv": "conditionId\twarmth\tA\ncold\t1\t3\nwarm\t2\t4\n",
    "observables.tsv": "observableId\tobservableFormula\tnoiseFormula\n"
    "seen\tA\t0.1\ntwice\t2*A\t0.1\n",
    "measurements.tsv": "observableId\tsimulationConditionId\tmeasurement\ttime\n"
    "seen\tcold\t1.8\t1\nseen\tcold\t2.0\t1\nseen\twarm\t1.5\t1\ntwice\twarm\t3.1\t1\n",
    "parameters.tsv": "parameterId\tparameterScale\tlowerBound\tupperBound\tnominalValue\t"
    "estimate\nk\tlog10\t0.01\t10\t0.4\t1\n",
}


def _foreign(folder, **changed):
    (folder / "model.xml").write_text(FOREIGN)
    for name, text in {**TABLES, **changed}.items():
        (folder / name).write_text(text)
    path = folder / "problem.yaml"
    path.write_text(
        "format_version: 1\nparameter_file: parameters.tsv\nproblems:\n- sbml_files: [model.xml]\n"
        "  condition_files: [conditions.tsv]\n  observable_files: [observables.tsv]\n"
        "  measurement_files: [measurements.tsv]\n"
    )
    return path


def test_a_problem_of_others_is_taken_and_what_is_not_is_told(tmp_path):
    read = read_petab(_foreign(tmp_path))
    process = read.model.process
    assert process.control_names == ("warmth",) and process.readings == ("A",)
    assert process.quantity("A").floor == 0.1
    assert float(read.model.mechanism.k) == 0.4
    told = " ".join(read.remarks)
    assert "twice" in told and "1 measurement(s) are left out" in told and "mean" in told
    cold, warm = read.runs
    np.testing.assert_allclose(np.ravel(cold.species), [np.nan, 1.9])
    np.testing.assert_allclose(np.ravel(warm.species), [4.0, 1.5])
    np.testing.assert_allclose(np.ravel(warm.controls), [2.0, 2.0])
    run = described_experiment(virtual_plant(process, read.model.mechanism), [0.0, 1.0])
    law = run.usual_law(choose_levers(run, ["k"])[0])
    np.testing.assert_allclose(law.b, np.log(1000.0) / np.sqrt(12.0))


def test_what_a_run_cannot_do_is_refused_by_name(tmp_path):
    header = "observableId\tsimulationConditionId\tmeasurement\ttime\t"
    rest = "preequilibrationConditionId\nseen\tcold\t1.8\t1\twarm\n"
    with pytest.raises(DataError, match="preequilibrationConditionId"):
        read_petab(_foreign(tmp_path, **{"measurements.tsv": header + rest}))
    with pytest.raises(DataError, match="does not exist"):
        read_petab(tmp_path / "lost.yaml")
    (tmp_path / "odd.yaml").write_text("format_version: 9\n")
    with pytest.raises(DataError, match="no PEtab problem"):
        read_petab(tmp_path / "odd.yaml")
