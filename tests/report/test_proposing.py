"""`propose`: from a table of runs to the next recipes, and what it says about bad input."""

import csv
import dataclasses
import io
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from rich.console import Console

from perfusio_jax import cli
from perfusio_jax._core import CONTROL_NAMES, ConfigError, DataError
from perfusio_jax.bed.policy.campaign_settings import CampaignSettings
from perfusio_jax.config import DEFAULT_AMBR250_DESIGN_SPACE
from perfusio_jax.connectors import read_campaign, write_campaign
from perfusio_jax.connectors.files.schedule import read_schedules
from perfusio_jax.hybrid import HybridConfig
from perfusio_jax.mechanistic import CHOKinetics, build_of
from perfusio_jax.report.answer import answer
from perfusio_jax.report.cho_aims import check_wishes, limits_of, objective, read_space
from perfusio_jax.report.proposal_words import best_measured, in_words
from perfusio_jax.report.proposing import propose_file
from perfusio_jax.report.recipes import new_ids, read_recipes, recipes_of, still_pending
from perfusio_jax.report.wishes import Wishes
from perfusio_jax.simulator import (
    NoiseModel,
    initial_state,
    simulate_campaign,
    to_trajectories,
    virtual_reactor,
)
from perfusio_jax.study import save_posterior
from tests.study.calibration.made import made_posterior

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


def asked_with(table, out, **more):
    text = io.StringIO()
    found = propose_file(
        table,
        wishes=Wishes(n_runs=1, viability=50.0, **more),
        pending=None,
        space=None,
        out=out,
        console=Console(file=text, width=200, highlight=False, markup=False),
        settings=SMALL,
        config=PLAIN,
    )
    return found, text.getvalue()


def test_recipes_for_cho_cells_meet_constants_drawn_from_a_posterior(table, runs, tmp_path):
    base = {"process": "cho_perfusion", "mechanism": "cho"}
    culture = {**base, "build": build_of(CHOKinetics()).as_json()}
    draws = np.array([2e-9, 2e-9]) * (1.0 + np.linspace(-0.1, 0.1, 64))[None, :, None]
    label = "final Titer [mg/L]"
    expected = []
    for factor in (0.1, 1.0):
        found = made_posterior(("q_mAb_growth", "q_mAb_nongrowth"), factor * draws)
        folder = save_posterior(found, tmp_path / "p", culture=culture)
        made, said = asked_with(table, tmp_path / "next.csv", posterior=folder)
        assert made["posterior"]["draws"] == 64 and "constants of 64 draws of" in said
        expected.append(made["runs"][0]["expected"][label])
    assert expected[1] > 1.3 * expected[0], "what cells make is what the posterior says"
    two = [dataclasses.replace(run, clone_id=f"C{k}") for k, run in enumerate(runs)]
    write_campaign(two, tmp_path / "two.csv")
    with pytest.raises(ConfigError, match="is of one clone, and the runs are of C0, C1, C2, C3"):
        asked_with(tmp_path / "two.csv", tmp_path / "next.csv", posterior=folder)
    with pytest.raises(ConfigError, match="another mechanism: they are Monod and CHOKinetics"):
        other = {**base, "build": {**culture["build"], "kind": "Monod"}}
        save_posterior(found, folder, culture=other)
        asked_with(table, tmp_path / "next.csv", posterior=folder)
    with pytest.raises(ConfigError, match="is of vial, the runs of cho_perfusion"):
        save_posterior(found, folder, culture={"process": "vial"})
        asked_with(table, tmp_path / "next.csv", posterior=folder)


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
        "1 pending run(s) counted as under way: P1",
        "fixed in every run: temperature 36.5 °C",
        "(best guess)",
        "as measured (run ",
    ):
        assert words in said, words
    assert "temperature at its" not in said
    label = "final Titer [mg/L]"
    shown = [run["expected"][label] for run in found["runs"] if run["is_kept"]]
    assert found["best_expected"][label] == max(shown)
    best = f"best expected of the runs proposed {max(shown):.4g}"
    assert best in said
    assert len(found["runs"]) == 2 and found["is_feasible"]
    assert set(found["best_of_runs_so_far"]) == {"final Titer [mg/L]"}


def test_goals_and_limits_of_cho_perfusion_may_be_told_by_name(table, tmp_path):
    text, out = io.StringIO(), tmp_path / "next.csv"
    found = propose_file(
        table,
        wishes=Wishes(
            goal="VCD = 10", limits=("Lac <= 40",), n_runs=1, viability=50.0, probability=0.5
        ),
        pending=None,
        space=None,
        out=out,
        console=Console(file=text, width=200, highlight=False, markup=False),
        settings=SMALL,
        config=PLAIN,
        culture="cho_perfusion",
    )
    assert len(found["runs"]) == 1 and "Lac <= 40" in text.getvalue()
    assert [c["limit"] for c in found["constraints"]] == ["Via >= 50", "Lac <= 40"]


