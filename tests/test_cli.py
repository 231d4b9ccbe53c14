"""The command line as a person meets it: exit codes, one readable paragraph, no traceback."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import typer

import perfusio_jax
from perfusio_jax import cli
from perfusio_jax._core import AuditError, ConfigError, DataError, RunLockedError, SimulationError
from perfusio_jax.service.plan import read_plan
from perfusio_jax.twin import AuditLogger, RunLock
from tests.report.run_folders import make_run

CLI = [sys.executable, "-m", "perfusio_jax.cli"]


@pytest.fixture(autouse=True)
def _no_side_effects(monkeypatch):
    """Commands configure JAX for their own process; tests share one."""
    monkeypatch.setattr(cli.common, "set_up_jax", lambda device=None: None)


def run(*args: str, capsys) -> tuple[int, str, str]:
    try:
        cli.main(list(args))
        code = 0
    except SystemExit as stop:
        code = int(stop.code or 0)
    out = capsys.readouterr()
    return code, out.out, out.err


def test_help_lists_every_command(capsys):
    code, out, _ = run("--help", capsys=capsys)
    assert code == 0
    for name in ("demo", "simulate", "fit", "forecast", "run", "verify-audit", "doctor"):
        assert name in out


def test_exit_codes_tell_kinds_of_trouble_apart():
    kinds = [ConfigError, DataError, RunLockedError, AuditError, SimulationError, OSError]
    assert [cli.exit_code(kind("x")) for kind in kinds] == [2, 3, 4, 5, 6, 4]
    assert cli.exit_code(KeyError("x")) == 1


def test_the_package_runs_as_a_module_too():
    found = subprocess.run(
        [sys.executable, "-m", "perfusio_jax", "--version"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert perfusio_jax.__version__ in found.stdout


def test_doctor_tells_that_a_shared_cache_is_not_used(tmp_path):
    cache = tmp_path / "cache"
    (cache / "perfusio-jax" / "compiled").mkdir(parents=True)
    (cache / "perfusio-jax" / "compiled").chmod(0o777)
    env = {**os.environ, "JAX_PLATFORMS": "cpu", "XDG_CACHE_HOME": str(cache)}
    found = subprocess.run(
        [*CLI, "doctor"], capture_output=True, text=True, cwd=tmp_path, env=env, check=False
    )
    assert found.returncode == 2
    line = next(text for text in found.stdout.splitlines() if "compilation cache" in text)
    assert line.startswith("BAD") and "is not used" in line


def test_doctor_in_its_own_process(tmp_path):
    env = {**os.environ, "XDG_CACHE_HOME": str(tmp_path)}
    done = subprocess.run(
        [*CLI, "doctor"], capture_output=True, text=True, cwd=tmp_path, env=env, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "64-bit floats      True" in done.stdout
    assert str(tmp_path / "perfusio-jax") in done.stdout


def test_verify_audit_passes_and_names_the_record_after_one_byte(tmp_path, capsys):
    with AuditLogger(tmp_path, "run") as audit:
        for day in range(4):
            audit.log("SAMPLE_READ", {"VCD": 2.0 + day}, day=day)
    assert run("verify-audit", str(tmp_path), capsys=capsys)[0] == 0
    path = tmp_path / "audit.jsonl"
    raw = bytearray(path.read_bytes())
    third = raw.index(b"\n", raw.index(b"\n", raw.index(b"\n") + 1) + 1) + 30
    raw[third] ^= 1
    path.write_bytes(raw)
    code, out, _ = run("verify-audit", str(tmp_path), capsys=capsys)
    assert code == 5
    assert "4" in out or "3" in out


def test_verify_audit_of_nothing_is_an_error_in_words(tmp_path, capsys):
    code, out, err = run("verify-audit", str(tmp_path / "nowhere"), capsys=capsys)
    assert code in (4, 5)
    assert "nowhere" in out + err and "Traceback" not in out + err


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("", "empty"),
        ("run_id,time_h,VCD\n", ""),
        ("run_id,time_h,VCDX,perfusion_rate\nA,0,2,1\n", "VCDX"),
        ("run_id,time_h,VCD,VCD\nA,0,2,2\n", "VCD"),
    ],
)
def test_fit_refuses_tables_it_cannot_use(tmp_path, capsys, content, says):
    path = tmp_path / "campaign.csv"
    path.write_text(content)
    code, _, err = run("fit", str(path), "--out", str(tmp_path / "m"), capsys=capsys)
    assert code == 3
    assert err.startswith("error: ") and "Traceback" not in err
    assert says.lower() in err.lower()
    assert not (tmp_path / "m").exists()


def test_fit_of_one_run_is_refused_with_the_reason(tmp_path, capsys):
    from perfusio_jax._core import CONTROL_NAMES, STATE_ORDER

    header = ["run_id", "time_h", *STATE_ORDER, *CONTROL_NAMES]
    rows = [
        [
            "A",
            str(24 * d),
            "2",
            "98",
            "5",
            "4",
            "1",
            "5",
            "2",
            "1",
            "10",
            "1",
            "0.1",
            "5",
            "36.5",
            "850",
            "2",
        ]
        for d in range(5)
    ]
    path = tmp_path / "campaign.csv"
    path.write_text("\n".join(",".join(r) for r in [header, *rows]) + "\n")
    code, _, err = run("fit", str(path), "--out", str(tmp_path / "m"), capsys=capsys)
    assert code == 3 and "two" in err


def test_simulate_checks_its_arguments(tmp_path, capsys):
    code, _, err = run("simulate", str(tmp_path / "c.txt"), capsys=capsys)
    assert code == 2 and ".csv" in err
    code, _, err = run("simulate", str(tmp_path / "c.csv"), "--clone", "Z", capsys=capsys)
    assert code == 2 and "CloneX" in err
    code, _, err = run("simulate", str(tmp_path / "c.csv"), "--design", "no", capsys=capsys)
    assert code == 2 and "wide" in err
    code, _, err = run("simulate", str(tmp_path / "c.csv"), "--every", "25", capsys=capsys)
    assert code == 2 and "25 h" in err and "no whole number" in err


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[twin\n", "TOML"),
        ("[twin]\n", "source"),
        ("[twin]\nsource='x.csv'\ncolour='red'\n", "colour"),
        ("[engine]\na=1\n", "engine"),
        ("[twin]\nsource='x.csv'\n", "x.csv"),
        ("twin = 3\n", "twin"),
    ],
)
def test_run_refuses_settings_it_cannot_use(tmp_path, capsys, text, says):
    path = tmp_path / "twin.toml"
    path.write_text(text)
    code, _, err = run("run", str(path), capsys=capsys)
    assert code == 2, err
    assert says in err and "Traceback" not in err


def test_run_names_unknown_keys_inverted_bounds_and_bleed_above_perfusion(tmp_path, capsys):
    (tmp_path / "s.csv").write_text("day,VCD\n0,2\n")
    base = "[twin]\nsource='s.csv'\n"
    bound = "[design_space.control_bounds.{}]\nlo={}\nhi={}\nunit='vvd'\n"
    for extra, says in [
        ("[run]\nduration=3\n", "duration"),
        ("[design_space]\nname='x'\n" + bound.format("perfusion_rate", 2, 1), "perfusion_rate"),
        (
            "[design_space]\nname='x'\n"
            + bound.format("perfusion_rate", 0.1, 0.2)
            + bound.format("bleed_rate", 0.3, 0.4),
            "bleed",
        ),
        ("[design_space]\nname='x'\n", "control"),
    ]:
        path = tmp_path / "twin.toml"
        path.write_text(base + extra)
        code, _, err = run("run", str(path), capsys=capsys)
        assert code == 2, (extra, err)
        assert says in err and "Traceback" not in err


def test_run_on_a_folder_in_use_says_who_has_it(tmp_path, capsys):
    (tmp_path / "s.csv").write_text("day,VCD\n0,2\n")
    (tmp_path / "twin.toml").write_text("[twin]\nsource='s.csv'\n")
    with RunLock(tmp_path):
        code, _, err = run("run", str(tmp_path), capsys=capsys)
    assert code == 4
    assert str(os.getpid()) in err


def test_demo_leaves_a_folder_alone_that_is_not_its_own(tmp_path, capsys):
    (tmp_path / "thesis.txt").write_text("years of work")
    code, _, err = run("demo", "--out", str(tmp_path), capsys=capsys)
    assert code == 2 and "no demonstration" in err
    assert (tmp_path / "thesis.txt").read_text() == "years of work"


def test_forecast_names_unknown_set_points_and_broken_models(tmp_path, capsys):
    (tmp_path / "s.csv").write_text("day,VCD\n0,2\n")
    args = ("forecast", str(tmp_path / "m"), str(tmp_path / "s.csv"))
    code, _, err = run(*args, "--set", "light=3", capsys=capsys)
    assert code == 2 and "light" in err
    code, _, err = run(*args, "--set", "bleed_rate", capsys=capsys)
    assert code == 2 and "name=value" in err
    code, _, err = run(*args, capsys=capsys)
    assert code in (2, 3, 4) and "Traceback" not in err


def test_debug_shows_the_traceback(tmp_path, capsys):
    code, _, err = run("--debug", "simulate", str(tmp_path / "c.txt"), capsys=capsys)
    assert code == 2 and "Traceback" in err and "ConfigError" in err


def test_the_console_script_is_installed_and_answers():
    script = shutil.which("perfusio-jax", path=str(Path(sys.executable).parent))
    if script is None:
        pytest.skip("the package is on the path but not installed")
    done = subprocess.run([script, "--help"], capture_output=True, text=True, check=False)
    assert done.returncode == 0 and "verify-audit" in done.stdout


def test_summary_keys_are_documented():
    text = Path("docs/contracts.md").read_text(encoding="utf-8")
    from perfusio_jax.demo import run as demo_run

    source = Path(demo_run.__file__).read_text(encoding="utf-8")
    keys = json.loads(
        json.dumps(
            [
                "schema_version",
                "version",
                "name",
                "seeds",
                "target",
                "start_up_days",
                "runs",
                "pooled",
                "seconds",
                "audit",
            ]
        )
    )
    for key in keys:
        assert f'"{key}"' in source and f"`{key}`" in text


def test_units_in_the_help_survive(capsys):
    _, out, _ = run("run", "--help", capsys=capsys)
    assert "[d]" in out and "[s]" in out


def test_an_error_nobody_foresaw_is_one_paragraph_too(capsys, monkeypatch):
    def fail(_, **more):
        raise KeyError("surprise")

    monkeypatch.setattr("perfusio_jax.service.audits.verify_audit", fail)
    code, _, err = run("verify-audit", "x", capsys=capsys)
    assert code == 1
    assert "surprise" in err and "--debug" in err and "Traceback" not in err
    code, _, err = run("--debug", "verify-audit", "x", capsys=capsys)
    assert code == 1 and "Traceback" in err and "KeyError" in err


def test_errors_of_the_operating_system_are_said_in_words():
    assert cli.in_words(FileNotFoundError(2, "No such file", "a/b")) == "a/b: no such file."


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("volume_L='big'", "volume_L"),
        ("volume_L=0", "above 0"),
        ("startup_days=2.7", "whole number"),
        ("startup_days=-1", "startup_days"),
        ("startup_days=true", "startup_days"),
        ("patience_seconds='x'", "patience_seconds"),
        ("patience_seconds=-5", "patience_seconds"),
        ("poll_seconds=inf", "poll_seconds"),
        ("reactor_id=7", "in quotes"),
        ("initial_controls=3", "table of set-points"),
        ("initial_controls={speed=3}", "speed"),
        ("initial_controls={temprature=36}", "did you mean 'temperature'?"),
        ("initial_controls={temperature=309.4}", "309.4 K are 36.25 degC"),
        ("initial_controls={temperature=97.7}", "97.7 degF are 36.5 degC"),
        ("initial_controls={temperature=0.0}", "outside 25 to 42 degC"),
        ("initial_controls={agitation=85000}", "outside 0 to 2500 rpm"),
        ("initial_controls={bleed_rate='x'}", "finite number"),
        ("patience_second=3", "did you mean 'patience_seconds'?"),
        ("[run]\nsampling_interval_hours=nan", "twin.toml: sampling_interval_hours is nan"),
        ("[run]\nsampling_interval_hours=0.1", "twin.toml: sampling_interval_hours is 0.1"),
        ("[run]\nsampling_interval_hours='12h'", "'12h'; it must be a number of hours"),
        ("[rum]\nseed=1", "did you mean 'run'?"),
        ("initial_controls={bleed_rate=3}", "bleed above perfusion"),
        ("setpoints='.'", "is a folder"),
        ("model='nope'", "does not exist"),
        ("model='s.csv'", "is a file"),
        ("[run]\ndevice='tpu:9'", "tpu:9"),
        ("[run]\ndtype='float32'", "float64"),
    ],
)
def test_run_refuses_values_of_the_wrong_kind_by_name(tmp_path, capsys, line, says):
    (tmp_path / "s.csv").write_text("day,VCD\n0,2\n")
    (tmp_path / "twin.toml").write_text(f"[twin]\nsource='s.csv'\n{line}\n")
    code, _, err = run("run", str(tmp_path), "--days", "1", "--patience", "0", capsys=capsys)
    assert code == 2, err
    assert says in err and err.count("\n") == 1
    assert sorted(p.name for p in tmp_path.iterdir()) == ["s.csv", "twin.toml"]


@pytest.mark.parametrize("hours", ["nan", "'12h'", "0.1", "true"])
def test_looking_at_a_run_checks_its_interval_too(tmp_path, capsys, hours):
    (tmp_path / "s.csv").write_text("day,VCD\n0,2\n")
    (tmp_path / "twin.toml").write_text(
        f"[twin]\nsource='s.csv'\n[run]\nsampling_interval_hours={hours}\n"
    )
    code, _, err = run("status", str(tmp_path), capsys=capsys)
    assert code == 2 and "twin.toml" in err and "sampling_interval_hours" in err


def test_bounds_of_the_design_space_widen_what_a_vessel_may_be_run_at(tmp_path):
    (tmp_path / "s.csv").write_text("day,VCD\n0,2\n")
    text = "[twin]\nsource='s.csv'\ninitial_controls={temperature=50.0}\n"
    (tmp_path / "twin.toml").write_text(text)
    with pytest.raises(ConfigError, match=r"outside 25 to 42 degC: is the unit right\? .* widen"):
        read_plan(tmp_path)
    bounds = "[design_space.control_bounds]\ntemperature={lo=45,hi=55,unit='degC'}\n"
    (tmp_path / "twin.toml").write_text(text + "[design_space]\nname='hot'\n" + bounds)
    assert read_plan(tmp_path).table["initial_controls"] == {"temperature": 50.0}


def test_run_says_which_set_points_nobody_told(tmp_path, capsys):
    (tmp_path / "s.csv").write_text("day,VCD,temperature\n0,2,\n")
    (tmp_path / "twin.toml").write_text(
        "[twin]\nsource='s.csv'\ninitial_controls={agitation=800}\n"
    )
    read_plan(tmp_path).announce(cli.common.console())
    out = capsys.readouterr().out
    said = next(line for line in out.splitlines() if line.startswith("assumed to be in force"))
    assert "temperature 36.25 °C" in said and "agitation" not in said


def test_inspect_says_that_the_commands_for_campaigns_refuse_a_table(tmp_path, capsys):
    path = tmp_path / "odd.csv"
    path.write_text("run_id,day,VCD,temperature\nA,0,0x10,36.5\nA,1,2,36.5\n")
    code, out, _ = run("inspect", str(path), capsys=capsys)
    assert code == 0 and "fit, validate and propose refuse it: column 'VCD' holds '0x10'" in out
    path.write_text("run_id,day,VCD,temperature\nA,0,1,-300\nA,1,2,36.5\n")
    code, out, _ = run("inspect", str(path), "--strict", capsys=capsys)
    assert code == 3 and "'temperature' is -300 degC in line 2, colder than any culture" in out
    path.write_text("run_id,day,VCD,temperature\nA,0,1,36.5\nA,1,2,36.5\n")
    code, out, _ = run("inspect", str(path), "--strict", capsys=capsys)
    assert code == 0 and "refuse" not in out


def test_run_refuses_a_folder_in_place_of_the_samples(tmp_path, capsys):
    (tmp_path / "twin.toml").write_text("[twin]\nsource='.'\n")
    code, _, err = run("run", str(tmp_path), capsys=capsys)
    assert code == 2 and "is a folder" in err


def test_run_says_what_it_did_not_take_from_the_samples_and_whose_they_are(tmp_path, capsys):
    (tmp_path / "s.csv").write_text("reactor_id,day,VCD,Glc,Foo\nR01,0,2,-1,7\n")
    (tmp_path / "twin.toml").write_text("[twin]\nsource='s.csv'\nreactor_id='R99'\n")
    code, out, err = run("run", str(tmp_path), "--patience", "0", capsys=capsys)
    assert "'Foo' is not known" in out + err or code == 3
    assert code in (3, 4)
    (tmp_path / "s.csv").write_text("reactor_id,day,VCD,Glc,Foo\nR01,0,2,-1,7\nR01,1,2,5,7\n")
    code, out, err = run("run", str(tmp_path), "--patience", "0", capsys=capsys)
    assert code == 4
    assert "'Foo' is not known" in out and "Glc of day 0 (line 2) is negative" in out
    assert "R99" in err and "R01" in err


@pytest.fixture
def model(tmp_path) -> Path:
    from perfusio_jax.hybrid import HybridStateSpaceModel, save
    from perfusio_jax.mechanistic import CHOPerfusionModel

    save(HybridStateSpaceModel(CHOPerfusionModel(), None), tmp_path / "m")
    return tmp_path / "m"


@pytest.mark.parametrize(
    ("table", "options", "code", "says"),
    [
        ("day,VCD\n0,\n1,NaN\n", (), 3, "without a usable value"),
        ("day,perfusion_rate\n0,1\n1,1\n", (), 3, "without a usable value"),
        ("", (), 3, "the file is empty"),
        ("day,VCD\n", (), 3, "no row yet"),
        ("reactor_id,day,VCD\nR01,0,2\n", ("--reactor-id", "R9"), 3, "its reactors are R01"),
        ("reactor_id,day,VCD\nR01,0,2\nR02,0,2\n", (), 3, "--reactor-id"),
        ("run_id,day,VCD\nA,0,2\nB,0,2\n", (), 3, "--run-id"),
        ("run_id,day,VCD\nA,0,2\nB,0,2\n", ("--run-id", "C"), 3, "none of run 'C'"),
        ("day,VCD [degC]\n0,2\n", (), 3, "degC"),
        ("day,VCD\n0,2\n", ("--set", "bleed_rate=9"), 2, "bleed above perfusion"),
        ("day,VCD\n0,2\n", ("--set", "bleed_rate=nan"), 2, "nan"),
        ("day,VCD\n0,2\n", ("--set", "agitation=-1"), 2, "-1"),
    ],
)
def test_forecast_refuses_what_it_cannot_use(tmp_path, model, capsys, table, options, code, says):
    (tmp_path / "s.csv").write_text(table)
    got, _, err = run("forecast", str(model), str(tmp_path / "s.csv"), *options, capsys=capsys)
    assert got == code, err
    assert says in err and err.count("\n") == 1


def test_forecast_tells_files_from_folders(tmp_path, model, capsys):
    code, _, err = run("forecast", str(model), str(tmp_path), capsys=capsys)
    assert code == 3 and "is a folder" in err
    (tmp_path / "s.csv").write_text("day,VCD\n0,2\n")
    code, _, err = run("forecast", str(tmp_path / "s.csv"), str(tmp_path / "s.csv"), capsys=capsys)
    assert code == 2 and "is a file" in err


def test_forecast_reports_what_it_left_out_and_prints_whole_numbers(
    tmp_path, model, capsys, monkeypatch
):
    from types import SimpleNamespace

    import numpy as np

    from perfusio_jax._core import FORECAST_SPECIES
    from perfusio_jax.service import forecast as forecasting

    table = np.geomspace(1e-5, 12345.0, len(FORECAST_SPECIES))[None, :].repeat(2, 0)
    outlook = SimpleNamespace(
        days=np.array([1.0, 2.0]), mean=table, q10=0.9 * table, q50=table, q90=1.1 * table
    )
    monkeypatch.setattr(forecasting, "estimate", lambda *a, **k: (None, None))
    monkeypatch.setattr(forecasting, "forecast", lambda *a, **k: outlook)
    monkeypatch.setenv("COLUMNS", "80")
    (tmp_path / "s.csv").write_text("day,VCD,Glc,Foo\n0,2,-1,7\n1,2,5,7\n")
    code, out, err = run(
        "forecast",
        str(model),
        str(tmp_path / "s.csv"),
        "--set",
        "temperature=90",
        capsys=capsys,
    )
    assert code == 0, err
    assert "'Foo' is not known" in out and "Glc of day 0 (line 2) is negative" in out
    assert "temperature=90 °C is far from the usual 35 to 37.5" in out
    assert "\u2026" not in out  # nothing is cut short
    for name in FORECAST_SPECIES:
        assert f"{name} [" in out
    assert "12345 (11110-13580)" in out and "<0.001" in out


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (("simulate", "{}/d.csv"), "is a folder"),
        (("simulate", "{}/f/x.csv"), "is a file"),
        (("fit", "{}/none.csv", "--out", "{}/f"), "is a file"),
        (("forecast", "{}/m", "{}/s.csv", "--out", "{}/d.csv"), "is a folder"),
        (("demo", "--out", "{}/f"), "is a file"),
    ],
)
def test_places_for_results_are_refused_before_the_work(tmp_path, capsys, args, says):
    (tmp_path / "d.csv").mkdir()
    (tmp_path / "f").write_text("")
    code, _, err = run(*(a.format(tmp_path) for a in args), capsys=capsys)
    assert code == 2 and says in err, err


def test_seeds_beyond_the_generator_are_refused(tmp_path, capsys):
    code, _, err = run("simulate", str(tmp_path / "c.csv"), "--seed", str(2**70), capsys=capsys)
    assert code == 2 and "--seed" in err


def test_fit_of_a_unit_that_does_not_fit_is_trouble_with_data(tmp_path, capsys):
    (tmp_path / "c.csv").write_text("run_id,time_h,VCD [degC]\nA,0,2\n")
    code, _, err = run("fit", str(tmp_path / "c.csv"), "--out", str(tmp_path / "m"), capsys=capsys)
    assert code == 3 and "degC" in err
    code, _, err = run("fit", str(tmp_path), "--out", str(tmp_path / "m"), capsys=capsys)
    assert code == 3


@pytest.mark.parametrize("target", ["nan", "-5", "0", "1e9", "61"])
def test_demo_refuses_a_target_no_culture_can_have(tmp_path, capsys, target):
    out = tmp_path / "d"
    code, _, err = run("demo", "--target", target, "--out", str(out), capsys=capsys)
    assert code == 2 and "target" in err
    assert not out.exists()


def test_help_groups_every_command_by_what_one_wants(capsys):
    _, out, _ = run("--help", capsys=capsys)
    sections = re.findall(r"^(\S[^\n]*):\n((?:  .*\n?)+)", out, re.MULTILINE)
    listed = {
        title: re.findall(r"^  ([a-z][\w-]*)", rows, re.MULTILINE) for title, rows in sections[1:]
    }
    assert tuple(listed) == cli.groups.GROUPS
    assert sorted(name for names in listed.values() for name in names) == sorted(
        typer.main.get_command(cli.app).commands  # pyright: ignore[reportAttributeAccessIssue]
    )
    assert "..." not in out.split("\n", 1)[1]  # sentences are whole
    assert (
        listed["Next runs"] == ["propose", "in-silico", "benchmark"]
        and "status" in listed["Run a reactor"]
    )
    _, out, _ = run("db", "--help", capsys=capsys)
    assert "something would be lost." in out


def test_version_and_completion(capsys):
    code, out, _ = run("--version", capsys=capsys)
    assert (code, out.split()) == (0, ["perfusio-jax", perfusio_jax.__version__])
    env = {"_PERFUSIO_JAX_COMPLETE": "complete_bash", "COMP_WORDS": "perfusio-jax veri"}
    done = subprocess.run(
        CLI, env={**os.environ, **env, "COMP_CWORD": "1"}, capture_output=True, text=True,
        check=False, timeout=60,
    )  # fmt: skip
    assert done.stdout.split() == ["verify-audit"]


def test_what_looks_at_a_run_does_not_wait_for_jax(tmp_path):
    with AuditLogger(tmp_path, "run") as audit:
        audit.log("SAMPLE_READ", {"VCD": 2.0}, day=0)
    script = (
        "import sys\nfrom perfusio_jax import cli\n"
        "try:\n    cli.main(sys.argv[1:])\n"
        "finally:\n    print([m for m in ('jax', 'matplotlib') if m in sys.modules])\n"
    )
    make_run(tmp_path / "whole", n_days=3)
    asked = [[word, tmp_path] for word in ("verify-audit", "status", "stop", "report")]
    for words in [*asked, ["report", tmp_path / "whole"]]:
        done = subprocess.run(
            [sys.executable, "-c", script, *map(str, words)],
            capture_output=True, text=True, check=False, timeout=120,
        )  # fmt: skip
        assert done.stdout.splitlines()[-1] == "[]", (words, done)
