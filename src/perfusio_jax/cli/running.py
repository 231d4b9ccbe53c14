"""Commands for a twin at work, and for what it leaves behind."""

import io
import time
from pathlib import Path
from typing import Annotated, Any

import typer

from perfusio_jax._core import ConfigError
from perfusio_jax.twin.records.accounts import account

from . import common, groups
from .common import Culture, References, as_data, console, writable
from .file_options import reads_files
from .screen import Screen, say

commands = typer.Typer(rich_markup_mode=None)
_WHOLE = (".html", ".pdf", ".md", ".markdown")
"""Endings of the whole report; `.txt` is what is printed otherwise."""
_REFERENCE = "--reference is of the whole report: --out names it, .html, .pdf or .md."


@commands.command(rich_help_panel=groups.REACTOR)
def run(
    what: Annotated[
        Path, typer.Argument(help="twin.toml, fleet.toml, a run folder, or a sample file.")
    ],
    days: Annotated[int | None, typer.Option(min=1, help="Days in all [d].")] = None,
    allow_write: Annotated[
        bool | None, typer.Option("--allow-write/--advise", help="Write set-points, or not.")
    ] = None,
    patience: Annotated[
        float | None, typer.Option(min=0.0, help="How long to wait for a sample [s].")
    ] = None,
) -> None:
    """Run the twin on a folder or a file; Ctrl-C ends it, and nothing more is written."""
    common.set_up_jax()
    from perfusio_jax.report.alarm_picture import alarm_pictures
    from perfusio_jax.service.run import run_twin

    run_twin(
        what,
        days=days,
        allow_write=allow_write,
        patience_s=patience,
        console=console(),
        pictures=alarm_pictures,
    )


@commands.command(rich_help_panel=groups.REACTOR)
def warm(what: Annotated[Path, typer.Argument(help="twin.toml or its folder.")]) -> None:
    """Compile what a run will need before it begins, and say how long that took."""
    common.set_up_jax()
    from perfusio_jax.service.warm import warm_run

    warm_run(what, console=console())


RunPlace = Annotated[Path, typer.Argument(help="Run folder, or its twin.toml.")]
Actor = Annotated[
    str | None,
    typer.Option("--by", help="Who you say you are; recorded beside your account, which counts."),
]
Vessel = Annotated[str | None, typer.Option("--reactor", help="Only this vessel.")]


@commands.command(rich_help_panel=groups.REACTOR)
def status(place: RunPlace) -> None:
    """Say where a run stands: days, mode, open writes, what waits for approval, alarms."""
    from perfusio_jax.twin.loop.commands import find_runs
    from perfusio_jax.twin.loop.commands import status as status_of

    for folder in find_runs(run_folder(place)):
        for line in status_of(folder):
            say(str(line))


@commands.command(rich_help_panel=groups.REACTOR)
def approve(
    place: RunPlace,
    role: Annotated[str, typer.Option("--as", help="Role in which you approve.")],
    decision: Annotated[int | None, typer.Option(help="Its number, from status.")] = None,
    reject: Annotated[bool, typer.Option("--reject", help="Refuse it instead.")] = False,
    actor: Actor = None,
    reactor: Vessel = None,
) -> None:
    """Approve the set-points a running twin waits with, or refuse them.

    Your account votes, once, whatever name --by gives. Exit code 2 if the twin does not count it.
    """
    from perfusio_jax.twin.loop.commands import find_runs, send, waiting_decision

    place = run_folder(place)
    if decision is None:
        folder, reactor, standing = waiting_decision(place, reactor)
        decision = standing.id
    else:
        folder, *others = find_runs(place, reactor)
        if others:
            raise ConfigError(
                f"{place} holds {1 + len(others)} runs, each with numbers of its own; name the "
                "reactor with --reactor."
            )
    kind = "reject" if reject else "approve"
    details = {"decision": decision}
    claim = actor or account()
    sent = send(folder, kind, actor=claim, role=role, payload=details, reactor_id=reactor)
    _tell_outcome(folder, f"decision {decision}: {kind} by {_who(claim)} as {role}", sent)


@commands.command(rich_help_panel=groups.REACTOR)
def stop(place: RunPlace, actor: Actor = None, reactor: Vessel = None) -> None:
    """Stop a running twin: nothing more is written from within a second on."""
    from perfusio_jax.twin.loop.commands import find_runs, is_running, send

    running = [f for f in find_runs(run_folder(place), reactor) if is_running(f)]
    if not running:
        raise ConfigError(f"{place} is not running; there is nothing to stop.")
    for folder in running:
        for name, _ in send(folder, "stop", actor=actor or account(), reactor_id=reactor):
            say(f"{name}: asked to stop")


