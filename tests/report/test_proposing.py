"""`propose`: from a table of runs to the next recipes, and what it says about bad input."""

import csv
import dataclasses
import io

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from rich.console import Console

from perfusio_jax import cli
from perfusio_jax._core import CONTROL_NAMES, ConfigError, DataError
from perfusio_jax.bed.campaign import CampaignSettings
from perfusio_jax.config import DEFAULT_AMBR250_DESIGN_SPACE
from perfusio_jax.connectors import write_campaign
from perfusio_jax.hybrid import HybridConfig
from perfusio_jax.report.proposing import (
    Wishes,
    limits_of,
    objective,
    propose_file,
    read_recipes,
    read_space,
    recipes_of,
)
from perfusio_jax.simulator import (
    NoiseModel,
    initial_state,
    simulate_campaign,
    to_trajectories,
    virtual_reactor,
)

SPACE = DEFAULT_AMBR250_DESIGN_SPACE
SMALL = CampaignSettings(
    n_raw=16, n_children=8, n_parents=4, widths=(0.1,), climb_rounds=0, batch=8
)
PLAIN = HybridConfig(use_gp=False, calibrate=False, n_particles=16)
"""The mechanism alone: quick to fit, and all that the command's own work needs."""
DAYS = 4


@pytest.fixture(scope="module")
def runs():
    lower, upper = map(np.asarray, SPACE.bounds_array)
    recipes = lower + (upper - lower) * np.random.default_rng(2).random((4, 6))
    readings = simulate_campaign(
        virtual_reactor("CloneX"),
        jnp.broadcast_to(initial_state(), (4, 10)),
        jnp.broadcast_to(jnp.asarray(recipes)[:, None, :], (4, DAYS, 6)),
        NoiseModel(),
        key=jax.random.key(1),
    )
    return to_trajectories(readings, clone_ids=["CloneX"] * 4)


@pytest.fixture(scope="module")
def table(runs, tmp_path_factory):
    path = tmp_path_factory.mktemp("propose") / "runs.csv"
    write_campaign(runs, path)
    return path


def test_a_table_of_runs_gives_the_next_recipes_in_words_and_as_a_table(table, tmp_path, runs):
    text, out = io.StringIO(), tmp_path / "next.csv"
    pending = tmp_path / "pending.csv"
    cells = [f"{0.5 * (b.lo + b.hi):g}" for b in SPACE.control_bounds.values()]
    pending.write_text(",".join(["run_id", *CONTROL_NAMES]) + "\nP1," + ",".join(cells) + "\n")
    found = propose_file(
        table,
        wishes=Wishes(n_runs=2, viability=50.0, ammonium=20.0, fixed={"temperature": 36.5}),
        pending=pending,
        space=None,
        out=out,
        console=Console(file=text, width=200, highlight=False, markup=False),
        settings=SMALL,
        config=PLAIN,
    )
    with out.open(newline="") as file:
        rows = list(csv.reader(file))
    assert rows[0][:8] == ["run_id", "clone_id", *CONTROL_NAMES]
    assert rows[1][2] == "vvd" and len(rows) == 4
    assert [r[0] for r in rows[2:]] == ["NEXT005", "NEXT006"]
    assert all(float(r[5]) == 36.5 for r in rows[2:])
    # its own table is a table of pending runs
    assert read_recipes(out, list(CONTROL_NAMES)).shape == (2, 6)
    said = text.getvalue()
    for words in (
        "about",
        "Via >= 50",
        "Amm <= 20",
        "% of the design space",
        "final Titer [mg/L]",
        "1. ",
    ):
        assert words in said, words
    assert len(found["runs"]) == 2 and found["is_feasible"]
    assert set(found["best_of_runs_so_far"]) == {"final Titer [mg/L]"}


def test_what_no_recipe_keeps_is_an_error_with_a_way_out(table, tmp_path):
    with pytest.raises(ConfigError, match=r"no recipe was found that keeps Via >= 99.*Relax"):
        propose_file(
            table,
            wishes=Wishes(n_runs=2, viability=99.9, ammonium=20.0, fixed={"temperature": 36.5}),
            pending=None,
            space=None,
            out=tmp_path / "none.csv",
            console=Console(file=io.StringIO()),
            settings=SMALL,
            config=PLAIN,
        )
    assert not (tmp_path / "none.csv").exists()


