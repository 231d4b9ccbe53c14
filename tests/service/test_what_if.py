"""What a run would come to: the twin's own forecast, asked again under other set-points."""

import time
from pathlib import Path

import numpy as np
import pytest

from perfusio_jax._core import DEFAULT_CONTROLS, ConfigError
from perfusio_jax.config import DEFAULT_AMBR250_DESIGN_SPACE
from perfusio_jax.hybrid import untrained_model
from perfusio_jax.mechanistic import CHOPerfusionModel
from perfusio_jax.process import MONOD_CHEMOSTAT
from perfusio_jax.service.what_if import CHO_DAYS, WhatIf, _check_ours, _hours, _sliders, _step
from perfusio_jax.twin import AuditLogger
from perfusio_jax.twin.decision.step import digest, estimate, forecast, history_from_records
from perfusio_jax.twin.records.records_file import RunRecords
from tests.report.run_folders import make_run
from tests.twin.described import known_model, rows
from tests.viz.page_folders import later

MODEL = untrained_model(CHOPerfusionModel())


def begin(folder: Path, sha: str, at: int = 400) -> None:
    clock = later(at)
    told = {"account": "lab", "mode": "adaptive", "model_sha256": sha,
            "design_space": DEFAULT_AMBR250_DESIGN_SPACE.model_dump(mode="json")}  # fmt: skip
    with RunRecords(folder / "journal.sqlite", clock=clock) as book:
        with AuditLogger(folder, "E1", clock=clock, memory=book) as audit:
            audit.log("SESSION_STARTED", told, day=4)


def answer(what_if: WhatIf, folder: Path, **set_points: float):
    end = time.monotonic() + 250.0
    while (found := what_if(folder, "R01", set_points)).state == "working":
        assert time.monotonic() < end, "it was not prepared"
        time.sleep(0.05)
    return found


def test_answers_are_the_forecast_under_what_is_tried(tmp_path):
    folder = make_run(tmp_path / "R01")
    begin(folder, digest(MODEL))
    what_if = WhatIf()
    found = answer(what_if, folder)
    assert found.state == "ready" and "what the twin learned since is not in it" in found.text
    assert all(s.is_still for s in found.sliders) and len(found.sliders) == 6
    bleed = next(s for s in found.sliders if s.name == "bleed_rate")
    assert bleed.now == pytest.approx(0.14)  # what was written last, after the last sample
    for name, band in found.bands.items():  # nothing tried is nothing changed
        np.testing.assert_array_equal(band.middle, found.unchanged[name].middle)
    assert found.bands["VCD"].hours.tolist() == [24.0 * (4 + k) for k in range(1, CHO_DAYS + 1)]
    less = answer(what_if, folder, bleed_rate=0.06)
    assert (less.bands["VCD"].middle > found.bands["VCD"].middle).all()  # cells stay in
    np.testing.assert_array_equal(less.unchanged["VCD"].q90, found.bands["VCD"].q90)
    # the same as the twin's functions give for these rows
    with RunRecords(folder / "journal.sqlite", is_read_only=True) as book:
        samples = [s.values for s in book.samples("R01")]
    from perfusio_jax.twin.loop.reader import rows_of

    history = history_from_records(rows_of(samples, DEFAULT_CONTROLS), volume_L=0.25)
    belief, _ = estimate(history, MODEL, seed=0)
    now = {**history_controls(history), "bleed_rate": 0.06}
    ours = forecast(MODEL, belief, now, horizon=CHO_DAYS, seed=0)
    k = MODEL.layout.forecast.index("VCD")
    np.testing.assert_allclose(less.bands["VCD"].q10, ours.q10[:, k], rtol=1e-9)
    # beyond a slider's end its end counts, and what is no control counts for nothing
    far = answer(what_if, folder, bleed_rate=99.0, none=1.0, temperature=float("nan"))
    tried = {s.name: s.value for s in far.sliders}
    assert tried["bleed_rate"] == bleed.high and tried["temperature"] == 36.25
    what_if.close()