@commands.command(rich_help_panel=groups.REACTOR)
def tell(
    place: RunPlace,
    what: Annotated[
        str,
        typer.Argument(help="manual, automatic, arm, disarm, acknowledge or suppress."),
    ],
    alarm: Annotated[int | None, typer.Option(help="Number of an alarm, from status.")] = None,
    hours: Annotated[float, typer.Option(help="How long an alarm is suppressed [h].")] = 8.0,
    reason: Annotated[str, typer.Option(help="Why, for the audit trail.")] = "",
    actor: Actor = None,
    reactor: Vessel = None,
) -> None:
    """Tell a twin something: take a reactor over by hand, disarm it, acknowledge an alarm.

    Exit code 2 if the twin does not carry it out.
    """
    from perfusio_jax.twin.loop.commands import find_runs, send

    allowed = ("manual", "automatic", "arm", "disarm", "acknowledge", "suppress")
    if what not in allowed:
        raise ConfigError(f"{what!r} is unknown; allowed are {', '.join(allowed)}.")
    details: dict[str, Any] = {"reason": reason} if reason else {}
    if what in ("acknowledge", "suppress"):
        if alarm is None:
            raise ConfigError(f"{what} needs --alarm, its number as status shows it.")
        details |= {"alarm": alarm, "hours": hours}
    claim = actor or account()
    for folder in find_runs(run_folder(place), reactor):
        sent = send(folder, what, actor=claim, payload=details, reactor_id=reactor)
        _tell_outcome(folder, what, sent)


@commands.command("alarm-test", rich_help_panel=groups.REACTOR)
def alarm_test(
    what: Annotated[Path, typer.Argument(help="twin.toml, its folder, or fleet.toml.")],
    channel: Annotated[
        list[str] | None,
        typer.Option(help="log, file, email, slack or webhook, in place of the configured ones."),
    ] = None,
) -> None:
    """Send an alarm that means nothing, to see that it arrives; exit code 4 if it does not."""
    from perfusio_jax.service.alarm_test import send_test_alarm

    def pictures(folder: Path, reactor_id: str) -> Any:  # loads much, and only a mail needs it
        common.set_up_jax()
        from perfusio_jax.report.alarm_picture import alarm_pictures

        return alarm_pictures(folder, reactor_id)

    if not send_test_alarm(what, channel or (), say=say, pictures=pictures):
        raise typer.Exit(4)


@commands.command(rich_help_panel=groups.RECORDS)
def replay(
    what: Annotated[Path, typer.Argument(help="twin.toml or its folder.")], reactor: Vessel = None
) -> None:
    """Decide a whole run again from its journal; exit code 6 if a byte comes out otherwise."""
    common.set_up_jax()
    from perfusio_jax.service.replay import replay_run

    if not replay_run(what, reactor_id=reactor, console=console()):
        raise typer.Exit(6)


@commands.command(rich_help_panel=groups.RECORDS)
@reads_files
def report(
    place: Annotated[
        list[Path], typer.Argument(help="Run folder or its twin.toml; or campaign tables.")
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            help="One file with figures, derived numbers and how to verify: .html, .pdf or .md; "
            ".txt for what is printed without it."
        ),
    ] = None,
    reference: References = None,
    process: Culture = None,
    *,
    rules: Any,
) -> None:
    """Report on a run from its journal and audit trail, or on a campaign."""
    if out is not None:
        writable(out, suffixes=(*_WHOLE, ".txt"))
    tables = _as_tables(place)
    if tables:
        if out is not None and out.suffix.lower() not in _WHOLE:
            raise ConfigError(
                f"{tables[0]} is a table: its report is .html, .pdf or .md; without --out it is "
                "printed in short."
            )
        if out is None and reference:
            raise ConfigError(_REFERENCE)
        common.set_up_jax()
        from perfusio_jax.report.reporting import report_on_tables, show_tables

        with as_data():
            if out is None:
                show_tables(tables, culture=process, console=console(), rules=rules)
                return
            report_on_tables(
                tables,
                out,
                references=tuple(reference or ()),
                culture=process,
                console=console(),
                rules=rules,
            )
        return
    if out is not None and out.suffix.lower() in _WHOLE:
        common.set_up_jax()
        from perfusio_jax.report.reporting import report_on_run

        asked = tuple(reference or ())
        report_on_run(run_folder(place[0]), out, references=asked, console=console())
        return
    if reference:
        raise ConfigError(_REFERENCE)
    from perfusio_jax.report.in_short import show_run

    if out is None:
        show_run(run_folder(place[0]), console())
        return
    text = io.StringIO()
    show_run(run_folder(place[0]), Screen(file=text, width=console().width))
    out.write_text(text.getvalue(), encoding="utf-8")
    say(f"report: {out}")


