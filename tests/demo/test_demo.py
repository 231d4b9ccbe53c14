"""The demonstration, short: the whole loop through files, once, and what it leaves behind."""

import json
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from perfusio_jax._core import CONTROL_NAMES, ConfigError, RunLockedError
from perfusio_jax.demo import run as demo_run
from perfusio_jax.demo.main import run_demo
from perfusio_jax.demo.run import STARTUP_DAYS, demo_space, prepare_folder
from perfusio_jax.twin import RunLock, verify_audit

pytestmark = pytest.mark.timeout(1200)  # the first test waits for every compile

DAYS = 4
LAST = STARTUP_DAYS + DAYS


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("demo") / "run"
    run_demo(
        out,
        seeds=[0],
        n_days=DAYS,
        target=None,
        with_oracle=False,
        console=Console(quiet=True),
    )
    return out


@pytest.mark.slow
def test_everything_is_in_one_folder(folder):
    for name in (
        "demo.json",
        "config.toml",
        "campaign.csv",
        "samples.csv",
        "setpoints.csv",
        "recommendations.csv",
        "audit.jsonl",
        "journal.sqlite",
        "forecasts.parquet",
        "model",
        "summary.json",
        "figures/closed_loop.png",
        "figures/tracking_error.png",
    ):
        assert (folder / name).exists(), name
    assert (folder / "figures/closed_loop.png").stat().st_size > 20_000


@pytest.mark.slow
def test_the_next_demonstration_knows_all_of_it(folder):
    assert demo_run._is_demo(folder) and demo_run._strangers(folder) == []


@pytest.mark.slow
def test_reactor_and_twin_met_in_the_files_only(folder):
    samples = (folder / "samples.csv").read_text().splitlines()
    assert len(samples) == 2 + LAST + 1  # header, units, days 0 to the last
    written = (folder / "setpoints.csv").read_text().splitlines()
    assert len(written) == 1 + DAYS  # one line for each day of control, none before
    columns = samples[0].split(",")
    head = written[0].split(",")
    for day in range(STARTUP_DAYS + 1, LAST + 1):  # the reactor obeyed the line before
        obeyed = dict(zip(columns, samples[2 + day].split(","), strict=True))
        asked = dict(zip(head, written[day - STARTUP_DAYS].split(","), strict=True))
        for name in CONTROL_NAMES:
            assert float(obeyed[name]) == pytest.approx(float(asked[name]), rel=1e-9)


@pytest.mark.slow
def test_set_points_stay_in_the_design_space(folder):
    rows = (folder / "setpoints.csv").read_text().splitlines()
    names = rows[0].split(",")
    for row in rows[1:]:
        cells = dict(zip(names, row.split(","), strict=True))
        for name, bound in demo_space().control_bounds.items():
            assert bound.lo <= float(cells[name]) <= bound.hi


@pytest.mark.slow
def test_the_summary_says_what_the_contract_says(folder):
    summary = json.loads((folder / "summary.json").read_text())
    run = summary["runs"][0]
    assert set(run["tracking"]) == {"twin", "centre", "bleed_trigger", "bleed_pi"}
    for entry in run["tracking"].values():
        assert len(entry["by_day"]) == LAST + 1
        later = entry["by_day"][STARTUP_DAYS + 1 :]
        assert entry["error"] == pytest.approx(np.mean(later))
    assert 0.0 < summary["pooled"]["coverage_80"] <= 1.0
    assert summary["audit"]["verified"] is True
    assert run["tracking"]["twin"]["error"] < run["tracking"]["centre"]["error"]


@pytest.mark.slow
def test_the_record_verifies_and_any_changed_byte_is_found(folder):
    assert verify_audit(folder).ok
    path = folder / "audit.jsonl"
    raw = path.read_bytes()
    try:
        for place in np.linspace(0, len(raw) - 1, 60).astype(int):
            damaged = bytearray(raw)
            damaged[place] ^= 0x01
            path.write_bytes(damaged)
            report = verify_audit(folder)
            assert not report.ok and report.reason
    finally:
        path.write_bytes(raw)


def finished(folder: Path) -> Path:
    """A folder as a demonstration leaves it, in miniature."""
    prepare_folder(folder)
    for name in ("config.toml", "samples.csv", "audit.jsonl", "run.lock", "journal.sqlite-wal"):
        (folder / name).write_text("")
    (folder / "seed0").mkdir()
    (folder / "seed0" / "campaign.csv").write_text("")
    return folder


def test_a_folder_in_use_is_not_taken(tmp_path):
    finished(tmp_path)
    with RunLock(tmp_path), pytest.raises(RunLockedError):
        prepare_folder(tmp_path)
    assert (tmp_path / "config.toml").exists()
    prepare_folder(tmp_path)  # released: an old demonstration is replaced
    assert [p.name for p in tmp_path.iterdir()] == ["demo.json"]


def test_a_summary_names_a_demonstration_too(tmp_path):
    (tmp_path / "summary.json").write_text('{"name": "demo"}')
    prepare_folder(tmp_path)
    assert not (tmp_path / "summary.json").exists()


@pytest.mark.parametrize("name", ["config.toml", "summary.json", "seed0/config.toml"])
def test_only_demonstrations_are_replaced(tmp_path, name):
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text('{"name": "reactor 7"}')
    (tmp_path / "audit.jsonl").write_text("evidence")
    with pytest.raises(ConfigError, match="holds no demonstration"):
        prepare_folder(tmp_path)
    assert (tmp_path / "audit.jsonl").read_text() == "evidence"


@pytest.mark.parametrize("name", ["notes.txt", "seed0/thesis.tex", "plots"])
def test_what_a_demonstration_did_not_write_is_named_and_kept(tmp_path, name):
    (finished(tmp_path) / name).write_text("years of work")
    with pytest.raises(ConfigError, match=name):
        prepare_folder(tmp_path)
    assert (tmp_path / name).read_text() == "years of work"