def test_a_goal_by_name_is_worth_what_the_word_is():
    Y = jnp.asarray(np.random.default_rng(0).uniform(1.0, 5.0, (3, DAYS, 12)))
    u = jnp.zeros(6)
    for word, name, target in (
        ("titre", "max Titer", None), ("vcv", "VCV = 3", 3.0), ("front", "", None),
    ):  # fmt: skip
        ours = objective(Wishes(goal=word, target=target), SPACE, DAYS)
        goals = ("max Titer", "min Amm") if word == "front" else ()
        named = Wishes(goal=name or "titre", goals=goals, is_front=word == "front")
        np.testing.assert_array_equal(
            ours.score_with_controls(Y, u),
            objective(named, SPACE, DAYS).score_with_controls(Y, u),
        )
    both = Wishes(goals=("max Titer", "Glc = 3"), weights=(2.0, 1.0))
    apart = [objective(Wishes(goal=g), SPACE, DAYS).score_with_controls(Y, u) for g in both.goals]
    np.testing.assert_allclose(
        objective(both, SPACE, DAYS).score_with_controls(Y, u), 2.0 * apart[0] + apart[1]
    )


@pytest.mark.parametrize(
    ("wishes", "says"),
    [
        ({"goal": "max Titre"}, "goal 'max Titre': 'Titre' is not forecast .did you mean"),
        ({"goal": "the best"}, "goal 'the best' is unknown; choose from titre"),
        ({"goal": "VCV = 3", "target": 4.0}, "--target is of goal vcv"),
        ({"goals": ("max mean(Glc)",)}, "Arithmetic over a run, costs and flows are of cultures"),
        ({"goals": ("max Titer",), "is_front": True}, "a front is between two goals or more"),
        ({"goals": ("max Titer",), "weights": (0.0,)}, "one number above 0 is needed for each"),
        ({"limits": ("Via > 80",)}, "a limit is NAME>=value or NAME<=value"),
        ({"limits": ("pH >= 7",)}, "'pH' is not forecast"),
    ],
)
def test_goals_and_limits_by_name_that_mean_nothing_are_refused(wishes, says):
    with pytest.raises(ConfigError, match=says):
        objective(Wishes(**wishes), SPACE, DAYS)
        limits_of(Wishes(**wishes), SPACE)


FOUND = {
    "best_expected": {"final Titer [mg/L]": 1583.0},
    "best_looked_at": {"final Titer [mg/L]": 1590.0},
    "best_of_runs_so_far": {"final Titer [mg/L]": 1664.0},
    "best_measured": {"final Titer [mg/L]": (1671.0, "T5")},
    "fixed": ["temperature"],
    "constraints": [
        {
            "limit": "Via >= 90",
            "is_daily": True,
            "probability": 0.8,
            "share_of_space": 0.4,
            "best_without": {"final Titer [mg/L]": 1700.0},
        }
    ],
    "runs": [
        {
            "expected": {"final Titer [mg/L]": value},
            "q10": {"final Titer [mg/L]": value - 50},
            "q90": {"final Titer [mg/L]": value + 50},
            "probability_kept": [kept],
            "is_kept": kept >= 0.8,
            "at_lower_bound": [],
            "at_upper_bound": [],
        }
        for value, kept in ((1570.0, 0.9), (1650.0, 0.77), (1583.0, 0.81))
    ],
    "remarks": ["Run T5, already made, is expected to be better."],
}


def test_words_and_numbers_of_a_proposal_agree():
    U = np.tile([1.0, 0.1, 5.0, 36.5, 850.0, 2.0], (3, 1))
    lines = in_words(FOUND, U, list(CONTROL_NAMES))
    assert lines[0] == (
        "final Titer [mg/L]: best expected of the runs proposed 1583 (of all recipes looked at "
        "1590); of the runs so far 1664, 1671 as measured (run T5)"
    )
    assert "without it final Titer [mg/L] could be 1700" in lines[1]
    assert lines[2] == "fixed in every run: temperature 36.5 °C"
    marked = [line for line in lines if "(best guess)" in line]
    assert len(marked) == 1 and marked[0].startswith("3. ")
    assert "limits kept with probability 0.77, less than was asked" in lines[6]
    assert lines[-1] == FOUND["remarks"][0]


