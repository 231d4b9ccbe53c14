"""docs/seeing.md names commands, options, figures and columns that there are."""

import re
from pathlib import Path

import typer

from perfusio_jax import viz
from perfusio_jax.cli import app
from perfusio_jax.report.figures import OF_MODEL, OF_RUN, OF_TABLE
from perfusio_jax.report.reporting import SUFFIXES

TEXT = (Path(__file__).parents[1] / "docs" / "seeing.md").read_text(encoding="utf-8")
COMMANDS = typer.main.get_command(app).commands  # pyright: ignore[reportAttributeAccessIssue]


def test_commands_and_options_exist():
    lines = re.findall(r"^    perfusio-jax (\S+)(.*?)(?:#.*)?$", TEXT, flags=re.MULTILINE)
    assert len(lines) >= 8
    for name, rest in lines:
        known = {opt for param in COMMANDS[name].params for opt in param.opts}
        assert set(re.findall(r"--[a-z-]+", rest)) <= known, (name, rest)
    options = {opt for param in COMMANDS["figures"].params for opt in param.opts}
    assert {"--only", "--out", "--format", "--trade-off"} <= options


def test_figures_are_those_there_are():
    table = TEXT.partition("| of | figure | shows |")[2].partition("\n\n")[0]
    named = set(re.findall(r"\| `([a-z]+)` \|", table))
    assert named == {*OF_RUN, *OF_TABLE, *OF_MODEL}
    functions = re.search(r"`perfusio_jax\.viz` \((.*?)\)", TEXT, flags=re.DOTALL)
    assert functions is not None
    names = [n for n in re.findall(r"`(\w+)`", functions[1])]
    assert len(names) >= 6 and all(callable(getattr(viz, n)) for n in names)


def test_endings_of_reports_are_those_that_are_written():
    assert all(end in TEXT for end in SUFFIXES if end != ".markdown")
