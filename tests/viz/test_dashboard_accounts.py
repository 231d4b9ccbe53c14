"""Accounts of the page: hashes, files, sessions, tries, and to whom the page is served."""

import os
import socket

import pytest

from perfusio_jax._core import ConfigError
from perfusio_jax.cli import main
from perfusio_jax.viz.dashboard.accounts import (
    LONGEST,
    SHORTEST,
    Account,
    fits,
    hashed,
    read_accounts,
    write_accounts,
)
from perfusio_jax.viz.dashboard.guard import host_name
from perfusio_jax.viz.dashboard.sessions import (
    FREE_TRIES,
    IDLE_S,
    LONGEST_S,
    LONGEST_WAIT_S,
    MOST_SESSIONS,
    Sessions,
    Tries,
    is_theirs,
)
from perfusio_jax.viz.dashboard.settings import PageSettings, check

PASSWORD = "four words nobody guesses"
CHEAP = (2**4, 8, 1)


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def run(*words, capsys) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as end:
        main([str(w) for w in words])
    told = capsys.readouterr()
    return int(end.value.code or 0), told.out, told.err


def test_what_is_kept_is_salted_and_fits_that_password_alone():
    one, two = (hashed(PASSWORD, cost=CHEAP) for _ in range(2))
    assert one != two and PASSWORD not in one and one.startswith("scrypt$16$8$1$")
    assert fits(PASSWORD, one) and fits(PASSWORD, two)
    assert not fits(PASSWORD + " ", one) and not fits("", one) and not fits("x" * 10_000, one)
    assert fits("ü" * SHORTEST, hashed("ü" * SHORTEST, cost=CHEAP))
    for wrong in ("short", "x" * (SHORTEST - 1), "x" * (LONGEST + 1)):
        with pytest.raises(ConfigError, match=f"{SHORTEST} to {LONGEST}"):
            hashed(wrong, cost=CHEAP)


def test_a_new_hash_costs_what_it_should():
    kind, n, r, p, salt, value = hashed(PASSWORD).split("$")
    assert kind == "scrypt" and int(n) * int(r) * 128 >= 2**25 and int(n) * int(p) >= 98_304
    assert len(bytes.fromhex(salt)) == 16 and len(bytes.fromhex(value)) == 32


def test_a_file_of_accounts_is_written_for_its_user_alone_and_read_back(tmp_path):
    path = tmp_path / "new" / "accounts.toml"
    assert read_accounts(path) == {}
    people = {
        "Ann Ö": Account("Ann Ö", "operator", ("qa", "operator"), hashed(PASSWORD, cost=CHEAP)),
        "b.c": Account("b.c", "viewer", (), hashed(PASSWORD, cost=CHEAP)),
    }
    write_accounts(path, people)
    assert read_accounts(path) == people
    if os.name == "posix":
        assert path.stat().st_mode & 0o777 == 0o600
        path.chmod(0o640)
        with pytest.raises(ConfigError, match="mode 0640"):
            read_accounts(path)


@pytest.mark.parametrize(
    "text",
    [
        "x = 3",
        "[a]\nrole = 'viewer'",
        "[a]\nrole = 'root'\npassword = 'scrypt$16$8$1$0011223344556677$00'",
        "[a]\nrole = 'viewer'\npassword = 'scrypt$17$8$1$0011223344556677$00'",
        "[a]\nrole = 'viewer'\npassword = 'scrypt$1073741824$8$1$0011223344556677$00'",
        "[a]\nrole = 'viewer'\npassword = 'plain'",
        "[a]\nrole = 'viewer'\npassword = 7",
        "[a]\nrole = 'viewer'\nrights = 'all'\npassword = 'scrypt$16$8$1$0011223344556677$00'",
        '["a\\tb"]\nrole = "viewer"\npassword = "scrypt$16$8$1$0011223344556677$00"',
        "[a]\napproves_as = 'qa'\nrole='viewer'\npassword='scrypt$16$8$1$0011223344556677$00'",
        "[a",
    ],
)  # fmt: skip
def test_a_file_that_is_none_is_refused(tmp_path, text):
    path = tmp_path / "accounts.toml"
    path.write_text(text, encoding="utf-8")
    path.chmod(0o600)
    with pytest.raises(ConfigError, match=r"accounts\.toml"):
        read_accounts(path)


def test_sessions_end_by_idling_by_age_and_by_number():
    clock = Clock()
    sessions = Sessions(clock)
    token, session = sessions.begin("ann", "hash")
    assert sessions.find(token) is session and sessions.find(token + "x") is None
    assert sessions.find(None) is None and len(token) >= 43
    assert is_theirs(session, session.csrf) and not is_theirs(session, "ü")
    clock.now = IDLE_S - 1
    sessions.touch(session)
    clock.now += IDLE_S - 1
    assert sessions.find(token) is session
    clock.now += 2
    assert sessions.find(token) is None
    token, session = sessions.begin("ann", "hash")
    began = clock.now
    while clock.now - began < LONGEST_S:
        assert sessions.find(token) is session
        sessions.touch(session)
        clock.now += IDLE_S / 2
    assert sessions.find(token) is None
    tokens = [sessions.begin("ann", "hash")[0] for _ in range(MOST_SESSIONS + 5)]
    assert len(sessions) == MOST_SESSIONS and sessions.find(tokens[-1]) is not None
    sessions.end(tokens[-1])
    sessions.end(tokens[-1])
    sessions.end_all_of("ann")
    assert len(sessions) == 0


