import asyncio
import datetime as dt
import json
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

from perfusio_jax._core import (
    CONTROL_NAMES,
    DEFAULT_CONTROLS,
    FORECAST_SPECIES,
    ConfigError,
    ConnectorError,
    DataError,
    RunLockedError,
)
from perfusio_jax.bed import BEDDecision
from perfusio_jax.config import DEFAULT_AMBR250_DESIGN_SPACE, RunConfig
from perfusio_jax.connectors import BioreactorConnectorBase, FilesystemStore, SampleNotReady
from perfusio_jax.hybrid import HybridStateSpaceModel
from perfusio_jax.mechanistic import CHOPerfusionModel
from perfusio_jax.simulator import CHOSimulator
from perfusio_jax.twin import (
    DigitalTwin,
    GateLimits,
    ModelBrain,
    replay,
    verify_audit,
)
from perfusio_jax.twin.decision.cadence import Cadence
from perfusio_jax.twin.decision.checks import expectations
from perfusio_jax.twin.decision.given import default_policy
from perfusio_jax.twin.decision.step import digest, history_from_records, hours_ahead, padded_length
from perfusio_jax.twin.loop import writer

CENTRE = DEFAULT_AMBR250_DESIGN_SPACE.centre


class Steady:
    """A policy that asks for the same set-points every day and remembers nothing."""

    class ofv:
        horizon = 3

    def __init__(self, wanted: dict[str, float]) -> None:
        self.design_space = DEFAULT_AMBR250_DESIGN_SPACE
        self.wanted = wanted
        self.seen: list[dict] = []

    def decide(self, belief, day, model, *, seed, u_now, timestamp, fixed):
        self.seen.append({"day": day, "u_now": dict(u_now), "fixed": dict(fixed), "seed": seed})
        return BEDDecision(
            timestamp=timestamp,
            day=day,
            recommended_controls=dict(self.wanted),
            acqf_value=0.0,
            acqf_name="qLogEI",
            current_state={},
        )


class Rack(BioreactorConnectorBase):
    """A connector over a simulator, with a switchboard of troubles."""

    def __init__(self) -> None:
        self.simulator = CHOSimulator(controls=CENTRE, seed=1)
        self.written: list[dict[str, float]] = []
        self.is_dead_on_write = False
        self.lost: set[int] = set()
        self.values: dict[str, float | None] = {}

    def sample_every(self, interval_h: float) -> None:
        self.simulator.sample_every(interval_h)

    async def is_alive(self) -> bool:
        return True

    async def read_sample(self, day):
        if day in self.lost:
            raise SampleNotReady(f"day {day} is not there")
        return {**await self.simulator.read_sample(day), **self.values}

    async def write_setpoints(self, setpoints) -> None:
        if self.is_dead_on_write:
            raise ConnectorError("the line broke")
        self.written.append(dict(setpoints))
        await self.simulator.write_setpoints(setpoints)

    async def read_setpoints(self):
        return dict(self.simulator.controls)


@pytest.fixture(scope="module")
def model() -> HybridStateSpaceModel:
    return HybridStateSpaceModel(CHOPerfusionModel(), None)


def make_twin(folder: Path, model, connector=None, wanted=None, **settings) -> DigitalTwin:
    settings.setdefault("allow_write", True)
    settings.setdefault("run_config", RunConfig(seed=3, n_mc_samples=16, duration_days=3))
    return DigitalTwin(
        connector or Rack(),
        model,
        DEFAULT_AMBR250_DESIGN_SPACE,
        Steady(wanted or {**CENTRE, "bleed_rate": 0.2}),  # pyright: ignore[reportArgumentType]
        log_dir=folder,
        **{"patience_seconds": 0.0, **settings},
    )


def records(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "audit.jsonl").read_text().splitlines()]


