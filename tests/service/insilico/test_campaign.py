"""In-silico campaigns: whole, kept part by part, taken up again, and the same on any worker."""

import os
import sys

import numpy as np
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from perfusio_jax._core import ConfigError, ConnectorError
from perfusio_jax.cli import app
from perfusio_jax.service.insilico.campaign import run_campaign
from perfusio_jax.service.insilico.driving import _checked, run_part
from perfusio_jax.service.insilico.keeping import is_done, open_folder, part_path, read_parts
from perfusio_jax.service.insilico.plan import CampaignPlan, PolicyPlan, cells_of, designs_of
from perfusio_jax.service.insilico.workers import Cluster, compute

HOT = "tests.service.insilico.policies:hot"
DEADLY = "tests.service.insilico.policies:deadly"
NARROW = "tests.service.insilico.policies:narrow"
PLAN = CampaignPlan(
    clones=["CloneX", "family:2"],
    n_designs=2,
    policies=[
        PolicyPlan(name="fixed"),
        PolicyPlan(name="bleed", kind="bleed", target=1.0, gain=0.1),
        PolicyPlan(name="hot", kind=HOT),
    ],
    n_seeds=3,
    days=3,
    part=8,
)


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    folder = tmp_path_factory.mktemp("campaign") / "runs"
    done = run_campaign(PLAN, folder)
    assert (done.n_before, done.n_made) == (0, 9)
    return folder


@pytest.fixture(scope="module")
def rows(kept):
    return read_parts(kept, PLAN).to_pandas()


def test_every_clone_design_policy_and_seed_is_there_once(rows):
    assert len(rows) == PLAN.n_runs == 54
    assert rows["run"].tolist() == list(range(54))
    counted = rows.groupby(["policy", "clone", "design", "seed"]).size()
    assert len(counted) == 54 and set(rows["clone"]) == {"CloneX", "F0001", "F0002"}
    assert (rows["result"] == 0).all() and np.isfinite(rows["Titer_last"]).all()


def test_policies_meet_the_same_runs_and_act(rows):
    fixed, bleed, hot = (
        rows[rows["policy"] == name].reset_index() for name in ("fixed", "bleed", "hot")
    )
    assert (fixed["n_changes"] == 0).all() and (bleed["n_changes"] > 0).any()
    assert np.all(bleed["VCD_max"] <= fixed["VCD_max"])  # who bleeds has fewer cells
    assert np.mean(bleed["VCD_max"] < fixed["VCD_max"]) > 0.5
    # a temperature that is at its end already is not moved
    still = (hot["n_changes"] == 0).to_numpy()
    assert not still.all()
    assert np.all(hot["Titer_last"][still] == fixed["Titer_last"][still])
    assert np.all(hot["Titer_last"][~still] != fixed["Titer_last"][~still])


def test_seeds_and_clones_differ(rows):
    fixed = rows[rows["policy"] == "fixed"]
    assert fixed.groupby(["clone", "design"])["Titer_last"].nunique().eq(3).all()
    assert fixed.groupby("clone")["Titer_last"].mean().nunique() == 3


def test_a_part_is_the_same_wherever_it_is_computed(kept):
    assert run_part(PLAN, 8).equals(pq.read_table(part_path(kept, 8)).replace_schema_metadata())
    assert cells_of(PLAN, 2).run.size == 2  # the last of a policy is not full


def test_what_is_missing_or_broken_is_computed_again_and_nothing_else(kept):
    before = read_parts(kept, PLAN)
    stays = part_path(kept, 1).stat().st_mtime_ns
    part_path(kept, 0).unlink()
    part_path(kept, 4).write_bytes(part_path(kept, 4).read_bytes()[:-20])
    part_path(kept, 5).write_bytes(part_path(kept, 1).read_bytes())  # of another part
    said = []
    done = run_campaign(PLAN, kept, say=said.append)
    assert (done.n_before, done.n_made) == (6, 3)
    assert said[0] == "6 of 9 parts are there already"
    assert part_path(kept, 1).stat().st_mtime_ns == stays
    assert read_parts(kept, PLAN).equals(before)


def test_a_full_disk_is_told_and_what_is_kept_stays(tmp_path):
    folder = tmp_path / "runs"
    one = PLAN.replace(policies=[PLAN.policies[0]])
    run_campaign(one, folder)
    part_path(folder, 1).unlink()
    beside = folder / f".{part_path(folder, 1).name}.new"
    beside.symlink_to("/dev/full")  # every write there ends as on a disk without room
    with pytest.raises(ConnectorError, match="the disk is full; 2 of 3 parts are kept in .*again"):
        run_campaign(one, folder)
    assert not is_done(folder, one, 1) and not beside.is_symlink()
    assert run_campaign(one, folder).n_made == 1
    assert is_done(folder, one, 1)


def test_folders_of_others_are_refused(kept, tmp_path):
    with pytest.raises(ConfigError, match="a campaign with other n_seeds, days"):
        run_campaign(PLAN.replace(days=4, n_seeds=2), kept)
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(ConfigError, match="holds files and no plan.toml"):
        run_campaign(PLAN, tmp_path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"clones": ["CloneZ"]}, "clone 'CloneZ' is unknown; CloneX, CloneY or family:20"),
        ({"clones": ["family:0"]}, "clone 'family:0' is unknown"),
        ({"clones": ["family:2", "family:3"]}, "give F0001 twice; name a clone once, and one fam"),
        ({"recipes": [{"bleed": 0.1}]}, "bleed is no control.*bleed_rate"),
        ({"recipes": []}, "recipes is empty"),
        ({"policies": [{"name": "a"}, {"name": "a"}]}, "each needs a name of its own"),
        ({"policies": [{"name": "a", "kind": "pid"}]}, "kind 'pid' is unknown"),
        ({"n_seeds": 10**9}, "at most 100000000 are possible"),
    ],
)
def test_plans_that_cannot_be_run_are_refused(changes, message):
    with pytest.raises(ConfigError, match=message):
        CampaignPlan(**changes)