def test_tries_wait_longer_each_time_up_to_a_longest_and_are_forgotten():
    clock = Clock()
    tries = Tries(clock)
    for _ in range(FREE_TRIES - 1):
        tries.failed("ann")
    assert tries.wait("ann") == 0.0
    waits = []
    for _ in range(14):
        tries.failed("ann")
        waits.append(tries.wait("ann"))
        clock.now += waits[-1]
        assert tries.wait("ann") == 0.0
    assert waits[:4] == [2.0, 4.0, 8.0, 16.0] and waits[-1] == LONGEST_WAIT_S
    tries.failed("ann")
    tries.went_well("ann")
    assert tries.wait("ann") == 0.0 and tries.wait("bob") == 0.0
    for k in range(10_050):
        tries.failed(f"guess {k}")
    assert len(tries._failed) == 10_000  # whoever guesses names fills no memory


def test_another_address_needs_tls_and_accounts(tmp_path):
    path, pem = tmp_path / "accounts.toml", tmp_path / "x.pem"
    pem.write_text("", encoding="utf-8")
    for host in ("127.0.0.1", "::1", "localhost", "127.9.9.9"):
        assert check(PageSettings(path, host=host)).is_local
    for host in ("0.0.0.0", "192.0.2.7", "reactors.example.org", "::", "localhost.example"):
        bare = PageSettings(path, host=host, names=("x.example",))
        with pytest.raises(ConfigError, match="certificate and its key .* and accounts"):
            check(bare)
        with pytest.raises(ConfigError, match="without accounts"):
            check(bare._replace(certificate=pem, private_key=pem))
    with pytest.raises(ConfigError, match="--armed needs somebody"):
        check(PageSettings(path, is_armed=True))
    write_accounts(path, {"a": Account("a", "viewer", (), hashed(PASSWORD, cost=CHEAP))})
    far = PageSettings(path, host="192.0.2.7", certificate=pem, private_key=pem)
    assert check(far).needs_sign_in and far.allowed_hosts == ("192.0.2.7",)
    with pytest.raises(ConfigError, match="certificate and its key"):
        check(PageSettings(path, host="192.0.2.7"))
    with pytest.raises(ConfigError, match="--name"):
        check(far._replace(host="0.0.0.0"))
    with pytest.raises(ConfigError, match="go together"):
        check(PageSettings(path, certificate=pem))
    with pytest.raises(ConfigError, match="no file"):
        check(PageSettings(path, certificate=pem, private_key=tmp_path / "none"))
    assert [host_name(h) for h in ("A:80", "[::1]:80", "[::1]", "a", "", "a:b")] == [
        "a", "[::1]", "[::1]", "a", "", "a:b"]  # fmt: skip


def test_accounts_are_made_listed_and_removed_from_the_terminal(tmp_path, capsys, monkeypatch):
    path = tmp_path / "accounts.toml"
    at = ("--accounts", path)
    monkeypatch.setenv("PERFUSIO_ACCOUNT_PASSWORD", PASSWORD)
    code, out, err = run("account", "add", "ann", "--role", "operator", "--approves-as", "qa", *at,
                         capsys=capsys)  # fmt: skip
    assert code == 0 and "account ann: made, operator, approves as qa" in out, err
    assert fits(PASSWORD, read_accounts(path)["ann"].password)
    assert run("account", "add", "ann", *at, capsys=capsys)[1].startswith("account ann: changed")
    assert run("account", "list", *at, capsys=capsys)[1] == "ann: viewer\n"
    for words, said in (
        (("add", "x", "--role", "king"), "viewer, operator, supervisor"),
        (("add", " x"), "without spaces"),
        (("add", "x" * 65), "1 to 64 characters"),
        (("remove", "bob"), "it has ann"),
    ):
        code, _, err = run("account", *words, *at, capsys=capsys)
        assert code == 2 and said in err
    monkeypatch.setenv("PERFUSIO_ACCOUNT_PASSWORD", "short")
    code, _, err = run("account", "add", "bob", *at, capsys=capsys)
    assert code == 2 and "5 characters" in err and set(read_accounts(path)) == {"ann"}
    assert run("account", "remove", "ann", *at, capsys=capsys)[0] == 0
    assert "has no account" in run("account", "list", *at, capsys=capsys)[1]
    monkeypatch.delenv("PERFUSIO_ACCOUNT_PASSWORD")
    typed = iter([PASSWORD, "something else, entirely"])
    monkeypatch.setattr("typer.prompt", lambda *a, **k: next(typed))
    code, _, err = run("account", "add", "bob", *at, capsys=capsys)
    assert code == 2 and "differ" in err and read_accounts(path) == {}


def test_the_command_refuses_before_it_serves(tmp_path, capsys):
    at = ("--accounts", tmp_path / "none.toml")
    for words, said in (
        ((tmp_path / "nowhere", *at), "does not exist"),
        ((tmp_path, "--armed", *at), "--armed needs somebody"),
        ((tmp_path, "--host", "0.0.0.0", *at), "where others reach it"),
    ):
        code, _, err = run("dashboard", *words, capsys=capsys)
        assert code == 2 and said in err
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        code, _, err = run("dashboard", tmp_path, "--port", port, *at, capsys=capsys)
    assert code == 4 and "address already in use. --port chooses another one" in err
    code, _, err = run("dashboard", tmp_path, "--host", "127.0.0.256", *at, capsys=capsys)
    assert code == 2 and "where others reach it" in err