def test_three_days_are_read_decided_written_and_recorded(tmp_path, model):
    rack = Rack()
    with make_twin(tmp_path, model, rack) as twin:
        twin.run_sync(3)
    assert [w["bleed_rate"] for w in rack.written] == [0.2, 0.2, 0.2]
    assert rack.simulator.day == 2
    assert verify_audit(tmp_path).ok
    kinds = [r["event_type"] for r in records(tmp_path)]
    assert kinds.count("SAMPLE_READ") == kinds.count("DECISION_MADE") == 3
    assert kinds.count("SETPOINT_CHANGE") == 3
    lines = (tmp_path / "recommendations.csv").read_text().splitlines()
    assert len(lines) == 4 and lines[0].startswith("decided_at,reactor_id,day,perfusion_rate")
    # One number from the recommendation to the device: 36.25 degC is no value of its grid.
    made = [r for r in records(tmp_path) if r["event_type"] == "DECISION_MADE"]
    sent = [r["new"] for r in records(tmp_path) if r["event_type"] == "SETPOINT_CHANGE"]
    assert CENTRE["temperature"] == 36.25 and sent[0]["temperature"] == 36.3
    assert [r["payload"]["recommended"] for r in made] == sent == rack.written
    assert lines[1].split(",")[3:9] == [f"{rack.written[0][n]:.12g}" for n in CONTROL_NAMES]
    import pyarrow.parquet as pq

    table = pq.read_table(tmp_path / "forecasts.parquet").to_pandas()
    assert len(table) == 3 * 3 * 12
    assert (table.q10 <= table.q90).all() and np.isfinite(table["mean"]).all()


def test_without_permission_nothing_is_written_and_recommendations_are_kept(tmp_path, model):
    rack = Rack()
    with make_twin(tmp_path, model, rack, allow_write=False) as twin:
        result = twin.step(0)
    assert rack.written == []
    assert result["verdict"].action == "hold"
    assert "allow_write" in " ".join(result["verdict"].reasons)
    assert len((tmp_path / "recommendations.csv").read_text().splitlines()) == 2


def test_a_second_run_on_the_same_folder_goes_on_where_it_was(tmp_path, model):
    rack = Rack()
    with make_twin(tmp_path, model, rack) as twin:
        twin.run_sync(1)
    with make_twin(tmp_path, model, rack) as twin:
        twin.run_sync(3)
        policy = twin.policy
    assert [s["day"] for s in policy.seen] == [1, 2]
    assert len(rack.written) == 3
    with make_twin(tmp_path, model, rack) as twin:
        twin.run_sync(3)
        assert twin.policy.seen == []


def test_a_folder_in_use_is_refused_by_name(tmp_path, model):
    with make_twin(tmp_path, model), pytest.raises(RunLockedError, match="in use"):
        make_twin(tmp_path, model)


def test_a_write_that_breaks_is_tried_again_only_after_reading_back(tmp_path, model, monkeypatch):
    monkeypatch.setattr(writer, "SETTLE_PAUSES_S", (0.0, 0.0))
    rack = Rack()
    rack.is_dead_on_write = True
    with make_twin(tmp_path, model, rack) as twin:
        result = twin.step(0)
        assert result["verdict"].action == "hold"
        assert "in 3 tries" in " ".join(result["verdict"].reasons)
        assert [i.outcome for i in twin.journal.intents("R00")] == ["decide_anew"] * 3
        assert twin.journal.pending() == []
        rack.is_dead_on_write = False
        assert twin.step(1)["outcome"] == "written"
    assert len(rack.written) == 1
    settled = [r["payload"]["verdict"] for r in records(tmp_path) if "SETTLED" in r["event_type"]]
    assert settled == ["decide_anew"] * 3


def test_a_write_that_arrived_unconfirmed_is_not_sent_again(tmp_path, model):
    class Deaf(Rack):
        async def write_setpoints(self, setpoints) -> None:
            await super().write_setpoints(setpoints)
            if len(self.written) == 1:
                raise ConnectorError("no confirmation came")

    rack = Deaf()
    with make_twin(tmp_path, model, rack) as twin:
        assert twin.step(0)["outcome"] == "written"
        assert [i.outcome for i in twin.journal.intents("R00")] == ["arrived"]
    with make_twin(tmp_path, model, rack) as twin:
        assert twin.step(0)["decision"] is None  # the day is done
    assert len(rack.written) == 1