def test_one_run_or_an_empty_file_is_refused_before_any_work(runs, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(cli.common, "set_up_jax", lambda device=None: None)
    one, empty = tmp_path / "one.csv", tmp_path / "empty.csv"
    write_campaign(runs[:1], one)
    empty.write_text("")
    for path, words in ((one, "two or more"), (empty, "empty"), (tmp_path / "no.csv", "not exist")):
        with pytest.raises(SystemExit) as stop:
            cli.main(["propose", str(path), "--out", str(tmp_path / "out.csv")])
        assert stop.value.code == 3
        assert words in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--goal", "glory"], "unknown"),
        (["--goal", "vcv", "--target", "-3"], "target"),
        (["--viability", "130"], "viability"),
        (["--probability", "1.5"], "probability"),
        (["--ammonium", "0"], "ammonium"),
        (["--set", "stirring=3"], "unknown controls"),
        (["--space", "nowhere.toml"], "not a file"),
    ],
)
def test_unusable_wishes_are_told_apart(table, tmp_path, monkeypatch, capsys, arguments, says):
    monkeypatch.setattr(cli.common, "set_up_jax", lambda device=None: None)
    with pytest.raises(SystemExit) as stop:
        cli.main(["propose", str(table), "--out", str(tmp_path / "out.csv"), *arguments])
    assert stop.value.code == 2
    assert says in capsys.readouterr().err


def test_goals_become_objectives_and_limits():
    design = SPACE
    labels = {
        goal: [c.label for c in objective(Wishes(goal=goal), design, 14).criteria]
        for goal in ("titre", "vcv", "front", "yield", "medium")
    }
    assert labels["front"] == ["final Titer [mg/L]", "final Amm [mmol/L]"]
    assert labels["yield"] == ["space-time yield [mg/L/d]"]
    assert objective(Wishes(goal="front"), design, 14).is_pareto
    low, high = limits_of(Wishes(ammonium=6.0), design)
    assert float(low.minimum) == design.viability_min and high.is_upper


def test_a_run_whose_set_points_moved_counts_with_their_mean(runs):
    moved = runs[0].controls.at[2:, 3].add(1.0)
    changed = dataclasses.replace(runs[0], controls=moved)
    recipes, lines = recipes_of([changed, runs[1]], list(CONTROL_NAMES))
    hours = np.diff(np.asarray(runs[0].times_h))
    share = hours[2:].sum() / hours.sum()
    base = float(runs[0].controls[0, 3])
    assert recipes[0, 3] == pytest.approx(base + share)
    assert len(lines) == 1 and "temperature" in lines[0]


def test_pending_tables_and_spaces_that_cannot_be_read(tmp_path):
    bad = tmp_path / "bad.csv"
    bad.write_text("run_id,perfusion_rate\na,1\n")
    with pytest.raises(DataError, match="lacks the columns"):
        read_recipes(bad, list(CONTROL_NAMES))
    bad.write_text(",".join(CONTROL_NAMES) + "\n1,1,1,1,1,1\n1,x,1,1,1,1\n")
    with pytest.raises(DataError, match="line 3"):
        read_recipes(bad, list(CONTROL_NAMES))
    # a first row that is not the units is data: nothing is passed over in silence
    for text, words in (("\n1,x,1,1,1,1\n", "line 2"), ("\nh,h,h,h,h,h\n", "line 2")):
        bad.write_text(",".join(CONTROL_NAMES) + text)
        with pytest.raises(DataError, match=words):
            read_recipes(bad, list(CONTROL_NAMES))
    bad.write_text("")
    with pytest.raises(DataError, match="is empty"):
        read_recipes(bad, list(CONTROL_NAMES))
    bad.write_text(",".join(CONTROL_NAMES) + "\n")
    assert read_recipes(bad, list(CONTROL_NAMES)).shape == (0, 6)
    toml = tmp_path / "space.toml"
    for text, words in (("a =", "not TOML"), ("[other]\n", "no table")):
        toml.write_text(text)
        with pytest.raises(ConfigError, match=words):
            read_space(toml)
    import tomli_w

    toml.write_text(tomli_w.dumps({"design_space": SPACE.model_dump(exclude_none=True)}))
    assert read_space(toml) == SPACE