def test_people_read_units_as_they_write_them_and_tables_keep_their_spelling(runs, tmp_path):
    found = json.loads(json.dumps(FOUND).replace("Titer [mg/L]", "VCD [1e6 cells/mL]"))
    U, text, out = np.tile([1.0, 0.1, 5.0, 36.5, 850.0, 2.0], (3, 1)), io.StringIO(), tmp_path / "n"
    cards = []
    answer(
        found,
        U,
        runs,
        U[:1],
        ofv=objective(Wishes(), SPACE, DAYS),
        span=np.ones(6),
        names=list(CONTROL_NAMES),
        held=["temperature"],
        taken=(),
        clone="X",
        out=out,
        console=Console(file=text, width=300),
        on_card=cards.append,
    )
    (card,) = cards
    assert card.sentences[0].startswith("final VCD [10⁶ cells/mL]: best expected")
    said = "\n".join((*card.sentences, text.getvalue()))
    assert "temperature 36.5 °C" in said and "1e6 cells" not in said and "degC" not in said
    head, units, *_ = csv.reader(out.read_text(encoding="utf-8").splitlines())
    assert (
        "final VCD [1e6 cells/mL]: expected" in head and units[head.index("temperature")] == "degC"
    )


def test_the_best_reading_at_the_end_of_a_run_is_named(runs):
    goal = objective(Wishes(), SPACE, DAYS - 1)
    ends = {run.run_id: float(run.species[-1, run.species_names.index("Titer")]) for run in runs}
    days = round(float(runs[0].times_h[-1]) / 24)
    (found,) = best_measured(runs, objective(Wishes(), SPACE, days)).values()
    best = max((v, k) for k, v in ends.items() if np.isfinite(v))
    assert found == best
    # a run of another length says nothing about the goal; nor does one without a reading
    assert best_measured(runs, goal) == {} or days == DAYS - 1
    assert best_measured(runs, objective(Wishes(goal="yield"), SPACE, days)) == {}


def test_new_runs_get_names_that_no_run_has():
    assert new_ids(3, 4, set()) == ["NEXT005", "NEXT006", "NEXT007"]
    assert new_ids(2, 4, {"NEXT005", "NEXT007"}) == ["NEXT006", "NEXT008"]


def test_pending_runs_are_named_and_counted_once(tmp_path):
    path = tmp_path / "pending.csv"
    header = "run_id," + ",".join(CONTROL_NAMES) + "\n"
    rows = [f"{name},1,0.1,5,36.5,850,{k}\n" for k, name in enumerate(("NEXT005", "T2", ""))]
    path.write_text(header + "".join(rows))
    waiting, lines = still_pending(path, list(CONTROL_NAMES), ["T1", "T2"])
    assert [name for name, _ in waiting] == ["NEXT005", ""]
    assert lines == [
        "no longer pending, because their results are in the table: T2",
        "2 pending run(s) counted as under way: NEXT005, 1 without a run_id",
    ]
    path.write_text(header + rows[0] + rows[0])
    with pytest.raises(DataError, match="NEXT005 more than once"):
        still_pending(path, list(CONTROL_NAMES), [])
    assert still_pending(None, list(CONTROL_NAMES), []) == ([], [])


@pytest.mark.parametrize("name", CONTROL_NAMES)
def test_a_set_point_outside_its_bounds_is_refused_by_name(name):
    bound = SPACE.control_bounds[name]
    for value in (bound.hi * 2 + 1, bound.lo - 1, float("nan")):
        with pytest.raises(ConfigError, match=rf"{name} is to be held at {value:g}; .* allows"):
            check_wishes(Wishes(fixed={name: value}), SPACE)
    position = SPACE.control_names.index(name)
    assert check_wishes(Wishes(fixed={name: bound.hi}), SPACE) == {position: bound.hi}


@pytest.mark.parametrize(
    ("wishes", "error", "says"),
    [
        ({"fixed": {"temperature": 50.0}}, ConfigError, "temperature is to be held at 50"),
        ({"fixed": {"stirring": 1.0}}, ConfigError, "unknown controls"),
        ({"clone": "CloneQ"}, ConfigError, "CloneQ is not in the table"),
        ({"fixed": dict.fromkeys(CONTROL_NAMES, 1.0)}, ConfigError, "design space allows"),
    ],
)
def test_what_is_asked_is_checked_before_anything_is_fitted(
    table, tmp_path, monkeypatch, wishes, error, says
):
    def fit(*arguments, **options):
        raise AssertionError("fitted before it was checked")

    monkeypatch.setattr("perfusio_jax.report.proposing.fit_hybrid", fit)
    arguments = {"pending": None, "space": None, "console": Console(file=io.StringIO())}
    with pytest.raises(error, match=says):
        propose_file(table, wishes=Wishes(**wishes), out=tmp_path / "out.csv", **arguments)
    with pytest.raises(ConfigError, match="overwrite the runs so far"):
        propose_file(table, wishes=Wishes(), out=table, **arguments)