def test_a_lost_sample_is_named_and_waits(tmp_path, model):
    rack = Rack()
    rack.lost = {0}
    with make_twin(tmp_path, model, rack) as twin, pytest.raises(ConnectorError, match="day 0"):
        twin.step(0)
    assert rack.written == []


@pytest.mark.parametrize(
    ("values", "why"),
    [
        ({"VCD": 1e4}, "VCD"),
        (
            dict.fromkeys(("VCD", "Via", "Glc", "Gln", "Glu", "Lac", "Amm", "Pyr", "Titer")),
            "no measurement",
        ),
    ],
)
def test_implausible_samples_hold_the_set_points(tmp_path, model, values, why):
    rack = Rack()
    rack.values = values
    with make_twin(tmp_path, model, rack) as twin:
        result = twin.step(0)
    assert result["verdict"].action == "hold"
    assert why in " ".join(result["verdict"].reasons)
    assert rack.written == []


def test_start_up_days_watch_only(tmp_path, model):
    rack = Rack()
    with make_twin(tmp_path, model, rack, startup_days=2) as twin:
        twin.run_sync(3)
    assert len(rack.written) == 1


def test_what_an_operator_moved_by_hand_is_left_alone_until_armed_again(tmp_path, model):
    rack = Rack()
    with make_twin(tmp_path, model, rack) as twin:
        twin.step(0)
        asyncio.run(rack.simulator.write_setpoints({"temperature": 36.9}))
        twin.step(1)
        assert twin.policy.seen[-1]["fixed"] == {"temperature": pytest.approx(36.9)}
        assert rack.simulator.controls["temperature"] == pytest.approx(36.9)
        twin.arm("somebody")
        twin.step(2)
        assert "temperature" in rack.written[-1]


def test_the_gate_keeps_a_wild_policy_inside_the_limits(tmp_path, model):
    rack = Rack()
    wild = {**CENTRE, "bleed_rate": 50.0, "temperature": -5.0}
    limits = GateLimits.from_design_space(DEFAULT_AMBR250_DESIGN_SPACE)
    with make_twin(tmp_path, model, rack, wanted=wild) as twin:
        verdict = twin.step(0)["verdict"]
    if verdict.is_write:
        for name, value in verdict.setpoints.items():
            assert limits.lower[name] <= value <= limits.upper[name]
    assert set(verdict.clamped) >= {"temperature"} or verdict.action == "hold"


@pytest.mark.parametrize("allow_write", [True, False])
def test_where_no_step_leads_back_nothing_is_recommended(tmp_path, model, allow_write):
    class Kelvin(Rack):
        async def read_setpoints(self):
            return {**await super().read_setpoints(), "temperature": 309.4}

    said: list[str] = []
    with make_twin(tmp_path, model, Kelvin(), say=said.append, allow_write=allow_write) as twin:
        result = twin.step(0)
    assert not result["verdict"].is_write
    assert "recommends nothing; not written" in said[-1]
    assert "temperature reads back 309.4, outside its limits" in said[-1]
    assert [
        r["payload"]["error"] for r in records(tmp_path) if r["event_type"] == "DECISION_FAILED"
    ] == ["out_of_reach"]
    kept = (tmp_path / "recommendations.csv").read_text()
    assert "308.2" not in kept and "309" not in kept.split("temperature reads back")[0]


def test_same_inputs_same_bytes(tmp_path, model):
    answers = []
    for name in ("a", "b"):
        with make_twin(tmp_path / name, model, Rack()) as twin:
            answers.append(twin.step(0)["decision"])
    a, b = answers
    assert a.digest == b.digest
    assert a.outlook.samples.tobytes() == b.outlook.samples.tobytes()
    assert np.asarray(a.belief.particles).tobytes() == np.asarray(b.belief.particles).tobytes()


