"""A twin that decides under a posterior: twin.toml, records, replay, refusals."""

import dataclasses
import json

import numpy as np
import pytest

from perfusio_jax._core import ConfigError, DataError
from perfusio_jax.process import Process
from perfusio_jax.report.decisions import reasons_of
from perfusio_jax.report.run_record import read_records
from perfusio_jax.report.run_report import model_blocks
from perfusio_jax.service.plan import read_plan
from perfusio_jax.service.replay import replay_run
from perfusio_jax.service.what_if import _drawn, _session
from perfusio_jax.study import posterior_hash, save_posterior
from tests.service.test_described_twin import (  # noqa: F401
    OBJECTIVE,
    drive,
    few_paths,
    made,
    place,
    plant,
    screen,
)
from tests.study.calibration.made import culture_of, made_posterior
from tests.twin.described import FOREIGN, Foreign

POSTERIOR = 'posterior = "posterior"'


def save_draws(folder, *, factor=1.0, problems=(), culture=None):
    draws = factor * np.linspace(0.036, 0.054, 60).reshape(2, 30, 1)
    found = made_posterior(("mu_max",), draws, problems)
    about = culture_of(FOREIGN, Foreign()) if culture is None else culture
    save_posterior(found, folder / "posterior", culture=about)
    return found


def test_a_twin_decides_under_a_posterior_and_is_replayed(place, tmp_path):  # noqa: F811
    found = save_draws(tmp_path)
    path = place(days=3, twin=POSTERIOR)
    reactor = plant(tmp_path)
    days = drive(path, reactor, range(2))
    days += drive(path, reactor, [2])  # a restart takes the same draws
    assert [d["outcome"] for d in days] == ["hold", "written", "written"]
    named = {"source": "posterior", "sha256": posterior_hash(found), "draws": 16}
    records = [json.loads(line) for line in (tmp_path / "audit.jsonl").read_text().splitlines()]
    begun = [r["payload"] for r in records if r["event_type"] == "SESSION_STARTED"]
    assert [b["posterior"] for b in begun] == [named, named]
    made = [r["payload"] for r in records if r["event_type"] == "DECISION_MADE"]  # noqa: F811
    assert len(made) == 3 and all(m["explanation"]["posterior"] == named for m in made)
    assert any(f"posterior {named['sha256'][:16]}" in line for line in reasons_of(made[-1]))
    (record,) = read_records(tmp_path)
    assert f"16 draws of the posterior with SHA-256 {named['sha256']}" in str(model_blocks(record))

    said = screen()
    assert replay_run(path, reactor_id=None, console=said)
    assert "3 of 3 decisions came out the same" in said.file.getvalue()
    assert "a session decided by" not in said.file.getvalue()
    drawn = _drawn(tmp_path, _session(tmp_path), read_plan(path).model)
    assert drawn is not None and drawn.n == 16, "the page asks with the same draws"

    # another posterior under the same name: nothing comes out the same, and it is said why
    save_draws(tmp_path, factor=1.05)
    said = screen()
    assert not replay_run(path, reactor_id=None, console=said)
    text = " ".join(said.file.getvalue().split())
    assert f"decided by 16 draws of the posterior with SHA-256 {named['sha256'][:16]}, and" in text
    with pytest.raises(DataError, match="not the one the session began with"):
        _drawn(tmp_path, _session(tmp_path), read_plan(path).model)
    path.write_text(path.read_text().replace(POSTERIOR, ""))
    said = screen()
    assert not replay_run(path, reactor_id=None, console=said)
    assert "and the settings name no posterior" in " ".join(said.file.getvalue().split())


def test_what_is_told_of_a_posterior_is_told_before_the_run(place, tmp_path):  # noqa: F811
    save_draws(tmp_path, factor=2.0, problems=("it diverged",))
    path = place(twin=POSTERIOR + "\naccept_warnings = true")
    said = screen()
    read_plan(path).announce(said)
    text = " ".join(said.file.getvalue().split())
    assert "not to be believed as it is: it diverged" in text
    assert "learned around constants outside of the posterior's 95 %: mu_max 0.045" in text
    assert "posterior: 16 draws of posterior (SHA-256 " in text


@pytest.mark.parametrize(
    ("twin", "changes", "message"),
    [
        (POSTERIOR, {"problems": ("it diverged",)}, "it diverged. --accept.*accept_warnings = tru"),
        (POSTERIOR, {"culture": {"process": "vial"}}, "is of vial, the model of foreign"),
        ("accept_warnings = true", {}, "is of a posterior; posterior names its folder"),
        ("posterior = 3", {}, "posterior in .twin. is 3; it must be the folder of a posterior"),
    ],
)
def test_what_cannot_be_decided_by_is_refused_before_anything_starts(
    place,  # noqa: F811
    tmp_path,
    twin,
    changes,
    message,
):
    save_draws(tmp_path, **changes)
    with pytest.raises(ConfigError, match=f"(?s)twin.toml.*{message}"):
        read_plan(place(twin=twin))


def test_a_changed_culture_a_missing_folder_and_cho_perfusion_are_refused(place, tmp_path):  # noqa: F811
    path = place(twin=POSTERIOR)
    with pytest.raises(DataError, match="posterior"):
        read_plan(path)
    about = culture_of(FOREIGN, Foreign())
    then = Process.model_validate({**about["description"], "volume_L": 0.5})
    about["description"] = then.model_dump(mode="json", exclude_defaults=True)
    save_draws(tmp_path, culture=about)
    with pytest.raises(ConfigError, match=r"changed since: volume_L is 0.5 and 0.3 .*Calibrate"):
        read_plan(path)
    path.write_text(f'[twin]\nsource = "samples.csv"\n{POSTERIOR}\n')
    with pytest.raises(ConfigError, match="posterior in .twin. is of a culture that process"):
        read_plan(path)


def test_draws_are_no_more_than_the_paths_there_are(place, tmp_path):  # noqa: F811
    save_draws(tmp_path)
    path = place(twin=POSTERIOR)
    plan = read_plan(path)
    assert plan.posterior is not None and plan.posterior.drawn.n == 16, "n_mc_samples of [run]"
    path.write_text(path.read_text().replace("n_mc_samples = 16", "n_mc_samples = 64"))
    more = read_plan(path).posterior
    assert more is not None and more.drawn.n == 32
    path.write_text(path.read_text().replace("seed = 3", "seed = 4"))
    other = read_plan(path).posterior
    assert other is not None and other.sha256 == more.sha256
    assert not np.array_equal(other.drawn.kinetics.mu_max, more.drawn.kinetics.mu_max)
    assert dataclasses.is_dataclass(plan)
