"""In-silico campaigns of a described culture: any process, by the same plan and the same files."""

import jax
import jax.numpy as jnp
import numpy as np
import pyarrow as pa
import pytest
from typer.testing import CliRunner

from perfusio_jax._core import ConfigError, Result
from perfusio_jax.cli import app
from perfusio_jax.process import MONOD_CHEMOSTAT
from perfusio_jax.service.insilico.campaign import run_campaign
from perfusio_jax.service.insilico.driving import run_part
from perfusio_jax.service.insilico.keeping import part_path, read_parts
from perfusio_jax.service.insilico.plan import CampaignPlan, PolicyPlan, designs_of
from perfusio_jax.service.insilico.vessels import outcome_names, vessels_of
from perfusio_jax.simulator import by_interval, run_plant

from .cultures import POND

_HERE = "tests.service.insilico.cultures:"
PLAN = CampaignPlan(
    process=POND,
    mechanism=f"{_HERE}Algae",
    clones=["nominal", "family:2"],
    n_designs=2,
    policies=[
        PolicyPlan(name="fixed"),
        PolicyPlan(name="darker", kind=f"{_HERE}darker"),
        PolicyPlan(name="once", kind=f"{_HERE}once"),
    ],
    n_seeds=2,
    days=2,
    sampling_interval_hours=12.0,
    part=8,
    design={"light": (0.4, 0.9), "feed_rate": (0.02, 0.1)},
)
FIXED = PLAN.replace(policies=PLAN.policies[:1])
ONE = FIXED.replace(clones=["nominal"], n_seeds=1, inoculum_cv=0.0)
"""Plans of which every part is as long, so that one program serves all."""


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    folder = tmp_path_factory.mktemp("campaign") / "runs"
    assert run_campaign(PLAN, folder).n_made == 6
    return folder


@pytest.fixture(scope="module")
def rows(kept):
    return read_parts(kept, PLAN).to_pandas()


def test_every_run_is_there_once_and_is_told_by_the_names_of_the_culture(rows):
    assert rows["run"].tolist() == list(range(PLAN.n_runs)) and PLAN.n_runs == 36
    assert rows.groupby(["policy", "clone", "design", "seed"]).size().eq(1).all()
    assert list(rows.columns) == [
        *("run", "policy", "clone", "design", "seed"),
        *("feed_rate", "bleed", "light", "S_bolus"),
        *(f"{n}_{how}" for n in ("X", "S", "pH") for how in ("last", "mean", "max", "min")),
        *("n_changes", "n_held", "result"),
    ]
    assert (rows["result"] == 0).all() and np.isfinite(rows["X_last"]).all()
    assert np.all(rows["X_min"] <= rows["X_mean"]) and np.all(rows["X_mean"] <= rows["X_max"])
    assert rows["light"].between(0.4, 0.9).all() and rows["feed_rate"].between(0.02, 0.1).all()
    # the bleed of a design leaves something for the stream that keeps the volume
    assert np.all(rows["bleed"] <= 0.9 * rows["feed_rate"] + 1e-12) and (rows["n_held"] == 0).all()


def test_in_parts_and_in_one_part_it_is_the_same_to_the_last_bit(kept):
    whole = PLAN.replace(part=12)
    one = pa.concat_tables([run_part(whole, part) for part in range(whole.n_parts)])
    assert whole.n_parts == 3 and one.equals(read_parts(kept, PLAN).replace_schema_metadata())


def test_a_lost_part_is_computed_again_and_nothing_else(kept):
    before = read_parts(kept, PLAN)
    stays = part_path(kept, 1).stat().st_mtime_ns
    part_path(kept, 4).unlink()
    done = run_campaign(PLAN, kept)
    assert (done.n_before, done.n_made) == (5, 1)
    assert part_path(kept, 1).stat().st_mtime_ns == stays
    assert read_parts(kept, PLAN).equals(before)