def test_a_culture_sampled_twice_a_day_is_decided_on_twice_a_day(tmp_path, model):
    rack, said = Rack(), []
    settings = RunConfig(seed=3, n_mc_samples=16, duration_days=3, sampling_interval_hours=12.0)
    with make_twin(tmp_path, model, rack, run_config=settings, say=said.append) as twin:
        twin.run_sync()
        result = twin.step(3)
        seen = [s["day"] for s in twin.policy.seen]
        days = [s.day for s in twin.journal.samples("R00")]
        report = replay(
            twin.journal, "R00", fresh_brain(twin, model), twin.settings.initial_controls
        )
    assert said[0] == "samples come every 12 h; the twin decides after each"
    assert days == [0, 0.5, 1, 1.5, 2, 2.5, 3] == seen
    assert rack.simulator.day == 3 and len(rack.written) == 7
    assert report.ok and report.n_same == 7, str(report)
    # Forecasts at their own hours: half a day apart, three days ahead, and alarms count so.
    assert result["forecast"]["days"] == pytest.approx([3.5, 4, 4.5, 5, 5.5, 6])
    assert result["forecast"]["lead_days"] == pytest.approx([0.5, 1, 1.5, 2, 2.5, 3])
    import pyarrow.parquet as pq

    table = pq.read_table(tmp_path / "forecasts.parquet").to_pandas()
    assert sorted(set(table.made_on_day)) == days and len(table) == 7 * 6 * 12
    ahead = table[(table.made_on_day == 0.5) & (table.species == "VCD")]
    assert list(ahead.day) == pytest.approx([1, 1.5, 2, 2.5, 3, 3.5])
    # The forecast of a time is what its sample is compared with.
    assert set(expectations(result["forecast"], FORECAST_SPECIES, 3.5, {})) == {*FORECAST_SPECIES}
    made = [r for r in records(tmp_path) if r["event_type"] == "DECISION_MADE"]
    assert [r["day"] for r in made] == days and type(made[2]["day"]) is int


def fresh_brain(twin, model) -> ModelBrain:
    return ModelBrain(
        model,
        twin.policy,
        seed=3,
        volume_L=twin.volume_L,
        run_id=twin.run_id,
        n_paths=16,
        sample_h=twin.cadence.interval_h,
    )


def test_a_forecast_has_a_row_for_the_next_sample():
    class ofv:
        horizon = 3
        step_h = 24.0

    assert hours_ahead(ofv) is None and hours_ahead(ofv, 24.0) is None
    assert hours_ahead(ofv, 48.0) is None  # two of the policy's days
    assert hours_ahead(ofv, 12.0) == [12.0, 24.0, 36.0, 48.0, 60.0, 72.0]
    assert hours_ahead(ofv, 36.0) == [36.0, 72.0]
    assert hours_ahead(ofv, 96.0) == [24.0, 48.0, 72.0, 96.0]
    ofv.step_h = 12.0
    assert hours_ahead(ofv, 24.0) == [12.0, 24.0, 36.0, 48.0, 60.0, 72.0]
    ofv.step_h = 48.0
    assert hours_ahead(ofv, 48.0) == [48.0, 72.0]


def test_thirds_of_a_day_are_expected_where_they_were_forecast():
    days = [7 / 3 + k * 8.0 / 24.0 for k in range(1, 4)]
    ahead = {"days": days, **{q: np.ones((3, 1)) for q in ("q10", "q50", "q90")}}
    for k in range(8, 11):
        assert expectations(ahead, ["VCD"], Cadence(8.0).day(k), {}), k
    assert not expectations(ahead, ["VCD"], 2.5, {})


def test_the_policy_of_a_twin_moves_as_far_as_the_gate_lets_it(model):
    limits = GateLimits.from_design_space(DEFAULT_AMBR250_DESIGN_SPACE)

    def made(hours):
        return default_policy(
            model,
            DEFAULT_AMBR250_DESIGN_SPACE,
            limits,
            cadence=Cadence(hours),
            acqf_name="qLogEI",
        )

    daily, half, rare = (made(h) for h in (24.0, 12.0, 48.0))
    np.testing.assert_array_equal(daily.limits.max_change, list(limits.max_rate.values()))
    np.testing.assert_array_equal(half.limits.max_change, 0.5 * np.array(daily.limits.max_change))
    np.testing.assert_array_equal(rare.limits.max_change, daily.limits.max_change)
    # a model of daily samples takes two days as two: its process knows no longer mean
    assert [p.ofv.n_steps for p in (daily, half, rare)] == [3, 6, 3]


