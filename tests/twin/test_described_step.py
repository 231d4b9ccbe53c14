"""The decision for a described culture: estimate, limits, forecasts, and one compile per size."""

import jax
import numpy as np
import pytest

from perfusio_jax._core import ConfigError, DataError
from perfusio_jax.bed.goal.steps import n_steps_of, steps_of
from perfusio_jax.demo.described_rig import PlantRun
from perfusio_jax.hybrid import HybridStateSpaceModel, Vessel, forecast_ahead
from perfusio_jax.mechanistic import CHOPerfusionModel
from perfusio_jax.simulator import virtual_plant
from perfusio_jax.twin import GateLimits
from perfusio_jax.twin.decision.cadence import DAILY, Cadence
from perfusio_jax.twin.decision.described_objective import Objective, described_policy
from perfusio_jax.twin.decision.described_step import (
    decide_for_culture,
    described_history,
    estimate_described,
    forecast_described,
    sampled_rows,
)
from perfusio_jax.twin.decision.grid import Grid
from tests.hybrid.cultures import FED, YEAST
from tests.twin.described import FOREIGN, HELD, Foreign, known_model, policy_for, rows

SIZES = {"n_particles": 32, "n_paths": 16, "seed": 1}
ALIVE = ("Via >= 60",)
"""A limit that is kept anyway: objectives of one goal and one limit share their programs."""


@pytest.fixture(scope="module")
def model():
    return known_model()


def decided(model, policy, n=3, **more):
    settings = {"u_now": HELD, **SIZES, **more}
    return decide_for_culture(described_history(rows(n), FOREIGN), model, policy, **settings)


# ------------------------------------------------------------------ history


def test_a_history_has_what_is_measured_and_set_of_the_process():
    found = rows(3)
    found[1]["values"]["Glc"] = None
    del found[1]["controls"]["bleed_rate"]
    run = described_history(found, FOREIGN, run_id="r7")
    assert run.species_names == FOREIGN.readings and run.control_names == FOREIGN.control_names
    assert np.isnan(run.species[1, 2]) and run.controls[1, 1] == 0.1, "set-points stay"
    assert np.asarray(run.volume_L).tolist() == [0.3] * 3 and run.run_id == "r7"
    with pytest.raises(DataError, match="no sample yet"):
        described_history([], FOREIGN)


def test_a_volume_that_moves_is_what_was_recorded_or_follows_from_what_flows():
    model = HybridStateSpaceModel(Vessel(FED), None)
    table = [
        {"day": d, "time_h": 24.0 * d, "values": {"X": 1.0}, "controls": {"feed_rate": 10.0}}
        for d in range(3)
    ]
    told = [{**row, "volume_L": v} for row, v in zip(table, (1.0, 1.3, None), strict=True)]
    assert np.asarray(described_history(told, FED).volume_L).tolist() == [1.0, 1.3, 1.3]
    run = described_history(table, FED)
    from perfusio_jax.hybrid.runs import volumes

    found = volumes(
        model.layout,
        np.nan_to_num(np.asarray(run.controls)),
        np.asarray(run.volume_L),
        np.asarray(run.times_h),
    )
    np.testing.assert_allclose(found, [1.0, 1.24, 1.48])


def test_boluses_act_at_their_own_sample_as_its_row_says():
    from perfusio_jax.twin.loop.reader import rows_of

    samples = [
        {
            "day": d,
            "time_h": 24.0 * d,
            "values": {"X": 1.0},
            "implausible": [],
            "controls": {"S_bolus": bolus, "feed_rate": None},
            "read_back": {"feed_rate": 5.0 + d},
        }
        for d, bolus in ((0, 3.0), (1, None), (2, 1.0))
    ]
    found = rows_of(samples, {"feed_rate": 1.0}, given=("S_bolus",))
    assert [row["controls"]["S_bolus"] for row in found] == [3.0, 0.0, 1.0]
    assert [row["controls"]["feed_rate"] for row in found] == [6.0, 7.0, 7.0]


# ------------------------------------------------------------------ decisions


