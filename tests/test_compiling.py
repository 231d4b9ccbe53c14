"""How much trouble the compiler takes over a command: quick for what is over soon."""

import json
import os
import subprocess
import sys

import pytest

from perfusio_jax._core.compiler_flags import POLISHED, QUICK, completed
from perfusio_jax.cli.compiling import LONG, choose_pains
from perfusio_jax.cli.groups import GroupedCommands
from perfusio_jax.service.replay import other_compilers

_ASKED = """
import json, os, sys
from perfusio_jax.cli import main
try:
    main(["doctor"])
except SystemExit:
    pass
assert "jax" in sys.modules  # its backend would refuse a setting that it does not know
print(json.dumps(os.environ["XLA_FLAGS"].split()))
"""


@pytest.fixture
def _before_jax(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "jax")


@pytest.mark.usefixtures("_before_jax")
def test_a_short_command_is_compiled_quickly() -> None:
    environ: dict[str, str] = {}
    assert choose_pains(["propose", "runs.csv"], environ)
    assert environ["XLA_FLAGS"].split() == [f"--{name}={value}" for name, value in QUICK.items()]


@pytest.mark.usefixtures("_before_jax")
@pytest.mark.parametrize("command", sorted(LONG))
def test_a_long_one_is_compiled_with_care(command: str) -> None:
    environ: dict[str, str] = {}
    assert not choose_pains(["--debug", command, "--seeds", "3"], environ)
    assert not environ


@pytest.mark.usefixtures("_before_jax")
def test_what_is_named_stays() -> None:
    environ = {"XLA_FLAGS": "--xla_dump_to=/x --xla_backend_optimization_level=3"}
    assert choose_pains(["fit"], environ)
    flags = environ["XLA_FLAGS"].split()
    assert flags[:2] == ["--xla_dump_to=/x", "--xla_backend_optimization_level=3"]
    assert [flag.partition("=")[0] for flag in flags].count("--xla_backend_optimization_level") == 1


def test_nothing_is_set_once_jax_is_there() -> None:
    environ: dict[str, str] = {}
    assert not choose_pains(["fit"], environ)
    assert not environ


@pytest.mark.usefixtures("_before_jax")
def test_nothing_is_set_where_another_device_may_compute(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: name == "jax_plugins")
    environ: dict[str, str] = {}
    assert not choose_pains(["fit"], environ)
    assert not environ


@pytest.mark.usefixtures("_before_jax")
def test_what_xla_has_by_itself_can_be_named() -> None:
    assert set(POLISHED) == set(QUICK)
    environ = {"XLA_FLAGS": completed("", POLISHED)}
    assert not choose_pains(["fit"], environ)


def test_the_long_commands_are_commands() -> None:
    import typer

    from perfusio_jax.cli import app

    command = typer.main.get_command(app)
    assert isinstance(command, GroupedCommands)
    assert set(command.commands) >= LONG


def test_a_command_sets_it_before_jax_is_imported() -> None:
    environ = {name: value for name, value in os.environ.items() if name != "XLA_FLAGS"}
    done = subprocess.run(
        [sys.executable, "-c", _ASKED], capture_output=True, text=True, env=environ, check=True
    )
    flags = json.loads(done.stdout.splitlines()[-1])
    assert {flag.removeprefix("--").partition("=")[0] for flag in flags} == {*QUICK}


def test_replay_says_that_a_session_was_compiled_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XLA_FLAGS", "--xla_b=2 --xla_a=1")
    same = {"kind": "session", "xla_flags": "--xla_a=1 --xla_b=2"}
    assert other_compilers([same]) == []
    (line,) = other_compilers([same, {"allow_write": True}, {"xla_flags": ""}])
    assert "XLA_FLAGS=''" in line
    assert "--xla_cpu_use_fusion_emitters=true" in line