def test_the_policy_of_a_twin_has_the_acquisition_its_run_asks_for(model):
    space = DEFAULT_AMBR250_DESIGN_SPACE

    def made(name):
        run = RunConfig.from_toml(f'acquisition = "{name}"\n')
        limits = GateLimits.from_design_space(space)
        return default_policy(
            model, space, limits, cadence=Cadence(24.0), acqf_name=run.acquisition
        )

    assert made("qLogNEI").acqf_name == "qLogNEI"
    # it is refused when the twin is made, in the words of the policy
    with pytest.raises(ConfigError, match="frozen paths.*qLogNEI or qLogEI"):
        made("qKG")


def test_settings_that_make_no_sense_are_refused(tmp_path, model):
    rack = Rack()
    with pytest.raises(ConfigError, match="design space"):
        DigitalTwin(rack, model, log_dir=tmp_path)
    with pytest.raises(ConfigError, match="retrain_every"):
        make_twin(tmp_path, model, retrain_every=0)
    with pytest.raises(ConfigError, match="startup_days"):
        make_twin(tmp_path, model, startup_days=-1)
    with pytest.raises(ConfigError, match="sampling_interval_hours is 0.1"):
        make_twin(tmp_path, model, run_config=RunConfig(sampling_interval_hours=0.1))
    empty = DEFAULT_AMBR250_DESIGN_SPACE.replace(control_bounds={})
    with pytest.raises(ConfigError, match="no controls"):
        DigitalTwin(rack, model, empty, log_dir=tmp_path)
    with make_twin(tmp_path, model, allow_write=False) as twin:
        with pytest.raises(ConfigError, match="allow_write"):
            twin.arm("me")


def test_history_marks_what_is_missing_and_carries_controls_forward():
    rows = [
        {"time_h": 0.0, "values": {"VCD": 2.0}, "controls": CENTRE},
        {"time_h": 24.5, "values": {"VCD": None, "Via": 98.0}, "controls": {"bleed_rate": 0.3}},
    ]
    run = history_from_records(rows, volume_L=0.25)
    assert np.isnan(run.get_species("VCD")[1]) and np.isnan(run.get_species("Via")[0])
    assert run.get_control("bleed_rate").tolist() == [CENTRE["bleed_rate"], 0.3]
    assert run.get_control("temperature").tolist() == [CENTRE["temperature"]] * 2
    assert not np.isfinite(run.stream_totals).any()
    with pytest.raises(DataError, match="no sample"):
        history_from_records([], volume_L=0.25)


def test_padding_doubles_and_digest_sees_every_number(model):
    assert [padded_length(n) for n in (1, 63, 64, 200)] == [64, 64, 128, 256]
    other = HybridStateSpaceModel(CHOPerfusionModel(volume_L=0.26), None)
    assert digest(model) == digest(model) != digest(other)


def test_growing_runs_do_not_compile_again(tmp_path, model):
    from perfusio_jax.twin.decision import step

    with make_twin(tmp_path, model) as twin:
        twin.step(0)
        before = step._with_readings.n_programs()
        twin.step(1)
        twin.step(2)
        assert step._with_readings.n_programs() == before