def test_a_set_point_is_approached_by_what_can_be_set(model):
    policy = policy_for(model, "VCD = 20", limits=ALIVE)
    found = decided(model, policy)
    assert set(found.setpoints) == {"perfusion_rate", "bleed_rate"}
    assert found.setpoints["bleed_rate"] > HELD["bleed_rate"], "too many cells are bled"
    k = model.layout.forecast.index("VCD")
    ahead, unchanged = found.outlook.q50[:, k], found.unchanged.q50[:, k]
    assert np.all(np.abs(ahead - 20.0) < np.abs(unchanged - 20.0))
    assert found.outlook.days == (3.0, 4.0, 5.0) and found.outlook.samples.shape == (16, 3, 4)
    assert (found.outlook.reading_q10 <= found.outlook.q10).mean() > 0.8
    assert set(found.state_mean) == {"VCD", "Via", "Glc", "Lac"} and found.volume_L == 0.3
    said = found.policy.explanation
    assert said["constraints"][0]["limit"] == "Via >= 60"
    assert said["forecast_unchanged"]["mean"].keys() == found.state_mean.keys()
    assert found.policy.current_state.keys() == found.state_mean.keys()
    # the same again, to the last bit; another seed draws others
    again = decided(model, policy)
    assert again.setpoints == found.setpoints and again.digest == found.digest
    assert again.outlook.samples.tobytes() == found.outlook.samples.tobytes()
    assert decided(model, policy, seed=2).digest != found.digest


def test_rate_limits_ranges_grid_and_what_an_operator_holds_are_kept(model):
    policy = policy_for(
        model,
        "VCD = 20",
        limits=ALIVE,
        max_change={"bleed_rate": 0.04, "perfusion_rate": 0.2},
        ranges={"perfusion_rate": (1.0, 1.3)},
    )
    grids = {"bleed_rate": Grid(0.015), "perfusion_rate": Grid(0.07)}
    found = decided(model, policy, grids=grids)
    assert abs(found.setpoints["bleed_rate"] - 0.1) <= 0.04 + 0.015
    assert 1.0 <= found.setpoints["perfusion_rate"] <= 1.3
    for name, grid in grids.items():
        steps = found.setpoints[name] / grid.step
        assert steps == pytest.approx(round(steps), abs=1e-9)
    held = decided(model, policy, fixed={"bleed_rate": 0.1})
    assert held.setpoints["bleed_rate"] == 0.1


def test_what_leaves_stays_below_what_enters(model):
    policy = policy_for(model, "VCD = 1", limits=ALIVE, ranges={"perfusion_rate": (0.5, 0.6)})
    now = {"perfusion_rate": 0.5, "bleed_rate": 0.45}
    found = decided(model, policy, u_now=now, fixed={"perfusion_rate": 0.5})
    assert found.setpoints["bleed_rate"] <= 0.5
    slack = policy.limits({"perfusion_rate": 0.3, "bleed_rate": 0.1}, 0.3)
    assert np.asarray(slack.A).tolist() == [[-1.0, 1.0]] and np.asarray(slack.b).tolist() == [0.0]
    only = policy_for(model, "min VCD", controls=("bleed_rate",))
    one = only.limits({"perfusion_rate": 0.3, "bleed_rate": 0.1}, 0.3)
    assert np.asarray(one.A).tolist() == [[1.0]] and np.asarray(one.b).tolist() == [0.3]


def test_one_control_is_decided_and_the_others_stay(model):
    policy = policy_for(model, "VCD = 20", controls=("bleed_rate",))
    found = decided(model, policy)
    assert set(found.setpoints) == {"bleed_rate"} and found.setpoints["bleed_rate"] > 0.1


def test_goals_are_weighed(model):
    both = policy_for(model, "VCD = 20", "max Lac", "VCD = 0", weights=(1.0, 0.5, 1.0))
    assert [c.label for c in both.ofv.criteria] == [
        "squared distance from target of VCD [(1e6 cells/mL)^2]",
        "final Lac [g/L]",
        "squared distance from target of VCD [(1e6 cells/mL)^2]",
    ]
    # a distance counts in parts of the target, a day as one; a maximum in parts of the range
    np.testing.assert_allclose(np.asarray(both.ofv.scales), [400 / 3, 10.0, 6400 / 3])
    paths = np.zeros((2, 3, 4))
    paths[0, :, 0], paths[1, -1, 3] = 10.0, 4.0
    u = np.zeros(2)
    parts = np.asarray(both.ofv.parts(paths, u))
    np.testing.assert_allclose(parts, [[0.75, 0.0, 3 / 64], [3.0, -0.2, 0.0]])


def test_a_limit_that_cannot_be_kept_is_said(model):
    found = decided(model, policy_for(model, "VCD = 20", limits=("Via >= 99.5",)))
    said = found.policy.explanation
    assert said["viability_probability"] == 0.0
    assert any("Via >= 99.5 is kept with probability 0.00 only" in t for t in said["remarks"])