def test_policies_act_by_names_on_the_same_runs(rows):
    fixed, darker, once = (
        rows[rows["policy"] == name].reset_index() for name in ("fixed", "darker", "once")
    )
    assert (fixed["n_changes"] == 0).all()
    dimmed = (darker["n_changes"] > 0).to_numpy()
    assert dimmed.any() and not dimmed.all()
    assert np.all(darker["X_last"][dimmed] < fixed["X_last"][dimmed])
    assert np.all(darker["X_last"][~dimmed] == fixed["X_last"][~dimmed])
    assert (once["n_changes"] == 1).all()  # at the next sample the design gives what it gives
    assert np.all(once["S_mean"] != fixed["S_mean"])


def test_clones_and_seeds_differ(rows):
    fixed = rows[rows["policy"] == "fixed"]
    assert fixed["clone"].unique().tolist() == ["nominal", "F0001", "F0002"]
    assert fixed.groupby("design")["X_last"].nunique().eq(6).all()
    # without a scatter of inocula it is the clone alone that makes a difference
    alike = run_part(FIXED.replace(inoculum_cv=0.0, clones=["family:1", "nominal"]), 0).to_pandas()
    assert alike.groupby(["design", "clone"])["X_last"].nunique().eq(1).all()
    assert alike.groupby("design")["X_last"].nunique().eq(2).all()
    alone = run_part(ONE, 0).to_pandas()
    nominal = alike[(alike["clone"] == "nominal") & (alike["seed"] == 0)]
    assert nominal["X_last"].tolist() == alone["X_last"].tolist()


def test_a_fixed_policy_is_a_run_of_the_plant_alone():
    table = run_part(ONE, 0).to_pandas()
    plant = vessels_of(ONE).plant
    start, lengths = jnp.asarray([1.0, 10.0, 7.0]), jnp.full(4, 12.0)
    controls = jnp.asarray(by_interval(POND, designs_of(ONE), 4))
    assert np.all(np.asarray(controls[:, 1:, 3]) > 0.0)  # boluses among them
    run = jax.jit(jax.vmap(lambda u: run_plant(plant, start, u, lengths)))(controls)
    for k, name in enumerate(plant.states):
        truth = np.asarray(run.states[:, :, k])
        for how, found in (("last", truth[:, -1]), ("mean", truth.mean(axis=1))):
            np.testing.assert_allclose(table[f"{name}_{how}"], found, rtol=1e-9)


def test_noise_and_inocula_are_of_the_seed_alone():
    again, other = (
        run_part(FIXED.replace(seed=seed, inoculum_cv=0.3), 0).to_pandas() for seed in (0, 1)
    )
    begun = again["X_min"].to_numpy()
    assert len(set(np.round(begun, 9))) > 1 and not np.array_equal(begun, other["X_min"])


def test_what_cannot_flow_is_held_and_counted():
    recipes = [{"feed_rate": 0.04, "bleed": bleed} for bleed in (0.04, 0.2)]
    table = run_part(ONE.replace(recipes=recipes, design=None), 0).to_pandas()
    assert table["n_held"].tolist() == [0, 4] and (table["result"] == 0).all()
    assert table["bleed"].tolist() == [0.04, 0.2] and (table["n_changes"] == 0).all()
    np.testing.assert_allclose(table["X_last"][1], table["X_last"][0], rtol=1e-9)


def test_a_run_that_fails_is_told_and_leaves_the_others_alone(tmp_path):
    plan = ONE.replace(
        mechanism=f"{_HERE}Greedy",
        recipes=[{"light": 0.5}, {"light": 1.0, "feed_rate": 0.0, "bleed": 0.0}],
        design=None,
        policies=[PolicyPlan(name="anchored", kind=f"{_HERE}anchored")],
    )
    path = tmp_path / "plan.toml"
    plan.to_toml(path)
    done = CliRunner().invoke(app, ["in-silico", str(path), "--out", str(tmp_path / "runs")])
    assert done.exit_code == 0, done.output
    assert "1 of 2 runs failed: STEP_TOO_SMALL" in done.output
    assert "a mechanism that takes up what is gone" in " ".join(done.output.split())
    table = read_parts(tmp_path / "runs", plan).to_pandas()
    assert table["result"].tolist() == [0, Result.STEP_TOO_SMALL.value]
    assert table[outcome_names(POND)].notna().all(axis=1).tolist() == [True, False]
    assert table[outcome_names(POND)].iloc[1].isna().all()