def test_the_file_connector_of_the_tutorial(tmp_path, model):
    path = tmp_path / "my_data.csv"
    simulator = CHOSimulator(seed=42)
    rows = [asyncio.run(simulator.read_sample(day)) for day in range(2)]
    names = list(rows[0])
    lines = [",".join(["day", *names])]
    for day, row in enumerate(rows):
        cells = ["" if row[n] is None else f"{row[n]:.5g}" for n in names]
        lines.append(",".join([str(day), *cells]))
    path.write_text("\n".join(lines) + "\n")
    twin = DigitalTwin(
        connector=FilesystemStore(path, clock=lambda: dt.datetime.now(dt.UTC)),
        design_space=DEFAULT_AMBR250_DESIGN_SPACE,
        bed_policy=Steady(CENTRE),  # pyright: ignore[reportArgumentType]
        run_config=RunConfig(duration_days=2, allow_write=True, seed=0, n_mc_samples=16),
        log_dir=tmp_path,
    )
    with twin:
        asyncio.run(twin.run())
    assert (tmp_path / "setpoints.csv").read_text().count("\n") == 3
    assert set(CONTROL_NAMES) <= set(
        (tmp_path / "setpoints.csv").read_text().split("\n")[0].split(",")
    )


def test_a_stop_ends_the_wait_for_a_sample(tmp_path, model):
    rack = Rack()
    rack.lost = {0}
    twin = make_twin(tmp_path, model, rack, poll_seconds=600.0, patience_seconds=3600.0)

    async def scenario() -> float:
        begun = asyncio.get_running_loop().time()
        work = asyncio.create_task(twin.run(3))
        await asyncio.sleep(0.1)
        twin.stop()
        await asyncio.wait_for(work, 30.0)
        return asyncio.get_running_loop().time() - begun

    with twin:
        assert asyncio.run(scenario()) < 10.0
    endings = [r["payload"] for r in records(tmp_path) if r["event_type"] == "RUN_ENDED"]
    assert endings == [{"ending": "stopped", "last_day": -1}]
    assert "SAMPLE_MISSED" not in [r["event_type"] for r in records(tmp_path)]


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"poll_seconds": -1.0}, "poll_seconds"),
        ({"poll_seconds": float("nan")}, "poll_seconds"),
        ({"startup_days": -1}, "startup_days"),
        ({"initial_controls": {"speed": 3.0}}, "speed"),
        ({"initial_controls": {"temperature": 309.4}}, "309.4 K are 36.25 degC"),
    ],
)
def test_settings_out_of_range_are_refused_by_name(tmp_path, model, settings, says):
    with pytest.raises(ConfigError, match=says):
        make_twin(tmp_path, model, **settings)
    assert list(tmp_path.iterdir()) == []


def test_a_missing_read_back_is_on_record_once(tmp_path, model):
    class Mute(Rack):
        async def read_setpoints(self):
            raise ConnectorError("no read-back today")

    with make_twin(tmp_path, model, Mute()) as twin:
        twin.step(0)
        twin.step(1)
    found = [r for r in records(tmp_path) if r["event_type"] == "READ_BACK_UNAVAILABLE"]
    assert [r["reason"] for r in found] == ["no read-back today"]


def test_each_day_says_what_it_recommends_and_what_became_of_it(tmp_path, model):
    said: list[str] = []
    with make_twin(tmp_path, model, say=said.append) as twin:
        twin.run_sync(1)
        twin.run_sync(1)
    assert any("recommends" in t and "bleed_rate 0.2" in t and "; written" in t for t in said)
    assert "done already" in said[-1]
    said.clear()
    with make_twin(tmp_path / "b", model, say=said.append, allow_write=False) as twin:
        twin.step(0)
    assert any("; not written: " in t and "allow_write" in t for t in said)


