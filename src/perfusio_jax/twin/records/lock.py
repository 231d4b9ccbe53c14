"""Locks on run folders: one writer at a time, and none left over by the dead.

The operating system holds the lock for as long as the process lives, so a crash frees it.
The file beside it only says who holds it.
"""

import contextlib
import datetime as dt
import json
import os
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from perfusio_jax._core import RunLockedError

from .files import AS_IT_IS

LOCK_NAME = "run.lock"


class FileLock:
    """An exclusive lock on a file, held by this object until released.

    Args:
        path: The lock file; it stays behind, empty of meaning, after release.
    """

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        self._descriptor: int | None = None

    @property
    def is_held(self) -> bool:
        """Whether this object holds the lock."""
        return self._descriptor is not None

    def acquire(self) -> None:
        """Take the lock, at once or not at all.

        Raises:
            RunLockedError: If another process, or another object of this one, holds it, or
                if the lock file cannot be opened.
        """
        if self._descriptor is not None:
            raise RunLockedError(f"{self.path} is already held by this very object.")
        try:
            descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | AS_IT_IS, 0o644)
        except OSError as error:
            raise RunLockedError(f"The lock {self.path} cannot be opened: {error}") from error
        try:
            _lock(descriptor)
        except OSError as error:
            os.close(descriptor)
            raise RunLockedError(
                f"{self.path.parent} is already in use{_holder(self.path)}. Stop that process "
                "first, or choose another folder."
            ) from error
        self._descriptor = descriptor

    def write(self, content: bytes) -> None:
        """Replace what the lock file says about its holder."""
        if self._descriptor is None:
            raise RunLockedError(f"{self.path} is not held, so nothing may be written to it.")
        os.ftruncate(self._descriptor, 0)
        os.lseek(self._descriptor, 0, os.SEEK_SET)  # pwrite is not everywhere
        os.write(self._descriptor, content)
        os.fsync(self._descriptor)

    def read(self) -> bytes:
        """What the lock file says about its last holder."""
        with contextlib.suppress(OSError):
            return self.path.read_bytes()
        return b""

    def release(self) -> None:
        """Let go; releasing twice does nothing."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


class RunLock:
    """The lock of a run folder, with a note of who holds it.

    Args:
        folder: The run folder; made if it is not there.
        clock: Source of the time in the note; UTC now by default.
        take_over: Take a lock last held on another host that was not released there. File
            locks do not reach across every network drive, so this is for a person to say.

    Raises:
        RunLockedError: On `acquire`, if a live process holds it.

    Examples:
        >>> import tempfile
        >>> with RunLock(tempfile.mkdtemp()) as lock:
        ...     lock.is_held
        True
    """

    def __init__(
        self,
        folder: Path | str,
        *,
        clock: Callable[[], dt.datetime] | None = None,
        take_over: bool = False,
    ) -> None:
        self.folder = Path(folder)
        self._lock = FileLock(self.folder / LOCK_NAME)
        self._clock = clock or (lambda: dt.datetime.now(dt.UTC))
        self._take_over = take_over
        self.recovered_from: dict[str, Any] | None = None
        """Note of a holder that died without releasing; `None` if the last one released."""

    @property
    def path(self) -> Path:
        """The lock file."""
        return self._lock.path

    @property
    def is_held(self) -> bool:
        """Whether this object holds the folder."""
        return self._lock.is_held

    def acquire(self) -> "RunLock":
        """Take the folder and write down who has it.

        Returns:
            Itself.

        Raises:
            RunLockedError: If a live process holds it, or if the last holder was on another
                host and did not release it (see `take_over`).
        """
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise RunLockedError(f"{self.folder} cannot be made: {error}") from error
        self._lock.acquire()
        note = _note(self._lock.read())
        self.recovered_from = note if note and "released_at" not in note else None
        here = socket.gethostname()
        if self.recovered_from and note.get("host") != here and not self._take_over:
            self._lock.release()
            raise RunLockedError(
                f"{self.folder} was last held by process {note.get('pid')} on host "
                f"{note.get('host')!r} since {note.get('since')} and never released; from "
                f"{here!r} it cannot be seen whether that process is alive. If it is not, take "
                "the folder over."
            )
        self._write({"pid": os.getpid(), "host": here, "since": self._now()})
        return self

    def beat(self) -> None:
        """Show that the holder is alive: the time of the lock file is now."""
        if self._lock.is_held:
            with contextlib.suppress(OSError):
                os.utime(self._lock.path)

    def release(self) -> None:
        """Give the folder back; releasing twice does nothing."""
        if self._lock.is_held:
            note = _note(self._lock.read())
            with contextlib.suppress(OSError):
                self._write({**note, "released_at": self._now()})
            self._lock.release()

    def __enter__(self) -> "RunLock":
        """Acquire."""
        return self if self.is_held else self.acquire()

    def __exit__(self, *exc: object) -> None:
        """Release."""
        self.release()

    def _write(self, note: dict[str, Any]) -> None:
        self._lock.write(json.dumps(note).encode() + b"\n")

    def _now(self) -> str:
        return self._clock().astimezone(dt.UTC).isoformat(timespec="seconds")


def holder_of(folder: Path) -> dict[str, Any] | None:
    """Who took a run folder last and has not released it, by the note of its lock.

    Nothing is locked to find out, so that whoever wants the folder gets it; the holder may have
    died since.

    Args:
        folder: Run folder.

    Returns:
        The note, with `is_alive`: whether a process of that number lives, `None` where that cannot
        be seen from here; `None` if nobody holds the folder.
    """
    try:
        note = _note((folder / LOCK_NAME).read_bytes())
    except OSError:
        return None
    if "pid" not in note or "released_at" in note:
        return None
    alive: bool | None = None
    if note.get("host") == socket.gethostname() and os.name == "posix":
        try:
            os.kill(int(note["pid"]), 0)
            alive = True
        except PermissionError:
            alive = True
        except (ProcessLookupError, OverflowError, ValueError, TypeError):
            alive = False
    return {**note, "is_alive": alive}


def _note(raw: bytes) -> dict[str, Any]:
    try:
        note = json.loads(raw)
    except ValueError:
        return {}
    return note if isinstance(note, dict) else {}


def _holder(path: Path) -> str:
    """Who holds the lock, as far as the lock file tells, to be put after "in use"."""
    note: dict[str, Any] = {}
    with contextlib.suppress(OSError):
        note = _note(path.read_bytes())
    if "pid" not in note:
        return " by another process"
    return f" by process {note['pid']} on host {note.get('host')!r} since {note.get('since')}"


if sys.platform == "win32":  # pragma: no cover
    import msvcrt

    def _lock(descriptor: int) -> None:
        # A byte far beyond the note, because Windows locks forbid reading what they cover.
        os.lseek(descriptor, 2**30, os.SEEK_SET)
        msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        os.lseek(descriptor, 0, os.SEEK_SET)

else:
    import fcntl

    def _lock(descriptor: int) -> None:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
