"""The next runs proposed in memory: runs left out, recipes refused, nothing written."""

import os
import threading
import time

import pytest

from perfusio_jax._core import CONTROL_NAMES, ConfigError
from perfusio_jax.cli import main
from perfusio_jax.report import proposing_again
from perfusio_jax.report.proposing import propose_file
from perfusio_jax.report.proposing_again import ProposingAgain
from perfusio_jax.report.wishes import Wishes
from tests.report.run_folders import campaign_csv
from tests.report.test_proposing import PLAIN, SMALL, runs, table  # noqa: F401

WISHES = Wishes(goal="front", n_runs=2, viability=50.0, ammonium=20.0)


@pytest.fixture(scope="module")
def again(table):  # noqa: F811
    found = ProposingAgain([table], WISHES, settings=SMALL, config=PLAIN)
    yield found
    found.close()


def answered(ask, *asked):
    end = time.monotonic() + 300.0
    while time.monotonic() < end:
        found = ask(*asked)
        if found.state != "working":
            return found
        time.sleep(0.05)
    raise AssertionError("it was not answered")


def test_runs_are_proposed_left_out_and_refused_and_nothing_is_written(again, table):  # noqa: F811
    before = sorted(p.name for p in table.parent.iterdir())
    begun = again((), ())
    assert begun.state == "working" and len(begun.runs) == 4 and not begun.proposals
    first = answered(again, (), ())
    assert first.state == "ready", first.text
    assert len(first.proposals) == 2 and list(first.goals.values()) == [1.0, -1.0]
    assert tuple(first.units) == CONTROL_NAMES and first.units["temperature"] == "degC"
    assert all(run.expected.keys() == first.goals.keys() for run in first.runs)
    for proposal in first.proposals:
        assert set(proposal.set_points) == set(CONTROL_NAMES) and len(proposal.kept) == 2
        for middle, low, high in proposal.expected.values():
            assert low <= middle <= high
    assert first.words and not any(line.startswith("1. ") for line in first.words)
    name = first.runs[1].name
    assert f"--goal front --without {name}" in answered(again, (name,), ()).command

    fewer = answered(again, (name, "nobody"), ())
    assert [run.name for run in fewer.runs if run.is_left_out] == [name]
    assert fewer.runs[1].expected == {} and fewer.runs[2].expected
    assert again((name,), ()) is fewer  # kept, not reckoned anew

    assert list(again._fits) == [(again.version(), ()), (again.version(), (name,))]
    models = list(again._fits.values())
    unwanted = tuple(first.proposals[0].set_points.values())
    other = answered(again, (), (unwanted, (1.0, 2.0), (float("nan"),) * 6))
    assert other.refused == (unwanted,) and other.command == ""
    assert all(tuple(p.set_points.values()) != unwanted for p in other.proposals)
    assert [id(m) for m in again._fits.values()] == [id(m) for m in models[::-1]]  # not fitted anew
    assert sorted(p.name for p in table.parent.iterdir()) == before


def test_a_table_that_changes_is_read_anew_and_one_that_is_gone_is_told(tmp_path):
    path = campaign_csv(tmp_path / "runs.csv", n_runs=1)
    asked = ProposingAgain([path], Wishes(), settings=SMALL, config=PLAIN)
    alone = answered(asked, (), ())
    assert alone.state == "none" and "two or more are needed" in alone.text
    version = asked.version()
    campaign_csv(path, n_runs=3)
    os.utime(path, ns=(1, 1))
    assert asked.version() != version
    assert [run.name for run in asked((), ()).runs] == ["E0", "E1", "E2"]
    path.unlink()
    gone = asked((), ())
    assert gone.state == "none" and "cannot be read" in gone.text
    asked.close()


def test_what_nobody_waits_for_any_more_is_not_begun(tmp_path, monkeypatch):
    begun, go = [], threading.Event()

    def slow(*args, wishes, **more):
        begun.append(wishes.without)
        go.wait(20.0)
        raise ConfigError("no recipe was found that keeps it")

    monkeypatch.setattr(proposing_again, "propose_file", slow)
    asked = ProposingAgain([campaign_csv(tmp_path / "runs.csv")], Wishes())
    for without in ((), ("E0",), ("E1",)):
        assert asked(without, ()).state == "working"
        if not without:
            end = time.monotonic() + 20.0
            while not begun and time.monotonic() < end:
                time.sleep(0.01)
    go.set()
    told = answered(asked, ("E1",), ())
    assert "no recipe was found" in told.text and begun == [(), ("E1",)]
    asked.close()


def test_runs_are_left_out_on_the_command_line_too(table, tmp_path, capsys):  # noqa: F811
    with pytest.raises(ConfigError, match=r"--without X9: there is no such run"):
        propose_file(
            table,
            wishes=Wishes(without=("X9",)),
            pending=None,
            space=None,
            out=tmp_path / "o.csv",
            console=_Quiet(),
        )
    with pytest.raises(SystemExit) as stop:
        main(["propose", str(campaign_csv(tmp_path / "runs.csv", n_runs=3)), "--without", "E0",
              "--without", "E1", "--out", str(tmp_path / "o.csv")])  # fmt: skip
    assert stop.value.code
    said = capsys.readouterr()
    assert "left out, as asked: E0, E1" in said.out
    assert "two or more are needed" in " ".join(said.err.split())


class _Quiet:
    def print(self, *args, **more) -> None:
        pass
