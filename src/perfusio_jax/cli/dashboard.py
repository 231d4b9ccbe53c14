"""The local page, and the accounts of those who may ask something from it."""

import contextlib
import importlib.util
import os
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from perfusio_jax._core import ConfigError

from . import common, groups
from .common import Culture, MechanismOf
from .running import run_folder
from .screen import say

if TYPE_CHECKING:
    from perfusio_jax.service.what_if import WhatIf
    from perfusio_jax.viz.dashboard.views import Trial

commands = typer.Typer(rich_markup_mode=None)
accounts = typer.Typer(
    name="account",
    help="Accounts of the page: add, list, remove.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
commands.add_typer(accounts, rich_help_panel=groups.SEEING)

PASSWORD: Final = "PERFUSIO_ACCOUNT_PASSWORD"
"""Variable with the password of a new account, where nobody sits to type it."""
_NEEDED: Final = ("starlette", "uvicorn", "jinja2")

Accounts = Annotated[
    Path | None,
    typer.Option("--accounts", help="File of accounts; one of the user's settings by default."),
]


@commands.command(rich_help_panel=groups.SEEING)
def dashboard(
    place: Annotated[
        str | None,
        typer.Argument(
            help="Run folder, one above several, twin.toml, a fleet, or sqlite:///… and "
            "postgresql://…, whose runs are shown and not commanded."
        ),
    ] = None,
    campaign: Annotated[
        list[Path] | None,
        typer.Option(
            "--campaign", help="Campaign table whose next runs are proposed in memory; may repeat."
        ),
    ] = None,
    goal: Annotated[
        str | None, typer.Option(help="Of the campaign, as propose takes it; titre.")
    ] = None,
    limit: Annotated[
        list[str] | None, typer.Option("--limit", help="Of the campaign, as propose takes it.")
    ] = None,
    goal_file: Annotated[
        Path | None, typer.Option("--goal-file", help="Of the campaign, as propose takes it.")
    ] = None,
    n_runs: Annotated[
        int, typer.Option("--runs", min=1, max=24, help="Runs to propose for the campaign.")
    ] = 8,
    process: Culture = None,
    mechanism: MechanismOf = None,
    armed: Annotated[
        bool, typer.Option("--armed", help="Whoever signs in may ask something of the twin.")
    ] = False,
    accounts: Accounts = None,
    host: Annotated[str, typer.Option(help="Address; this machine alone by default.")] = (
        "127.0.0.1"
    ),
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port; 0: any that is free.")] = 8765,
    cert: Annotated[Path | None, typer.Option(help="Certificate (PEM): serves over TLS.")] = None,
    key: Annotated[Path | None, typer.Option(help="Its private key (PEM).")] = None,
    name: Annotated[
        list[str] | None, typer.Option(help="Name browsers know it by; may repeat.")
    ] = None,
) -> None:
    """Show runs in a browser, live; from there one may ask of a twin what the terminal may."""
    lacking = [n for n in _NEEDED if importlib.util.find_spec(n) is None]
    if lacking:
        raise ConfigError(
            f"the page needs {', '.join(lacking)}; pip install 'perfusio-jax[dash]' brings it."
        )
    if place is None and not campaign:
        raise ConfigError(
            "there is nothing to show: name a run folder, twin.toml or the URL of a database, or "
            "a table with --campaign."
        )
    common.set_up_jax()
    from perfusio_jax.viz.dashboard.app import build_app
    from perfusio_jax.viz.dashboard.serving import serve
    from perfusio_jax.viz.dashboard.settings import PageSettings, check

    settings = check(
        PageSettings(
            accounts or default_accounts(), armed, host, port, cert, key, tuple(name or ())
        )
    )
    with contextlib.ExitStack() as opened:
        watched, tried = _watched(place, armed, opened)
        proposing = None
        if campaign:
            wishes = _wishes(goal, limit, goal_file, n_runs)
            proposing = _proposing(campaign, wishes, process, mechanism, opened)
        app = build_app(watched, settings, say=say, tried=tried, proposing=proposing)
        serve(app, settings, say=say)


def _watched(place: str | None, armed: bool, opened: contextlib.ExitStack) -> tuple[Any, Any]:
    """What is watched at a place, and what answers questions about it."""
    if place is None or "://" in place:
        if armed:
            raise ConfigError("--armed is of run folders: nothing drives what is shown here.")
        from perfusio_jax.viz.dashboard.views import NoRuns

        if place is None:
            return NoRuns(), None
        from perfusio_jax.report.watching_sql import WatchingSQL

        held = WatchingSQL(place)
        opened.callback(held.close)
        return held, None
    from perfusio_jax.report.watching import Watching

    watching, what_if = Watching(run_folder(Path(place))), _Later()
    opened.callback(watching.close)
    opened.callback(what_if.close)
    return watching, what_if


def _wishes(goal: str | None, limit: list[str] | None, goal_file: Path | None, n_runs: int) -> Any:
    """What the next runs of a campaign are for, as `propose` takes it."""
    from perfusio_jax.report.goal_file import GoalFile, read_goal_file
    from perfusio_jax.report.wishes import wishes_of

    told = GoalFile() if goal_file is None else read_goal_file(goal_file)
    return wishes_of(told, goal=goal, limits=limit or (), n_runs=n_runs)


def _proposing(
    tables: list[Path],
    wishes: Any,
    process: str | None,
    mechanism: str | None,
    opened: contextlib.ExitStack,
) -> Any:
    from perfusio_jax.report.proposing_again import ProposingAgain

    made = ProposingAgain(tables, wishes, culture=process, mechanism=mechanism)
    opened.callback(made.close)
    return made


@accounts.command("add")
def add(
    name: Annotated[str, typer.Argument(help="Name one signs in with.")],
    role: Annotated[str, typer.Option(help="viewer, operator or supervisor.")] = "viewer",
    approves_as: Annotated[
        list[str] | None,
        typer.Option("--approves-as", help="Role of the twin's approvals; may repeat."),
    ] = None,
    accounts: Accounts = None,
) -> None:
    """Make an account, or give one another role and password; asks for the password twice."""
    from perfusio_jax.viz.dashboard.accounts import (
        Account,
        checked_name,
        checked_role,
        hashed,
        read_accounts,
        write_accounts,
    )

    path = accounts or default_accounts()
    checked_name(name)
    checked_role(role)
    known = read_accounts(path)
    password = os.environ.get(PASSWORD)
    if password is None:
        password = typer.prompt("Password", hide_input=True)
        if typer.prompt("Again", hide_input=True) != password:
            raise ConfigError("the two passwords differ; nothing was changed.")
    made = Account(name, role, tuple(approves_as or ()), hashed(password))
    write_accounts(path, {**known, name: made})
    verb = "changed" if name in known else "made"
    behind = f", approves as {', '.join(made.approves_as)}" if made.approves_as else ""
    say(f"account {name}: {verb}, {role}{behind} ({path})")


@accounts.command("list")
def list_accounts(accounts: Accounts = None) -> None:
    """Say which accounts there are."""
    from perfusio_jax.viz.dashboard.accounts import read_accounts

    path = accounts or default_accounts()
    known = read_accounts(path)
    for one in known.values():
        behind = f", approves as {', '.join(one.approves_as)}" if one.approves_as else ""
        say(f"{one.name}: {one.role}{behind}")
    if not known:
        say(f"{path} has no account; perfusio-jax account add NAME makes one")


@accounts.command("remove")
def remove(
    name: Annotated[str, typer.Argument(help="Account.")], accounts: Accounts = None
) -> None:
    """Take an account away; whoever is signed in with it is not any more."""
    from perfusio_jax.viz.dashboard.accounts import read_accounts, write_accounts

    path = accounts or default_accounts()
    known = read_accounts(path)
    if name not in known:
        raise ConfigError(f"{path} has no account {name!r}; it has {', '.join(known) or 'none'}.")
    write_accounts(path, {n: a for n, a in known.items() if n != name})
    say(f"account {name}: removed")


class _Later:
    """What is asked of models, which are loaded when somebody asks: the page is there before."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._made: WhatIf | None = None

    def __call__(
        self, folder: Path, reactor_id: str, set_points: Mapping[str, float], /
    ) -> "Trial":
        """See `service.what_if.WhatIf`."""
        with self._lock:
            if self._made is None:
                from perfusio_jax.service.what_if import WhatIf

                self._made = WhatIf()
        return self._made(folder, reactor_id, set_points)

    def close(self) -> None:
        """Begin nothing more."""
        if self._made is not None:
            self._made.close()


def default_accounts() -> Path:
    """The user's file of accounts."""
    import platformdirs

    return platformdirs.user_config_path("perfusio-jax") / "accounts.toml"