def test_samples_at_other_intervals_are_decided_for(model):
    half = known_model(dt_hours=12.0)
    policy = policy_for(half, "VCD = 20", cadence=Cadence(12.0))
    assert policy.ofv.n_steps == 6
    history = described_history(rows(5, every_h=12.0), FOREIGN)
    found = decide_for_culture(history, half, policy, u_now=HELD, sample_h=12.0, day=2.0, **SIZES)
    assert found.outlook.days == (2.5, 3.0, 3.5, 4.0, 4.5, 5.0)
    assert policy.max_change["bleed_rate"] == 0.125


# ------------------------------------------------------------------ the filter


def test_the_state_is_that_of_the_forecast(model):
    run = described_history(rows(4), FOREIGN)
    known = estimate_described(run, model, seed=5, n_particles=64)
    bare = known._replace(offset=0.0 * known.offset)  # which forecasts of files do not have
    outlook = forecast_described(bare, HELD, hours=[24.0, 48.0], seed=5, n_paths=256)
    ahead = forecast_ahead(model, run, [24.0, 48.0], HELD, n_particles=64, seed=5)
    np.testing.assert_allclose(outlook.q50, ahead.q50, rtol=0.1)
    assert sampled_rows(known.beliefs).tolist() == [0, 1, 2, 3]


def test_a_missed_weekend_is_taken_in_days(model):
    table = [row for row in rows(5) if row["day"] not in (2.0, 3.0)]
    run = described_history(table, FOREIGN)
    known = estimate_described(run, model, seed=1, n_particles=32)
    assert sampled_rows(known.beliefs).tolist() == [0, 1, 4]
    assert float(known.belief.day) == 4.0


@pytest.mark.parametrize("days, steps", [(0.25, 6), (1.5, 36)])
def test_a_horizon_may_be_part_of_a_day_where_samples_come_every_hour(days, steps):
    hourly, often = known_model(dt_hours=1.0), Cadence(1.0)
    made = policy_for(hourly, "VCD = 20", cadence=often, horizon_days=days)
    assert made.horizon == days and n_steps_of(made.ofv) == steps
    assert steps_of(made.ofv).sum() == pytest.approx(24.0 * days)
    with pytest.raises(ConfigError, match="0.0416667 days or more, an interval, are needed"):
        policy_for(hourly, "VCD = 20", cadence=often, horizon_days=0.02)
    with pytest.raises(ConfigError, match="whole days are needed"):
        policy_for(known_model(), "VCD = 20", horizon_days=1.5)


# ------------------------------------------------------------------ refusals


@pytest.mark.parametrize(
    ("wishes", "message"),
    [
        ({"goals": ()}, "no goal in .objective."),
        ({"goals": ("VCV = 20",)}, "'VCV' is not forecast .did you mean"),
        ({"goals": ("Titer",)}, "goal in .objective. 'Titer' is unknown"),
        ({"goals": ("max VCD",), "weights": (1.0, 2.0)}, "weights .1.0, 2.0. for 1 goals"),
        ({"goals": ("max VCD",), "weights": (0.0,)}, "above 0"),
        ({"goals": ("max VCD",), "limits": ("Via = 3",)}, "limit in .objective."),
        ({"goals": ("max VCD",), "limits": ("DCD <= 3",)}, "'DCD' is not forecast"),
        ({"goals": ("max VCD",), "probability": 1.0}, "probability in .objective."),
        ({"goals": ("max VCD",), "horizon_days": 0}, "horizon_days in .objective. is 0"),
        ({"goals": ("max VCD",), "controls": ("stirring",)}, "'stirring' is no control of foreign"),
        ({"goals": ("max VCD",), "controls": ()}, "controls in .objective."),
        ({"goals": ("max VCD",), "ranges": {"bleed_rate": (0.0, 9.0)}}, "within 0 to 0.5 vvd"),
        ({"goals": ("max VCD",), "ranges": {"bleed_rate": (0.3, 0.2)}}, "a lower and an upper"),
        ({"goals": ("max VCD",), "ranges": {"pH": (7.0, 7.2)}}, "ranges in .objective. names"),
    ],
)
def test_what_cannot_be_wanted_is_refused_by_name(model, wishes, message):
    limits = GateLimits.from_process(FOREIGN)
    with pytest.raises(ConfigError, match=message):
        described_policy(model, Objective(**wishes), limits, cadence=DAILY)


