"""Campaign tables of any culture: simulated, written, and read back for what they are."""

import numpy as np
import pytest

from perfusio_jax._core import ConfigError, DataError
from perfusio_jax.cli import main
from perfusio_jax.connectors import describe_table, read_campaign, write_described
from perfusio_jax.process import (
    CHO_FED_BATCH,
    CHO_PERFUSION,
    MONOD_CHEMOSTAT,
    Process,
    Quantity,
    litres_per_hour,
)
from perfusio_jax.simulator import plain_monod, spread_controls, usual_start


def command(*args: str) -> int:
    try:
        main(list(args))
    except SystemExit as end:
        return int(end.code or 0)
    return 0


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    path = tmp_path_factory.mktemp("simulated") / "stat.csv"
    done = command(
        "simulate",
        str(path),
        "--process",
        "monod_chemostat",
        "--runs",
        "5",
        "--days",
        "2",
        "--every",
        "6",
        "--seed",
        "3",
    )
    assert done == 0
    return path


def test_a_table_is_read_back_by_its_process_and_described_as_it(table):
    campaign = read_campaign(table, process=MONOD_CHEMOSTAT)
    assert len(campaign.trajectories) == 5
    for run in campaign.trajectories:
        assert run.species_names == ("X", "S", "P")
        assert run.control_names == ("dilution", "feed_S")
        np.testing.assert_allclose(run.times_h, np.arange(9) * 6.0)
    process = describe_table(table).process
    assert process.carried == ("X", "S", "P") and process.biomass == "X"
    feed, out = process.streams
    assert feed.carries["S"] == "feed_S" and feed.flow == "dilution" and out.flow == "rest"


def test_the_same_seed_is_the_same_table_and_another_is_not(table, tmp_path):
    for seed, is_same in (("3", True), ("4", False)):
        again = tmp_path / f"{seed}.csv"
        args = ("--runs", "5", "--days", "2", "--every", "6", "--seed", seed)
        assert command("simulate", str(again), "--process", "monod_chemostat", *args) == 0
        assert (again.read_bytes() == table.read_bytes()) is is_same


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (("--runs", "3"), "--process"),
        (("--mechanism", "monod"), "--process"),
        (("--process", "monod_chemostat", "--clone", "CloneY"), "--clone"),
        (("--process", "nobody"), "nobody"),
        (("--process", "monod_chemostat", "--mechanism", "none"), "moves nothing"),
        (("--process", "monod_chemostat", "--every", "25"), "whole number"),
    ],
)
def test_what_cannot_be_is_refused(tmp_path, capsys, args, says):
    assert command("simulate", str(tmp_path / "c.csv"), *args) == 2
    assert says in capsys.readouterr().err


@pytest.mark.parametrize("process", [CHO_PERFUSION, CHO_FED_BATCH, MONOD_CHEMOSTAT])
def test_set_points_fill_their_ranges_and_nothing_has_to_flow_backwards(process):
    found = spread_controls(process, 40, seed=2)
    assert found.shape == (40, len(process.controls))
    flow = {}
    for k, control in enumerate(process.controls):
        assert np.all(found[:, k] <= control.hi)
        if control.name != "bleed_rate":
            span = (found[:, k].max() - found[:, k].min()) / (control.hi - control.lo)
            assert np.all(found[:, k] >= control.lo) and span > 0.9
        if control.role == "flow":
            flow[control.name] = litres_per_hour(found[:, k], 1.0, control.unit, control.name)
    if "bleed_rate" in flow:
        assert np.all(flow["bleed_rate"] <= 0.9 * flow["perfusion_rate"] + 1e-12)


def test_a_plain_culture_lives_on_what_it_is_given():
    assert plain_monod(MONOD_CHEMOSTAT).substrate == "S"
    fed = plain_monod(CHO_FED_BATCH)
    assert fed.substrate == "Glc" and "Xd" in fed.others
    start = usual_start(CHO_FED_BATCH)
    assert start["Glc"] > 0.0 and start["Xd"] == 0.0 and start["Titer"] == 0.0
    alone = Process(name="p", volume_L=1.0, quantities=(Quantity(name="X", unit="g/L", hi=9.0),))
    with pytest.raises(ConfigError, match="p names no biomass"):
        plain_monod(alone)
    with pytest.raises(ConfigError, match="p has nothing to live on"):
        plain_monod(alone.replace(biomass="X"))


def test_a_run_of_another_culture_is_not_written(table, tmp_path):
    runs = read_campaign(table, process=MONOD_CHEMOSTAT).trajectories
    with pytest.raises(DataError, match="run 'RUN001' has X, S, P, dilution, feed_S; cho_fed"):
        write_described(runs, tmp_path / "x.csv", CHO_FED_BATCH)
    with pytest.raises(DataError, match="RUN001 is used by more than one run"):
        write_described([runs[0], runs[0]], tmp_path / "x.csv", MONOD_CHEMOSTAT)
    write_described(runs, tmp_path / "x.parquet", MONOD_CHEMOSTAT)
    again = read_campaign(tmp_path / "x.parquet", process=MONOD_CHEMOSTAT).trajectories
    np.testing.assert_array_equal(again[2].species, runs[2].species)
