"""A real PostgreSQL server for tests and benchmarks: its own folder, a free port, not root."""

import contextlib
import os
import pwd
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

INSTALL = "apt-get install postgresql (or put initdb and postgres on the PATH)"
USER = "perfusio"


def find_binaries() -> Path | None:
    """Folder with `initdb` and `postgres`: on the PATH, else Debian's newest."""
    folders = [Path(found).resolve().parent for n in ("initdb",) if (found := shutil.which(n))]
    debian = Path("/usr/lib/postgresql").glob("*/bin")
    folders += sorted(debian, key=lambda p: float(p.parent.name), reverse=True)
    for folder in folders:
        if (folder / "initdb").exists() and (folder / "postgres").exists():
            return folder
    return None


def _unprivileged() -> dict[str, int | list[int]]:
    """Arguments for `subprocess` that leave root behind; PostgreSQL refuses to run as root."""
    if os.geteuid() != 0:
        return {}
    for name in ("postgres", "nobody"):
        with contextlib.suppress(KeyError):
            user = pwd.getpwnam(name)
            return {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}
    raise RuntimeError("there is no unprivileged user to run PostgreSQL as")


class Server:
    """A running server; its password is in `password`, to be put into PGPASSWORD."""

    def __init__(self, binaries: Path, folder: Path, *, is_durable: bool) -> None:
        self.binaries, self.folder = binaries, folder
        self.password = secrets.token_hex(12)
        self.is_durable = is_durable
        self._who = _unprivileged()
        self._process: subprocess.Popen[bytes] | None = None
        if self._who:
            os.chown(folder, self._who["user"], self._who["group"])  # pyright: ignore
        self._initialise()
        self.port = self.start()

    def _initialise(self) -> None:
        secret = self.folder / "secret"
        secret.write_text(self.password + "\n")
        secret.chmod(0o644)  # in a folder only its owner can enter
        command = [self.binaries / "initdb", "-D", self.folder / "data", "-U", USER, "-N"]
        command += ["-A", "scram-sha-256", "--pwfile", secret, "-E", "UTF8", "--locale", "C"]
        subprocess.run(
            command,
            check=True,
            stdout=subprocess.DEVNULL,
            cwd=self.folder,
            **self._who,  # pyright: ignore
        )
        secret.unlink()

    def start(self, port: int | None = None) -> int:
        """Start, or start again on the same port; returns when it takes connections."""
        for _ in range(5):
            chosen = _free_port() if port is None else port
            settings = {
                "listen_addresses": "127.0.0.1",
                "unix_socket_directories": self.folder,
                "fsync": "on" if self.is_durable else "off",
                "max_connections": 60,
            }
            command: list[object] = [self.binaries / "postgres", "-D", self.folder / "data"]
            command += ["-p", str(chosen)]
            for name, value in settings.items():
                command += ["-c", f"{name}={value}"]
            log = (self.folder / "log").open("ab")
            with log:
                self._process = subprocess.Popen(
                    command,  # pyright: ignore
                    stdout=log,
                    stderr=log,
                    cwd=self.folder,
                    start_new_session=True,
                    **self._who,  # pyright: ignore
                )
            if self._is_up(chosen):
                self.port = chosen
                return chosen
        raise RuntimeError(f"PostgreSQL did not start: {(self.folder / 'log').read_text()[-2000:]}")

    def _is_up(self, port: int) -> bool:
        import psycopg

        deadline = time.monotonic() + 60.0
        while time.monotonic() < deadline:
            if self._process is None or self._process.poll() is not None:
                return False
            with contextlib.suppress(psycopg.OperationalError):
                self._connect(port).close()
                return True
            time.sleep(0.02)
        return False

    def _connect(self, port: int, database: str = "postgres"):
        import psycopg

        return psycopg.connect(
            host="127.0.0.1",
            port=port,
            user=USER,
            password=self.password,
            dbname=database,
            autocommit=True,
            connect_timeout=5,
        )

    def execute(self, statement: str, database: str = "postgres") -> None:
        """Run one statement as the superuser."""
        with contextlib.closing(self._connect(self.port, database)) as connection:
            connection.execute(statement)  # pyright: ignore

    def create_database(self, template: str | None = None) -> str:
        """A fresh database and its name."""
        name = f"t{secrets.token_hex(8)}"
        self.execute(f"CREATE DATABASE {name}" + (f" TEMPLATE {template}" if template else ""))
        return name

    def drop_database(self, name: str) -> None:
        """Drop a database, whoever is connected."""
        self.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")

    def url(self, database: str) -> str:
        """URL without a password."""
        return f"postgresql://{USER}@127.0.0.1:{self.port}/{database}"

    def signal(self, number: int) -> None:
        """Send a signal to the server and all its workers, which have sessions of their own."""
        if self._process is not None:
            for pid in (self._process.pid, *_children(self._process.pid)):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, number)

    def kill(self) -> None:
        """As a power cut would."""
        self.signal(signal.SIGKILL)
        self._wait()

    def stop(self) -> None:
        """Stop at once and in good order."""
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(signal.SIGINT)
            self._wait()

    def _wait(self) -> None:
        if self._process is not None:
            self._process.wait(timeout=60)


@contextlib.contextmanager
def running_server(*, is_durable: bool = False) -> Iterator[Server]:
    """A server for as long as the block lasts; its folder is removed after.

    Args:
        is_durable: Whether commits reach the disk; tests do without.

    Raises:
        FileNotFoundError: Without PostgreSQL; says what to install.
    """
    binaries = find_binaries()
    if binaries is None:
        raise FileNotFoundError(f"PostgreSQL is not installed: {INSTALL}")
    folder = Path(tempfile.mkdtemp(prefix="perfusio-pg-"))
    try:
        server = Server(binaries, folder, is_durable=is_durable)
        try:
            yield server
        finally:
            server.stop()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _children(parent: int) -> list[int]:
    """Processes a process started."""
    found = []
    for status in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            fields = status.read_text().rpartition(")")[2].split()
            if int(fields[1]) == parent:
                found.append(int(status.parent.name))
    return found


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