@pytest.mark.parametrize("name", CONTROL_NAMES)
def test_a_table_that_lacks_a_control_says_what_helps(table, tmp_path, monkeypatch, name):
    rows = list(csv.reader(table.read_text().splitlines()))
    place = rows[0].index(name)
    lacking = tmp_path / "lacking.csv"
    lacking.write_text("".join(",".join(r[:place] + r[place + 1 :]) + "\n" for r in rows))
    text = io.StringIO()

    def fit(runs, **options):
        raise InterruptedError(sorted({r.control_names for r in runs}))

    monkeypatch.setattr("perfusio_jax.report.proposing.fit_hybrid", fit)
    arguments = {
        "pending": None,
        "space": None,
        "out": tmp_path / "out.csv",
        "console": Console(file=text, width=300),
    }
    with pytest.raises(DataError, match=f"no value of {name} in all runs.*--set name=value"):
        propose_file(lacking, wishes=Wishes(), **arguments)
    bound = SPACE.control_bounds[name]
    with pytest.raises(InterruptedError):
        propose_file(lacking, wishes=Wishes(fixed={name: bound.lo}), **arguments)
    assert f"assumed: {name} {bound.lo:g}" in text.getvalue()


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


@pytest.mark.parametrize("command", ["fit", "validate", "propose"])
def test_blank_set_points_name_the_option_that_fills_them(
    table, tmp_path, monkeypatch, capsys, command
):
    monkeypatch.setattr(cli.common, "set_up_jax", lambda device=None: None)
    rows = list(csv.reader(table.read_text().splitlines()))
    place = rows[0].index("temperature")
    for k, row in enumerate(rows[2:]):
        row[place] = row[place] if k % (DAYS + 1) == 0 else ""
    blank = tmp_path / "blank.csv"
    blank.write_text("".join(",".join(row) + "\n" for row in rows))
    out = tmp_path / ("out.csv" if command == "propose" else "out")
    call = [command, str(blank), "--out", str(out)]
    with pytest.raises(SystemExit) as stop:
        cli.main(call)
    assert stop.value.code == 3
    said = capsys.readouterr().err
    assert "temperature in" in said and "--fill-down" in said and "nobody foresaw" not in said
    fitted = []

    def fit(runs, **options):
        fitted.extend(np.isnan(np.asarray(run.controls)).any() for run in runs)
        raise DataError("far enough")

    for place in ("hybrid.choice.fit_hybrid", "report.validation.cross_validate"):
        monkeypatch.setattr(f"perfusio_jax.{place}", fit)
    monkeypatch.setattr("perfusio_jax.report.proposing.fit_hybrid", fit)
    with pytest.raises(SystemExit):
        cli.main([*call, "--fill-down"])
    assert fitted == [False] * 4
    assert "filled down blank set-points" in capsys.readouterr().out


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


def test_set_points_that_change_within_a_run_are_a_schedule_of_cho_perfusion(table, tmp_path):
    text, out = io.StringIO(), tmp_path / "next.csv"
    found = propose_file(
        table,
        wishes=Wishes(
            goal="yield",
            n_runs=2,
            viability=50.0,
            fixed={"temperature": 36.5},
            profile=1,
            max_change={"perfusion_rate": 0.4},
        ),
        pending=None,
        space=None,
        out=out,
        console=Console(file=text, width=200, highlight=False, markup=False),
        settings=SMALL,
        config=PLAIN,
    )
    schedules = read_schedules(out, CONTROL_NAMES)
    assert [one.run_id for one in schedules] == ["NEXT005", "NEXT006"]
    moved = 0
    for one in schedules:
        np.testing.assert_array_equal(one.times_h, 24.0 * np.arange(DAYS + 1))
        steps = np.diff(one.rows[:-1], axis=0)
        assert np.all(np.count_nonzero(steps, axis=0) <= 1)
        assert np.abs(steps[:, 0]).max() <= 0.4 + 1e-5
        assert np.all(one.rows[:, 3] == 36.5)
        moved += np.count_nonzero(steps)
    assert found["is_feasible"] and "space-time yield" in text.getvalue() and moved > 0
    assert "temperature 36.5 °C" in text.getvalue()
    # what is written is a table of pending runs, and set-points for a simulation
    call = ["simulate", str(tmp_path / "made.csv"), "--schedule", str(out), "--no-noise"]
    try:
        cli.main(call)
    except SystemExit as stop:
        assert not stop.code
    made = read_campaign(tmp_path / "made.csv").trajectories
    assert [run.run_id for run in made] == ["NEXT005", "NEXT006"]
    np.testing.assert_allclose(np.asarray(made[1].controls)[:-1], schedules[1].rows[:-1], rtol=1e-5)