def test_a_model_of_half_days_takes_a_day_in_two_steps_and_reports_days(model):
    """What its process adds is a mean over 12 h; over 24 h it would be that of another time."""
    from perfusio_jax.bed import BEDPolicy, TargetSpec, TargetTrackingOFV
    from perfusio_jax.hybrid import Belief, parts_of
    from perfusio_jax.twin.decision.step import forecast

    half = HybridStateSpaceModel(CHOPerfusionModel(), None, dt_hours=12.0)
    assert [parts_of(m, h) for m, h in ((half, 24.0), (half, 6.0), (half, 36.0))] == [2, 1, 3]
    jittered = HybridStateSpaceModel(CHOPerfusionModel(), None, dt_hours=23.7)
    assert [parts_of(m) for m in (model, jittered, object())] == [1, 1, 1]
    face = np.array([20.0, 0.5, 5.0, 3.0, 0.7, 9.0, 2.0, 0.8, 250.0])
    start = Belief(jnp.asarray(np.tile(face, (4, 1))), jnp.asarray(4.0))
    days = forecast(half, start, CENTRE, horizon=2, seed=1, n_paths=8)
    steps = forecast(
        half, start, CENTRE, horizon=4, seed=1, n_paths=8, hours=[12.0, 24.0, 36.0, 48.0]
    )
    assert days.days == (5.0, 6.0) and steps.days == (4.5, 5.0, 5.5, 6.0)
    assert np.array_equal(days.samples, steps.samples[:, 1::2])
    assert days.is_daily and days.reading_q90.shape == (2, 12)
    space = DEFAULT_AMBR250_DESIGN_SPACE
    assert BEDPolicy(half, space).ofv.step_h == 12.0 and BEDPolicy(model, space).ofv.step_h == 24.0
    goals = [TargetSpec(1, 16.0)]
    assert [TargetTrackingOFV(goals, m).step_h for m in (half, model, None)] == [12.0, 24.0, None]
    limits = GateLimits.from_design_space(space)
    for interval, step in ((24.0, 12.0), (48.0, 12.0), (8.0, 8.0)):
        made = default_policy(half, space, limits, cadence=Cadence(interval), acqf_name="qLogEI")
        assert made.ofv.step_h == step


def file_twin(folder: Path, column: str, cells: list[str], said: list[str]) -> DigitalTwin:
    path = folder / "samples.csv"
    rows = [f"{day},{2 + day},98,5,{cell}" for day, cell in enumerate(cells)]
    path.write_text("\n".join([f"day,VCD,Via,Glc,{column}", *rows]) + "\n")
    return DigitalTwin(
        connector=FilesystemStore(path),
        design_space=DEFAULT_AMBR250_DESIGN_SPACE,
        bed_policy=Steady(CENTRE),  # pyright: ignore[reportArgumentType]
        run_config=RunConfig(duration_days=len(cells), seed=0, n_mc_samples=16),
        log_dir=folder / "run",
        patience_seconds=0.0,
        say=said.append,
    )


def test_set_points_that_stand_in_the_samples_are_in_force_before_any_is_written(tmp_path):
    with file_twin(tmp_path, "temperature", ["35.5", "", "35.25"], []) as twin:
        twin.run_sync(2)
    with file_twin(tmp_path, "temperature", ["35.5", "", "35.25"], []) as twin:
        twin.run_sync(3)  # after a restart
        samples = [s.values for s in twin.journal.samples("R00")]
    assert [s["read_back"]["temperature"] for s in samples] == [35.5, 35.5, 35.25]
    assert [s["read_back"]["agitation"] for s in samples] == [875.0] * 3


def test_a_file_in_kelvin_gives_no_recommendation(tmp_path):
    said: list[str] = []
    with file_twin(tmp_path, "temperature", ["309.4"], said) as twin:
        twin.run_sync(1)
    assert "recommends nothing; not written" in said[-1]
    assert "temperature reads back 309.4" in said[-1]


def test_what_was_written_is_reckoned_with_while_the_device_is_mute(tmp_path, model):
    class Mute(Rack):
        is_mute = False

        async def read_setpoints(self):
            if self.is_mute:
                raise ConnectorError("no read-back today")
            return await super().read_setpoints()

    rack = Mute()
    with make_twin(tmp_path, model, rack) as twin:
        written = twin.step(0)["verdict"].setpoints["bleed_rate"]
        rack.is_mute = True
        twin.step(1)
        seen = twin.policy.seen  # pyright: ignore[reportAttributeAccessIssue]
    assert written == 0.2 != DEFAULT_CONTROLS["bleed_rate"]
    assert seen[1]["u_now"]["bleed_rate"] == written