def test_policies_that_cannot_be_used_are_refused():
    def of(kind):
        return PLAN.replace(policies=[PolicyPlan(name="mine", kind=kind)])

    with pytest.raises(ConfigError, match="no_such_module:f cannot be had.*PYTHONPATH"):
        run_part(of("no_such_module:f"), 0)
    with pytest.raises(ConfigError, match=r"gave set-points of shape \(8, 2\) for runs"):
        run_part(of(NARROW), 0)


def test_what_a_policy_gives_is_looked_at():
    before = np.ones((3, 6))
    plan = PolicyPlan(name="mine")
    for wrong in (np.nan, -0.1, np.inf):
        given = before.copy()
        given[1, 3] = wrong
        with pytest.raises(ConfigError, match="gave temperature .* in row 1"):
            _checked(plan, given, before)
    given = before.copy()
    given[2, 1] = 1.5  # more bleed than perfusion
    found, held = _checked(plan, given, before)
    assert found[2, 1] == 1.0 and held.tolist() == [False, False, True]


def test_recipes_stand_at_defaults_and_bleed_is_never_above_perfusion():
    recipes = CampaignPlan(recipes=[{"temperature": 36.0}, {"bleed_rate": 0.2}])
    assert designs_of(recipes)[:, 3].tolist() == [36.0, designs_of(recipes)[1, 3]]
    many = designs_of(CampaignPlan(n_designs=100))
    assert many.shape == (100, 6) and np.all(many[:, 1] <= many[:, 0])


def test_the_command_goes_on_where_it_stopped(kept, tmp_path):
    plan = tmp_path / "plan.toml"
    PLAN.to_toml(plan)
    part_path(kept, 3).unlink()
    done = CliRunner().invoke(app, ["in-silico", str(plan), "--out", str(kept)])
    assert done.exit_code == 0, done.output
    assert "54 runs: 3 policies x 3 clones x 2 designs x 3 seeds, in 9 parts" in done.output
    assert "8 of 9 parts are there already" in done.output
    assert "9 parts, 8 of them from before" in done.output


def test_without_ray_it_says_what_is_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ConfigError, match=r"pip install 'perfusio-jax\[ray\]'"):
        next(compute(PLAN, [0], Cluster()))
    done = CliRunner().invoke(app, ["in-silico", "plan.toml", "--workers", "2"])
    assert isinstance(done.exception, ConfigError) and "--ray local" in str(done.exception)


@pytest.fixture
def quick_ray(tmp_path, monkeypatch):
    """Ray, without a module that each of its processes takes seconds to load, for nothing.

    jsonschema looks for it and does without; a node of which a process comes too late does not
    start at all.
    """
    monkeypatch.setitem(sys.modules, "rfc3987_syntax", None)
    pytest.importorskip("ray", reason="Ray is not installed: pip install 'perfusio-jax[ray]'")
    (tmp_path / "rfc3987_syntax.py").write_text("raise ImportError('left out')\n")
    paths = os.pathsep.join([str(tmp_path), os.environ["PYTHONPATH"]])
    monkeypatch.setenv("PYTHONPATH", paths)


@pytest.mark.filterwarnings("ignore:os.fork:RuntimeWarning")  # by which Ray starts workers
def test_a_killed_worker_changes_nothing(tmp_path, monkeypatch, quick_ray):
    marker = tmp_path / "killed"
    monkeypatch.setenv("TEST_KILL_MARKER", str(marker))
    plan = PLAN.replace(policies=[PolicyPlan(name="hot", kind=DEADLY)], n_seeds=2)
    found = dict(compute(plan, range(plan.n_parts), Cluster("local", 1)))
    assert marker.exists() and sorted(found) == [0, 1]  # one was killed, and all parts are there
    for part, table in found.items():
        assert table.equals(run_part(plan, part))


def test_files_of_ones_own_that_were_changed_are_refused(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    mine = tmp_path / "policies_of_mine.py"
    mine.write_text("def hold(seen):\n    return seen.set_points\n")
    plan = PLAN.replace(policies=[PolicyPlan(name="hold", kind="policies_of_mine:hold")])
    folder = tmp_path / "runs"
    open_folder(folder, plan)
    open_folder(folder, plan)
    was = mine.read_text()
    mine.write_text(was + "# another day\n")
    with pytest.raises(ConfigError, match="policies_of_mine:hold: the file was changed since"):
        open_folder(folder, plan)
    mine.write_text(was)
    open_folder(folder, plan)
    for spoiled in ("[1]", "{", "\udcff"):
        (folder / "code.json").write_bytes(spoiled.encode(errors="surrogateescape"))
        with pytest.raises(ConfigError, match="code.json cannot be understood"):
            open_folder(folder, plan)
    (folder / "code.json").unlink()  # a folder of a version that kept no digests
    open_folder(folder, plan)
    open_folder(tmp_path / "plain", PLAN.replace(policies=PLAN.policies[:2]))
    assert not (tmp_path / "plain" / "code.json").exists()