def test_controls_nobody_can_set_are_refused():
    model = HybridStateSpaceModel(Vessel(FED), None)
    limits = GateLimits.from_process(FED)
    with pytest.raises(ConfigError, match="S_bolus is a bolus"):
        described_policy(model, Objective(("max X",), controls=("S_bolus",)), limits, cadence=DAILY)
    fixed = YEAST.model_copy(
        update={"controls": (YEAST.controls[0].model_copy(update={"lo": 28.0, "hi": 28.0}),)}
    )
    stuck = HybridStateSpaceModel(Vessel(fixed), None)
    for controls, message in ((("temperature",), "may only be 28"), (None, "nobody can set")):
        with pytest.raises(ConfigError, match=message):
            described_policy(
                stuck,
                Objective(("max X",), controls=controls),
                GateLimits.from_process(fixed),
                cadence=DAILY,
            )
    cho = HybridStateSpaceModel(CHOPerfusionModel(), None)
    with pytest.raises(ConfigError, match="this model is of CHO perfusion"):
        described_policy(cho, Objective(("max VCD",)), limits, cadence=DAILY)


def test_latent_states_of_a_mechanism_leave_every_goal_at_its_own_column():
    """A goal is of the model's columns, which may be more than the process alone would have."""
    from perfusio_jax.bed.goal.by_name import goal_of
    from perfusio_jax.process import Quantity

    hidden = Quantity(name="Gln", unit="mmol/L", hi=20.0, is_measured=False)
    first, *others = FOREIGN.quantities
    richer = FOREIGN.model_copy(update={"quantities": (first, hidden, *others)})

    class WithGln(Foreign):
        def rates(self, state, environment):
            return {**super().rates(state, environment), "Gln": -0.0 * state["Gln"]}

    model = HybridStateSpaceModel(Vessel(richer, WithGln()), None)
    assert model.layout.forecast == ("VCD", "Gln", "Via", "Glc", "Lac")
    found = goal_of("max Glc", richer, 3, layout=model.layout)
    assert found.criteria[0].species_index == 3
    assert goal_of("max Glc", richer, 3).criteria[0].species_index == 2


def test_a_second_day_compiles_nothing(model):
    policy = policy_for(model, "VCD = 20", limits=ALIVE)
    decided(model, policy, n=2)
    seen = []
    jax.monitoring.register_event_listener(
        lambda name, **_: seen.append(name) if "compile_requests" in name else None
    )
    for n in (3, 4, 20, 31):
        decided(model, policy, n=n)
    assert seen == []
    jax.jit(lambda x: x + 12345.0)(np.zeros(3))  # and a new program would have been counted
    assert seen


# ------------------------------------------------------------------ what a run keeps showing


def test_a_vessel_that_keeps_growing_faster_is_forecast_so(model):
    """Every day a tenth more cells than the model has it: the next days are forecast likewise."""
    plant = virtual_plant(FOREIGN, Foreign())
    state, table = np.array([1.5, 0.05, 5.5, 0.2]), []
    run = PlantRun(plant, state, HELD, seed=1)
    for day in range(7):
        if day:
            run.live(24.0)
            run._state = run._state.at[0].multiply(1.1)
        values = dict(zip(FOREIGN.readings, _read(run), strict=True))
        table.append({"day": day, "time_h": 24.0 * day, "values": values, "controls": dict(HELD)})
    known = estimate_described(described_history(table, FOREIGN), model, seed=1, n_particles=64)
    # growth is the one rate that is off: log(1.1) a day
    assert 0.4 * np.log(1.1) / 24 < float(known.offset[0]) < 1.1 * np.log(1.1) / 24
    for _ in range(2):
        run.live(24.0)
        run._state = run._state.at[0].multiply(1.1)
    k = model.layout.forecast.index("VCD")
    true = _read(run)[0]
    ahead = forecast_described(known, HELD, hours=[24.0, 48.0], seed=1, n_paths=256)
    bare = known._replace(offset=0.0 * known.offset)
    before = forecast_described(bare, HELD, hours=[24.0, 48.0], seed=1, n_paths=256)
    assert abs(ahead.q50[1, k] - true) < 2 / 3 * abs(before.q50[1, k] - true)


def _read(run: PlantRun) -> np.ndarray:
    run.sample()
    return run.true[-1]


def test_a_run_as_the_model_has_it_and_one_sample_show_nothing(model):
    one = estimate_described(described_history(rows(1), FOREIGN), model, seed=1, n_particles=64)
    assert np.asarray(one.offset).tolist() == [0.0] * 4
