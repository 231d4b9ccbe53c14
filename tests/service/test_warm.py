"""`warm`: what a run compiles, compiled before it."""

import io
from types import SimpleNamespace

import numpy as np
import pytest
from rich.console import Console

from perfusio_jax._core import FORECAST_SPECIES
from perfusio_jax._core.executables import keep_executables
from perfusio_jax._core.programs import compiled
from perfusio_jax.service import warm
from perfusio_jax.twin.decision.step import history_from_records

CONFIG = """
[twin]
source = "samples.csv"
mode = "{mode}"
[run]
duration_days = {days}
sampling_interval_hours = {every}
"""


@pytest.fixture
def place(tmp_path):
    """A run's configuration; its samples and records are never opened."""

    def write(mode="adaptive", days=7, every=24):
        (tmp_path / "samples.csv").write_text("day,VCD\n")
        (tmp_path / "twin.toml").write_text(CONFIG.format(mode=mode, days=days, every=every))
        return tmp_path / "twin.toml"

    return write


class Rehearsed:
    """A brain that notes what it is asked, and grows the culture by a tenth a step."""

    def __init__(self, brain):
        self.base_model, self.policy = brain.base_model, brain.policy
        self.lengths, self.learnt, self.days = [], [], []

    def learn(self, situation):
        self.learnt.append(len(situation.rows))

    def propose(self, situation):
        self.lengths.append(len(situation.rows))
        self.days.append(situation.day)
        run = history_from_records(situation.rows, volume_L=0.25)
        assert np.isfinite(run.species).all() and np.isfinite(run.controls).all()
        return SimpleNamespace(
            setpoints={"bleed_rate": 0.2}, forecast={"q50": 1.1 * np.asarray(run.species)[-1:]}
        )


@pytest.mark.parametrize(
    ("settings", "n", "longest"),
    [
        ({"mode": "frozen"}, 2, 2),
        ({}, 12, 12),  # without a campaign's model the first challenger waits for eight samples
        ({"mode": "frozen", "days": 60, "every": 12}, 2, 65),
        ({"mode": "frozen", "days": 90, "every": 12}, 2, 129),
    ],
)
def test_a_rehearsal_goes_as_far_as_something_new_compiles(place, settings, n, longest):
    (plan,) = warm.plans_of(place(**settings))
    brain = Rehearsed(warm.brain_of(plan))
    assert warm.days_needed(plan) == n
    said = []
    warm.rehearse(plan, brain, n, said.append)
    assert brain.learnt == list(range(1, n + 1))
    assert brain.lengths[:n] == brain.learnt and max(brain.lengths) == longest
    every = plan.parts.run.sampling_interval_hours
    assert brain.days[:2] == [0, every / 24.0] and len(said) == len(brain.lengths)
    assert set(warm.start_values(brain)) == set(FORECAST_SPECIES)


def test_what_was_compiled_and_where_it_is_kept_is_said(place, tmp_path, monkeypatch):
    @compiled
    def twice(x):
        return 2.0 * x

    def rehearse(plan, brain, n, say):
        twice(np.ones(3))
        say("1 of 1 decisions")

    twice._fn.__module__ = "perfusio_jax.made_up"
    monkeypatch.setattr(warm, "rehearse", rehearse)

    def said() -> str:
        out = io.StringIO()
        warm.warm_run(place(), console=Console(file=out, width=400))
        return out.getvalue()

    assert "are not kept here" in said()
    keep_executables(tmp_path / "kept")
    first, second = said(), said()
    assert "compiled programs: 1 new" in first and str(tmp_path / "kept") in first
    assert "everything was there already" in second and "12 decisions" in second
