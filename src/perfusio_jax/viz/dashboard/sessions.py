"""Who is signed in, and who has tried too often.

Kept in memory alone: a server that starts anew knows nobody, and people sign in again. Cookies
hold a random number; what is kept is its hash.
"""

import hashlib
import hmac
import secrets
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

IDLE_S: Final = 30 * 60.0
"""A session ends this long after its person opened a page or sent a form [s]."""
LONGEST_S: Final = 12 * 3600.0
"""And this long after it began [s]."""
MOST_SESSIONS: Final = 200
"""Sessions at a time; the oldest goes for the next."""

FREE_TRIES: Final = 5
"""Failed tries of an account before it has to wait."""
FREE_FROM_ONE_PLACE: Final = 20
"""Failed tries from one address before that has to wait."""
FIRST_WAIT_S: Final = 2.0
"""The first wait [s]; each further failure doubles it."""
LONGEST_WAIT_S: Final = 15 * 60.0
"""The longest [s]."""
_FORGET_S: Final = 24 * 3600.0
_MOST_NAMES: Final = 10_000


@dataclass
class Session:
    """One person, signed in."""

    name: str
    """Account."""
    password: str
    """What was kept of the password they came with; another one ends the session."""
    csrf: str
    """What each of their forms has to hold."""
    began: float
    """When [s]."""
    last: float
    """When they last did something [s]."""
    said: list[tuple[bool, str]] = field(default_factory=list)
    """What the next page tells them: whether it went well, and what."""


class Sessions:
    """Those who are signed in.

    Args:
        monotonic: Clock [s].
    """

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._now = monotonic
        self._lock = threading.Lock()
        self._found: dict[str, Session] = {}

    def begin(self, name: str, password: str) -> tuple[str, Session]:
        """Sign somebody in.

        Args:
            name: Account.
            password: What is kept of its password.

        Returns:
            What their cookie holds, and the session.
        """
        token, now = secrets.token_urlsafe(32), self._now()
        session = Session(name, password, secrets.token_urlsafe(32), now, now)
        with self._lock:
            self._drop_old(now)
            while len(self._found) >= MOST_SESSIONS:
                self._found.pop(min(self._found, key=lambda k: self._found[k].last))
            self._found[_key(token)] = session
        return token, session

    def find(self, token: str | None) -> Session | None:
        """The session of a cookie; None if it is over or was never there."""
        if not token:
            return None
        now = self._now()
        with self._lock:
            self._drop_old(now)
            return self._found.get(_key(token))

    def touch(self, session: Session) -> None:
        """Somebody did something: their session goes on."""
        session.last = self._now()

    def end(self, token: str | None) -> None:
        """Sign out; twice does nothing."""
        with self._lock:
            self._found.pop(_key(token or ""), None)

    def end_all_of(self, name: str) -> None:
        """End every session of an account."""
        with self._lock:
            self._found = {k: s for k, s in self._found.items() if s.name != name}

    def __len__(self) -> int:
        """How many are signed in."""
        return len(self._found)

    def _drop_old(self, now: float) -> None:
        self._found = {
            key: s
            for key, s in self._found.items()
            if now - s.last < IDLE_S and now - s.began < LONGEST_S
        }


def is_theirs(session: Session, csrf: str) -> bool:
    """Whether a form came from a page that was made for this session."""
    return hmac.compare_digest(session.csrf.encode(), csrf.encode("utf-8", "replace"))


class Tries:
    """Counts failed tries to sign in by a name; after some, each failure waits longer.

    Args:
        monotonic: Clock [s].
        free: Failures before one has to wait.
    """

    def __init__(self, monotonic: Callable[[], float], *, free: int = FREE_TRIES) -> None:
        self._now, self._free = monotonic, free
        self._lock = threading.Lock()
        self._failed: dict[str, tuple[int, float]] = {}

    def wait(self, name: str) -> float:
        """How long one still has to wait before the next try [s]; 0 if not at all."""
        with self._lock:
            n, at = self._failed.get(name, (0, 0.0))
        if n < self._free:
            return 0.0
        wait = min(FIRST_WAIT_S * 2.0 ** min(n - self._free, 30), LONGEST_WAIT_S)
        return max(0.0, at + wait - self._now())

    def failed(self, name: str) -> None:
        """Count a failure."""
        now = self._now()
        with self._lock:
            n = self._failed.pop(name, (0, now))[0] + 1
            self._failed[name] = (n, now)  # the last of the order in which they are forgotten
            while self._failed:
                oldest = next(iter(self._failed))
                is_stale = now - self._failed[oldest][1] > _FORGET_S
                if not is_stale and len(self._failed) <= _MOST_NAMES:
                    break
                del self._failed[oldest]

    def went_well(self, name: str) -> None:
        """Forget the failures of a name."""
        with self._lock:
            self._failed.pop(name, None)


def _key(token: str) -> str:
    return hashlib.sha256(token.encode("utf-8", "replace")).hexdigest()
