"""How much trouble the compiler takes: little for what is over soon."""

import os
import subprocess
import sys

import pytest

import perfusio_jax
from perfusio_jax._core.compiler_flags import POLISHED, QUICK, completed, threads_for
from perfusio_jax.cli.compiling import LONG, choose_pains
from perfusio_jax.cli.groups import GroupedCommands
from perfusio_jax.service.replay import other_compilers

OURS = [f"--{name}={value}" for name, value in QUICK.items()]


@pytest.fixture
def early(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if JAX had not been imported, nor anything been asked of XLA."""
    monkeypatch.delitem(sys.modules, "jax")
    monkeypatch.setenv("XLA_FLAGS", "")


def flags() -> list[str]:
    """What XLA would be told."""
    return os.environ["XLA_FLAGS"].split()


@pytest.mark.usefixtures("early")
def test_a_short_command_is_compiled_quickly() -> None:
    assert choose_pains(["propose", "runs.csv"])
    assert flags() == OURS


@pytest.mark.usefixtures("early")
@pytest.mark.parametrize("command", sorted(LONG))
def test_a_long_one_is_compiled_with_care(command: str) -> None:
    assert not choose_pains(["--debug", command, "--seeds", "3"])
    assert not flags()


@pytest.mark.usefixtures("early")
def test_what_is_named_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    named = ["--xla_dump_to=/x", "--xla_backend_optimization_level=3"]
    monkeypatch.setenv("XLA_FLAGS", " ".join(named))
    assert perfusio_jax.enable_quick_compile()
    assert flags() == [*named, *OURS[1:]]


@pytest.mark.usefixtures("early")
def test_what_xla_has_by_itself_can_be_named(monkeypatch: pytest.MonkeyPatch) -> None:
    assert set(POLISHED) == set(QUICK)
    monkeypatch.setenv("XLA_FLAGS", completed("", POLISHED))
    assert perfusio_jax.enable_quick_compile()
    assert flags() == [f"--{name}={value}" for name, value in POLISHED.items()]


@pytest.mark.usefixtures("early")
def test_nothing_is_set_where_another_device_may_compute(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: name == "jax_plugins")
    assert not perfusio_jax.enable_quick_compile()
    assert not flags()


def test_nothing_is_set_once_jax_computes(monkeypatch: pytest.MonkeyPatch) -> None:
    import jax

    jax.devices()
    monkeypatch.setenv("XLA_FLAGS", "")
    assert not perfusio_jax.enable_quick_compile()
    assert not flags()


def test_the_long_commands_are_commands() -> None:
    import typer

    from perfusio_jax.cli import app

    command = typer.main.get_command(app)
    assert isinstance(command, GroupedCommands)
    assert set(command.commands) >= LONG


def test_devices_made_of_the_processor_have_threads_to_spare() -> None:
    assert int(threads_for(8)) > max(8, os.cpu_count() or 1)


COMMAND = """
from perfusio_jax.cli import main
try:
    main(["doctor"])
except SystemExit:
    pass
"""
SCRIPT = """
import jax, perfusio_jax
assert perfusio_jax.enable_quick_compile()
perfusio_jax.enable_x64()
jax.devices()
assert not perfusio_jax.enable_quick_compile()
"""


@pytest.mark.parametrize("text", [COMMAND, SCRIPT], ids=["command", "script"])
def test_xla_takes_it_from_a_process_of_its_own(text: str, tmp_path) -> None:
    """A setting it does not know would end the process; what it does is in what it dumps."""
    dumped = "import jax\njax.jit(lambda x: x + 1)(1.0)\n"
    environ = {**os.environ, "XLA_FLAGS": f"--xla_dump_to={tmp_path}"}
    done = subprocess.run(
        [sys.executable, "-c", text + dumped], capture_output=True, text=True, env=environ,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    told = max(tmp_path.glob("*.debug_options"), key=lambda p: p.stat().st_mtime).read_text()
    assert "xla_backend_optimization_level: 1" in told
    assert "xla_llvm_disable_expensive_passes: true" in told


def test_replay_says_that_a_session_was_compiled_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XLA_FLAGS", "--xla_b=2 --xla_a=1")
    same = {"kind": "session", "xla_flags": "--xla_a=1 --xla_b=2"}
    assert other_compilers([same]) == []
    (line,) = other_compilers([same, {"allow_write": True}, {"xla_flags": ""}])
    assert "XLA_FLAGS=''" in line
    assert "--xla_cpu_use_fusion_emitters=true" in line
