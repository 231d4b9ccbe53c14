"""Whatever a name holds, a screen shows it and obeys none of it."""

import ast
import io
from pathlib import Path

import pytest
from rich.table import Table

from perfusio_jax import cli
from perfusio_jax._core import DataError
from perfusio_jax._core.progress import compiled_now, compiling, tell
from perfusio_jax.cli import common
from perfusio_jax.cli.screen import Screen, fit_to_show, say

NAMES = (
    "\x1b[2J\x1b]0;owned\x07",
    "\x9b31mred",
    "a\rb",
    "\u202etxt.exe",
    "[red]x[/blue]",
    "[link=http://x]y[/link]",
    ":warning:",
    "\ud800",
    "R1\x00\x08\x08",
)


def printed(draw) -> str:
    out = io.StringIO()
    screen = Screen(file=out, width=200, force_terminal=True, color_system=None)
    draw(screen)
    return out.getvalue()


@pytest.mark.parametrize("name", NAMES)
def test_a_name_is_shown_as_it_is_in_a_line_a_title_a_header_and_a_cell(name):
    def draw(screen):
        table = Table(title=name)
        table.add_column(name)
        table.add_row(name)
        screen.print(table)
        screen.print(name, soft_wrap=True)

    out = printed(draw)
    safe = fit_to_show(name)
    assert out.count(safe) == 4, out
    assert not any(c in out for c in "\x1b\x07\x9b\r\u202e\ud800\x00\x08")


@pytest.mark.parametrize("name", NAMES)
def test_a_status_is_no_markup_either(name):
    screen = Screen(file=io.StringIO(), width=200)
    status = screen.status(name)
    status.update(f"day 1 of {name}")
    text = status.renderable.text
    assert str(text) == fit_to_show(f"day 1 of {name}")


def test_what_is_said_is_shown_without_secrets(monkeypatch, capsys):
    monkeypatch.setenv("PGPASSWORD", "kleeblatt")
    say("R\x1b[31m at opc.tcp://u:hunter2@h, kleeblatt")
    say("e\x07", err=True)
    found = capsys.readouterr()
    assert found.out == "R\\x1b[31m at opc.tcp://u:***@h, ***\n" and found.err == "e\\x07\n"


@pytest.mark.parametrize("error", [DataError("name \x1b[2J"), ValueError("\x1b[2J")])
def test_an_error_of_any_kind_is_shown_so(monkeypatch, capsys, error):
    def fail(*args, **more):
        raise error

    monkeypatch.setattr(common, "writable", fail)
    monkeypatch.setattr(cli.running, "writable", fail)
    with pytest.raises(SystemExit):
        cli.main(["keygen", "k"])
    err = capsys.readouterr().err
    assert "\\x1b[2J" in err and "\x1b" not in err


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("report", "{}", "--out", "{}/x.docx"), "'.docx'"),
        (("report", "{}", "--out", "{}/x.png"), "'.png'"),
        (("report", "{}", "--out", "{}/x"), "must end in .html"),
        (("report", "{}", "--out", "{}/audit.jsonl"), "must end in .html"),
        (("forecast", "{}", "{}", "--figure", "{}/x.gif"), "must end in .png"),
        (("rates", "{}", "--out", "{}/x.xlsx"), "must end in .csv"),
        (("forecast", "{}", "{}", "--out", "{}/x.xlsx"), "must end in .csv"),
        (("propose", "{}", "--out", "{}/x.parquet"), "must end in .csv"),
        (("propose", "{}", "--out", "{}/recommendations.csv"), "a record of a run"),
        (("db", "export", "sqlite:///x", "{}/journal.sqlite", "--experiment", "E"), "a record"),
        (("keygen", "{}/audit.head"), "a record of a run"),
        (("simulate", "{}/audit_events.csv"), "a record of a run"),
    ],
)
def test_a_name_that_promises_something_else_is_refused(tmp_path, capsys, words, says):
    with pytest.raises(SystemExit) as end:
        cli.main([w.format(tmp_path) for w in words])
    err = capsys.readouterr().err
    assert end.value.code == 2 and says in err, err
    assert list(tmp_path.iterdir()) == []


def test_what_a_long_call_says_is_on_record_where_nobody_watches():
    file = io.StringIO()
    screen = Screen(file=file, width=200)
    with screen.status("fitting") as status:
        compiling("the fit of the [process]")
        compiled_now()
        compiled_now()
        status.update("fitting again")
        tell("fold 2")
    tell("nobody hears this")
    assert file.getvalue().splitlines() == [
        "fitting",
        "fitting: compiling the fit of the [process] (first use)",
        "fitting: running",
        "fitting again: fold 2",
    ]


PLACES = {"beside", "out", "path", "figure", "folder", "target", "place", "card"}


def broken_places(source: str) -> list[int]:
    """Lines that print the name of a file and let it be broken at the edge of the screen."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
            continue
        owner = node.func.value
        is_print = node.func.attr == "print" and isinstance(owner, ast.Name)
        if not is_print or owner.id not in ("console", "screen"):
            continue
        named = {
            part.value.id
            for text in node.args
            if isinstance(text, ast.JoinedStr)
            for part in text.values
            if isinstance(part, ast.FormattedValue) and isinstance(part.value, ast.Name)
        }
        if named & PLACES and not any(k.arg == "soft_wrap" for k in node.keywords):
            found.append(node.lineno)
    return found


def test_names_of_files_are_never_broken():
    """Who copies a long path off the screen, or looks for it in a log, finds it whole."""
    assert broken_places('console.print(f"figure: {path}")') == [1]
    root = Path(__file__).parents[1] / "src"
    found = {
        str(f.relative_to(root)): lines
        for f in root.rglob("*.py")
        if (lines := broken_places(f.read_text(encoding="utf-8")))
    }
    assert found == {}


def test_a_name_of_usual_length_is_not_cut_in_two(tmp_path):
    from perfusio_jax.connectors.files.inspecting import inspect_tables
    from perfusio_jax.connectors.tables.file_rules import FileRules

    table = tmp_path / "runs.csv"
    table.write_text("run_id,day,VCD,glucose_setpoint\nA,0,1,5\nA,1,2,5\n", encoding="utf-8")
    out = io.StringIO()
    inspect_tables([table], FileRules(), Screen(file=out, width=60))
    assert "\nglucose_setpoint  glucose_setpoint  g/L" in out.getvalue()
