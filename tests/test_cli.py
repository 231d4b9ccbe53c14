"""The command line as a person meets it: exit codes, one readable paragraph, no traceback."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from perfusio_jax import cli
from perfusio_jax._core import AuditError, ConfigError, DataError, RunLockedError, SimulationError
from perfusio_jax.twin import AuditLogger, RunLock

CLI = [sys.executable, "-m", "perfusio_jax.cli"]


@pytest.fixture(autouse=True)
def _no_side_effects(monkeypatch):
    """Commands configure JAX for their own process; tests share one."""
    monkeypatch.setattr(cli, "set_up_jax", lambda device=None: None)


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


def test_debug_shows_the_traceback(tmp_path):
    with pytest.raises(ConfigError):
        cli.main(["--debug", "simulate", str(tmp_path / "c.txt")])


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