def test_a_volume_that_moves_is_told_and_seen(monkeypatch):
    from perfusio_jax.service.insilico import described

    streams = POND.streams[:1]
    controls = tuple(c for c in POND.controls if c.name != "bleed")
    fed = POND.replace(streams=streams, controls=controls)
    seen = []

    def watching(plan):
        return lambda now: seen.append(now) or now.set_points

    monkeypatch.setattr(described, "policy_of", watching)
    plan = ONE.replace(process=fed, recipes=[{"feed_rate": 0.01}], design=None, days=1)
    table = run_part(plan, 0).to_pandas()
    # a feed in vessel volumes per hour of what is there
    np.testing.assert_allclose(table["volume_L_last"], 2.0 * np.exp(0.24), rtol=1e-6)
    assert [(now.day, now.hour) for now in seen] == [(0, 0.0), (0, 12.0)]
    np.testing.assert_allclose(seen[1].volume_L, 2.0 * np.exp(0.12), rtol=1e-6)


def test_clones_are_drawn_from_priors_and_keep_signs():
    few, many = (
        vessels_of(ONE.replace(clones=["nominal", f"family:{n}"], clone_spread=2.0)).mechanisms
        for n in (3, 200)
    )
    assert many.mu_max[0] == 0.12 and many.alkali[0] == 0.05
    assert np.array_equal(few.mu_max, many.mu_max[:4])  # a larger family goes on
    logs = np.log(np.asarray(many.mu_max[1:]) / 0.12)
    assert abs(logs.std() - 0.4) < 4 * 0.4 / np.sqrt(400) and abs(logs).max() <= 3 * 0.4
    assert np.all(many.alkali >= 0.0) and many.alkali.std() > 0.1


def test_the_kept_plan_holds_the_culture_and_another_is_refused(tmp_path):
    beside = tmp_path / "mine"
    beside.mkdir()
    POND.to_toml(beside / "pond.toml")
    text = FIXED.replace(clones=["nominal"], n_seeds=1).to_toml().partition("[process]")[0]
    (beside / "plan.toml").write_text('process = "pond.toml"\n' + text)
    out = tmp_path / "runs"
    command = ["in-silico", str(beside / "plan.toml"), "--out", str(out)]
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 0, done.output
    assert "culture pond" in done.output
    assert "2 runs: 1 policies x 1 clones x 2 designs x 1 seeds, in 1 parts" in done.output
    assert "X_last" in done.output
    kept = CampaignPlan.from_toml(out / "plan.toml")
    assert kept.process == POND and kept.digest == CampaignPlan.from_json(kept.to_json()).digest
    assert "1 of 1 parts are there already" in CliRunner().invoke(app, command).output
    POND.replace(volume_L=3.0).to_toml(beside / "pond.toml")
    refused = CliRunner().invoke(app, command).exception
    assert isinstance(refused, ConfigError) and "a campaign with other process" in str(refused)


def test_a_built_in_culture_needs_its_name_only():
    plan = CampaignPlan(process="monod_chemostat", n_designs=5)
    assert plan.culture == MONOD_CHEMOSTAT and plan.clones == ["nominal"] and plan.mode is None
    assert designs_of(plan).shape == (5, 2)
    assert vessels_of(plan).plant.states == ("X", "S", "P")