def history_controls(history) -> dict[str, float]:
    last = np.asarray(history.controls)[-1]
    return dict(zip(history.control_names, map(float, last), strict=True))


def test_without_the_model_of_the_session_there_is_no_answer_but_a_reason(tmp_path):
    folder = make_run(tmp_path / "R01", n_days=1)
    what_if = WhatIf()
    assert "not the one the session began with" in answer(what_if, folder).text
    (folder / "twin.toml").write_text(
        '[twin]\nsource = "s.csv"\nmodel = "nowhere"\n', encoding="utf-8"
    )
    found = answer(what_if, folder)
    assert found.state == "none" and "does not exist" in found.text
    bare = tmp_path / "bare"
    with RunRecords(bare / "journal.sqlite") as book:
        book.close_cycle("R01", 0, "hold")
    assert answer(what_if, bare).text.startswith("There is no forecast")
    what_if.close()


def test_code_is_run_only_where_nobody_else_could_have_named_it(tmp_path):
    config = tmp_path / "twin.toml"
    config.write_text("", encoding="utf-8")
    config.chmod(0o644)
    _check_ours(config)
    config.chmod(0o664)
    with pytest.raises(ConfigError, match="names a mechanism, which is code"):
        _check_ours(config)


def test_sliders_keep_the_ranges_of_the_session_and_what_is_in_force():
    told = {"objective": {"ranges": {"dilution": [0.05, 0.3]}, "horizon_days": 1}}
    now = {c.name: c.default for c in MONOD_CHEMOSTAT.controls}
    found = {s.name: s for s in _sliders(told, MONOD_CHEMOSTAT, now)}
    first = MONOD_CHEMOSTAT.controls[0]
    assert set(found) <= set(now) and found
    if "dilution" in found:
        assert (found["dilution"].low, found["dilution"].high) == (0.05, 0.3)
    assert _sliders(told, MONOD_CHEMOSTAT, {first.name: 99.0})[0].high == 99.0
    assert _hours(told, 6.0) == [6.0 * k for k in range(1, 9)]
    assert _hours({}, 240.0) == [240.0] and len(_hours({}, 0.25)) == 48
    assert [_step(v) for v in (0.25, 2.5, 350.0, 1.0)] == [0.002, 0.02, 2.0, 0.005]


def test_a_described_culture_is_answered_for_at_its_own_interval(tmp_path, monkeypatch):
    folder = tmp_path / "R01"
    folder.mkdir()
    model = known_model()
    clock = later(10)
    with RunRecords(folder / "journal.sqlite", clock=clock) as book:
        book.keep("R01", "session", actor="lab", payload={"allow_write": True})
        for day, row in enumerate(rows(3)):
            book.record_sample("R01", day, {
                "day": day, "time_h": row["time_h"], "values": row["values"],
                "controls": row["controls"], "read_back": row["controls"], "implausible": [],
                "notes": [], "quality": "good", "reactor_id": "R01", "tags": {},
                "stream_totals": {},
            })  # fmt: skip
        with AuditLogger(folder, "E1", clock=clock, memory=book) as audit:
            goal = {"ranges": {"bleed_rate": [0.0, 0.4]}, "horizon_days": 1}
            told = {"mode": "frozen", "model_sha256": digest(model), "objective": goal}
            audit.log("SESSION_STARTED", told, day=0)
    what_if = WhatIf()
    monkeypatch.setattr(what_if, "_model", lambda place: (model, {}))
    found = answer(what_if, folder)
    assert found.state == "ready" and found.text == "With the model the session began with."
    assert {s.name: (s.low, s.high) for s in found.sliders} == {
        "perfusion_rate": (0.5, 2.0), "bleed_rate": (0.0, 0.4)}  # fmt: skip
    assert found.bands["VCD"].hours.tolist() == [24.0 * 3, 24.0 * 4]
    more = answer(what_if, folder, bleed_rate=0.4)
    assert (more.bands["VCD"].middle < found.bands["VCD"].middle).all()
    what_if.close()