@commands.command(rich_help_panel=groups.RECORDS)
def keygen(
    path: Annotated[Path, typer.Argument(help="File of the private key; must not be there.")],
) -> None:
    """Make a key that signs audit trails; the public half goes beside it, with .pub appended."""
    from perfusio_jax.twin import generate_key

    writable(path)
    signer = generate_key(path)
    say(f"key {signer.key_id}: {path} (private, mode 0600), {path}.pub (public)")


@commands.command("verify-audit", rich_help_panel=groups.RECORDS)
def verify_audit_command(
    where: Annotated[
        Path, typer.Argument(help="Run folder, one above several, audit.jsonl, or twin.toml.")
    ],
    key: Annotated[
        list[Path] | None, typer.Option(help="Public key that must have signed; may repeat.")
    ] = None,
) -> None:
    """Check an audit trail record by record; exit code 5 if it does not verify."""
    from perfusio_jax.service.audits import verify_run
    from perfusio_jax.twin import load_public_key

    trusted = [load_public_key(path) for path in key] if key else None
    found = verify_run(where, trusted=trusted)
    for one in found:
        name = f"{one.folder.name}: " if len(found) > 1 else ""
        say(f"{name}{one.report}" + (f"\n{one.copy}" if one.copy else ""))
    if not all(one.report.ok for one in found):
        raise typer.Exit(5)


def _as_tables(places: list[Path]) -> list[Path]:
    """Campaign tables, where those are named rather than a run."""
    for place in places:
        if not place.exists():
            raise ConfigError(f"{place} does not exist.")
    first = places[0]
    is_run = len(places) == 1 and (
        first.suffix == ".toml" or (first.is_dir() and not _holds_tables(first))
    )
    return [] if is_run else places


def _holds_tables(folder: Path) -> bool:
    """Whether a folder has tables, and no run of a twin in it or below it."""
    from perfusio_jax.connectors.tables.formats import (
        EXCEL_SUFFIXES,
        PARQUET_SUFFIXES,
        TEXT_SUFFIXES,
    )
    from perfusio_jax.twin.records.run_files import holds_records

    is_run = any(p.is_file() for n in range(3) for p in folder.glob(f"{'*/' * n}journal.sqlite"))
    has_settings = holds_records(folder) or _toml_in(folder) or (folder / "fleet.toml").exists()
    kinds = TEXT_SUFFIXES | PARQUET_SUFFIXES | EXCEL_SUFFIXES
    return (
        not has_settings
        and not is_run
        and any(file.suffix.lower() in kinds for file in folder.iterdir())
    )


def _who(claim: str) -> str:
    """The account of this process, and whom it says to be if that is somebody else."""
    return account() if claim == account() else f"{account()}, who says to be {claim},"


def _tell_outcome(folder: Path, what: str, sent: list[tuple[str, str]]) -> None:
    """Say what the twin made of a command.

    Raises:
        ConfigError: If it did not carry it out.
    """
    from perfusio_jax.twin.loop.commands import is_running, outcomes

    refused = []
    for name, outcome in outcomes(folder, sent, sleep=time.sleep).items():
        if outcome is None:
            why = "it has not answered yet" if is_running(folder) else "nothing runs here now"
            say(f"{name}: {what}, for the twin to carry out ({why}; status shows it)")
        elif outcome == "done":
            say(f"{name}: {what}, done")
        else:
            refused.append(f"{name}: {what}, refused by the twin: {outcome}")
    if refused:
        raise ConfigError("\n".join(refused))


def run_folder(place: Path) -> Path:
    """The folder with a run's records, from itself or from its configuration."""
    if not place.exists():
        raise ConfigError(f"{place} does not exist.")
    if (place / "journal.sqlite").exists() or (place.is_dir() and not _toml_in(place)):
        return place
    from perfusio_jax.service.fleet_file import fleet_of
    from perfusio_jax.service.settings import read_settings

    if fleet_of(place) is not None:
        return place if place.is_dir() else place.parent
    settings, base = read_settings(place)
    folder = base / str(settings["twin"].get("folder", "."))
    return folder if folder.exists() else base


def told_folder(place: Path) -> Path:
    """The folder with a run's records where a place is its settings or holds them; else the place.

    Args:
        place: What was named: a run folder, `twin.toml` or a folder with it, or something else.

    Raises:
        ConfigError: If it is the settings of a run of which there is no record yet.
    """
    if not (place.suffix == ".toml" or (place.is_dir() and _toml_in(place))):
        return place
    from perfusio_jax.twin.loop.commands import find_runs

    folder = run_folder(place)
    find_runs(folder)
    return folder


def _toml_in(folder: Path) -> bool:
    return (folder / "twin.toml").exists() or (folder / "config.toml").exists()