def test_plans_of_cho_perfusion_are_identified_as_before():
    named = CampaignPlan(process="cho_perfusion")
    assert not named.is_described and named.digest == CampaignPlan().digest
    # a folder that was begun before there were other cultures is taken up
    assert named.digest == "3d27c6458afe0ed6f57d0c5332bf3fce6849fa33c6c4a70471ff9f84fa05d03d"
    assert CampaignPlan(process="cho_perfusion", mechanism="cho").is_described
    warm = CampaignPlan(n_designs=8, design={"temperature": (36.0, 37.0)})
    assert warm.digest != CampaignPlan(n_designs=8).digest
    assert np.all((designs_of(warm)[:, 3] >= 36.0) & (designs_of(warm)[:, 3] <= 37.0))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"design": {"ligth": (0.1, 0.2)}}, r"ligth is no control \(did you mean 'light'\?\)"),
        ({"design": {"light": (0.1, 2.0)}}, "design: light from 0.1 to 2; a range within 0 to 1 -"),
        ({"design": {"light": (0.9, 0.1)}}, "the lower end first"),
        ({"recipes": [{"light": 0.1}]}, "design holds ranges to fill and recipes"),
        ({"recipes": [{"light": 2.0}], "design": None}, "recipes: light is 2; 0 to 1 - is allowed"),
        ({"recipes": [{"glow": 0.1}], "design": None}, "glow is no control"),
        ({"clones": ["CloneX"]}, "clone 'CloneX' is unknown; nominal or family:20"),
        ({"clones": ["family:2", "family:2"]}, "give F0001 twice; name a clone once"),
        ({"mode": "cho_perfusion"}, "mode 'cho_perfusion' is a plant of its own"),
        ({"policies": [{"name": "b", "kind": "bleed"}]}, "'b': bleed steers .* of pond there are"),
        ({"process": None, "clones": ["CloneX"]}, "Algae' is of a culture that process names"),
        ({"process": "pnod"}, "there is no process 'pnod'"),
        ({"sampling_interval_hours": 7.0}, "no whole number of such intervals"),
        ({"process": POND.replace(biomass=None)}, "pond names none.*inoculum_cv = 0"),
        (
            {"design": {c.name: (c.default, c.default) for c in POND.controls}},
            "2 designs, and pond has no control with a range.*n_designs = 1",
        ),
        ({"process": POND.replace(controls=(), streams=()), "design": None}, "n_designs = 1"),
    ],
)
def test_plans_that_cannot_be_run_are_refused(changes, message):
    with pytest.raises(ConfigError, match=message):
        PLAN.replace(**changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"mechanism": "algae"}, "mechanism 'algae' is unknown"),
        ({"mechanism": "perfusio_jax.mechanistic:Monod"}, "Monod cannot be made as it stands"),
        ({"mechanism": "model.xml"}, "a file of SBML is not kept with a campaign.*module:mine"),
        ({"mechanism": f"{_HERE}Foreign"}, "Foreign asks for 'ethanol'; there are the states X, S"),
        ({"mechanism": f"{_HERE}Greedy"}, "'family:2' is drawn from priors, and Greedy tells none"),
        ({"policies": [{"name": "a", "kind": f"{_HERE}narrow"}]}, "narrow is no function"),
        ({"policies": [{"name": "a", "kind": "no_such_module:f"}]}, "no_such_module:f cannot be"),
    ],
)
def test_what_cannot_be_made_is_refused_before_there_is_a_folder(changes, message, tmp_path):
    with pytest.raises(ConfigError, match=message):
        run_campaign(PLAN.replace(**changes), tmp_path / "runs")
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("bright", "gave light 1.5 in row 0; 0 to 1 - is allowed"),
        ("lost", "asks for the reading 'lactose'; there are X, S, pH"),
        ("words", "gave a str that is no table of numbers"),
    ],
)
def test_what_a_policy_gives_is_looked_at(kind, message):
    plan = ONE.replace(policies=[PolicyPlan(name="mine", kind=_HERE + kind)])
    with pytest.raises(ConfigError, match=message):
        run_part(plan, 0)


def test_names_of_columns_are_free():
    renamed = [
        {**c.model_dump(), "name": "seed"} if c.name == "light" else c for c in POND.controls
    ]
    plan = ONE.replace(process=POND.replace(controls=renamed), mechanism="monod", design=None)
    with pytest.raises(ConfigError, match="control seed of pond has the name of another column"):
        vessels_of(plan)
