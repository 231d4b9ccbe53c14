"""Folders of the earlier form of a transfer study, read as campaigns."""

import shutil

import numpy as np
import pytest

from perfusio_jax._core import DataError
from perfusio_jax.connectors.files.study_folder import is_study_folder, read_study_folder
from perfusio_jax.connectors.tables.file_rules import FileRules
from perfusio_jax.embedding import fed_batch_runs
from tests.transfer_table import PRODUCTS, made_up

SPECIES = ("VCD", "Glc", "Gln", "Amm", "Lac", "Titer")
STUDY = made_up()


def as_folder(target, *, mark=".", separator=","):
    """The made-up study as the files of such a folder."""

    def line(cells):
        return separator.join(
            f"{c:.10g}".replace(".", mark) if isinstance(c, float) else str(c) for c in cells
        )

    (target / "runs").mkdir(parents=True)
    conditions = [["run_id", "product", "role", "V0_L", "feed_Glc", "feed_Gln"]]
    for role, runs in zip(("historic", "novel", "test"), STUDY[:3], strict=True):
        for i, product in enumerate(np.asarray(runs.product).tolist()):
            name = f"{role}-{i + 1:03d}"
            feed = runs.fed[i, :, 1] / 400.0
            conditions.append([name, PRODUCTS[product], role, 0.25, 400.0, 120.0])
            rows = [["day", *SPECIES, "feed_L", "sample_L", "temperature", "pH", "stirring"]]
            for day in range(runs.measured.shape[1]):
                drawn = float(runs.volume_before[i, day] - runs.volume_after[i, day])
                values = [*runs.measured[i, day], feed[day], drawn, *runs.controls[i, day]]
                rows.append([day, *(float(v) for v in values)])
            (target / "runs" / f"{name}.csv").write_text("\n".join(map(line, rows)) + "\n")
    (target / "conditions.csv").write_text("\n".join(map(line, conditions)) + "\n")
    return target


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return as_folder(tmp_path_factory.mktemp("study") / "kept")


@pytest.mark.parametrize(("mark", "separator"), [(".", ","), (",", ";")])
def test_a_folder_is_the_study_it_was_written_from(tmp_path, mark, separator):
    place = as_folder(tmp_path / "kept", mark=mark, separator=separator)
    assert is_study_folder(place) and not is_study_folder(place / "runs")
    found = read_study_folder(place)
    assert found.novel == "gamma" and found.tests == ("test-001", "test-002")
    runs = fed_batch_runs(found.trajectories, found.process, species=SPECIES, products=PRODUCTS)
    whole = [np.concatenate(v) for v in zip(*STUDY[:3], strict=True)]
    for name, expected in zip(runs._fields, whole, strict=True):
        ours = np.asarray(getattr(runs, name))
        if name == "volume_after":  # nobody says what the last sample took
            ours, expected = ours[:, :-1], expected[:, :-1]
        np.testing.assert_allclose(ours, expected, rtol=1e-6, atol=1e-9, err_msg=name)


def edited(folder, tmp_path, name, old, new):
    copy = shutil.copytree(folder, tmp_path / "copy")
    path = copy / name
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))
    return copy


@pytest.mark.parametrize(
    ("name", "old", "new", "says"),
    [
        ("conditions.csv", "historic,", "old,", "role 'old'; allowed are historic, novel, test"),
        ("conditions.csv", "alpha,", "gamma,", "none of the historic"),
        ("conditions.csv", "historic-002", "historic-001", "listed twice"),
        ("conditions.csv", "historic-002", "historic-999", "historic-999.csv does not exist"),
        ("conditions.csv", "historic-002", "../secret", "run_id"),
        ("conditions.csv", "V0_L", "volume", "lacks the columns V0_L"),
        ("conditions.csv", "0.25,", "a lot,", "V0_L is 'a lot'"),
        ("conditions.csv", "0.25,", "-1,", "not below 0"),
        ("runs/test-001.csv", "VCD", "cells", "column 'cells' is not known"),
        ("runs/test-001.csv", "pH", "temperature", "more than once|twice"),
        ("runs/test-001.csv", "pH", "acid", "acid"),
        ("runs/test-001.csv", "0.004", "0.9", "more is taken"),
        ("runs/test-001.csv", "0.004", "-1", "negative|below 0"),
        ("runs/test-001.csv", "\n2,", "\n1,", "keep one of the two"),
    ],
)
def test_malformed_folders_are_refused_with_place_and_reason(
    folder, tmp_path, name, old, new, says
):
    with pytest.raises(DataError, match=says):
        read_study_folder(edited(folder, tmp_path, name, old, new))


def test_a_test_run_needs_its_first_sample_whole(folder, tmp_path):
    first = (folder / "runs" / "test-001.csv").read_text().splitlines()[1]
    cells = first.split(",")
    holed = ",".join([cells[0], "", *cells[2:]])
    with pytest.raises(DataError, match="misses a reading on day 0"):
        read_study_folder(edited(folder, tmp_path, "runs/test-001.csv", first, holed))


def test_negative_readings_of_noise_and_gaps_are_kept_as_they_are(folder, tmp_path):
    lines = (folder / "runs" / "novel-001.csv").read_text().splitlines()
    cells = lines[3].split(",")
    cells[1], cells[2] = "-0.013", ""
    changed = edited(folder, tmp_path, "runs/novel-001.csv", lines[3], ",".join(cells))
    runs = {run.run_id: run for run in read_study_folder(changed).trajectories}
    row = runs["novel-001"].host_readings(("VCD", "Glc"))[2]
    assert row[0] == pytest.approx(-0.013) and np.isnan(row[1])


def test_the_files_are_read_by_the_rules_of_all_files(folder, tmp_path):
    copy = shutil.copytree(folder, tmp_path / "copy")
    for path in (copy / "runs").iterdir():
        path.write_text(path.read_text().replace("VCD", "Zelldichte"))
    rules = FileRules(columns={"Zelldichte": "VCD"})
    runs = read_study_folder(copy, rules).trajectories
    expected = np.concatenate([part.measured for part in STUDY[:3]])
    np.testing.assert_allclose(
        [run.host_readings(("VCD",))[:, 0] for run in runs], expected[..., 0], rtol=1e-9
    )


def test_a_limit_of_an_assay_is_refused_for_what_it_is(folder, tmp_path):
    line = (folder / "runs" / "novel-001.csv").read_text().splitlines()[3]
    cells = line.split(",")
    cells[4] = "<0.1"
    with pytest.raises(DataError, match=r"run novel-001: Amm is in places a limit \(< or >\)"):
        read_study_folder(edited(folder, tmp_path, "runs/novel-001.csv", line, ",".join(cells)))
