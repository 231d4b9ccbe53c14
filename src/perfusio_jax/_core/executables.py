"""The folder of finished executables, and the names they are found by."""

import contextlib
import copyreg
import dataclasses
import enum
import functools
import hashlib
import math
import os
import pickle
import platform
import secrets
import stat
import tempfile
import types
from collections.abc import Callable, Iterable, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any, Final

import equinox as eqx
import jax
import numpy as np

_BUILT_ON: Final = (
    "jax", "jaxlib", "numpy", "equinox", "diffrax", "lineax", "optimistix", "optax", "gpjax",
    "paramax", "jaxtyping",
)  # fmt: skip
"""What a program is traced through, besides this package."""
_SETTINGS: Final = (
    "jax_enable_x64", "jax_default_matmul_precision", "jax_default_prng_impl",
    "jax_threefry_partitionable", "jax_random_seed_offset", "jax_numpy_dtype_promotion",
    "jax_numpy_rank_promotion", "jax_debug_nans", "jax_debug_infs", "jax_disable_jit",
    "jax_platforms", "jax_enable_checks", "jax_cpu_enable_async_dispatch",
)  # fmt: skip
"""Settings of JAX that change what a function becomes, or how it is called."""
UNCOMPILED: Final = (
    "cli/", "connectors/", "service/", "viz/", "twin/alarms/", "twin/loop/", "twin/records/",
)  # fmt: skip
"""Rooms that hold nothing compiled: a change in them leaves the executables as they are."""
_KNOWN: Final = frozenset(
    {"builtins", "collections", "functools", "numpy", "perfusio_jax", *_BUILT_ON}
)
"""Packages whose functions and classes are the same code under the same name."""
_UNUSED_DAYS: Final = 60
"""An executable that nobody asked for that long before another is removed."""
_LARGEST: Final = 2_000_000_000
"""Size of the folder from which on those not asked for longest are removed [bytes]."""
_MARK: Final = b"perfusio-jax executable 1\n"
NOT_KEPT: Final = "not kept"
"""In place of an executable that cannot be written: JAX's own cache has it."""


def _keep_what_is_missing() -> None:
    """Have Equinox's mark of a missing attribute read back as itself.

    It is a part of the structure of modules, compared by identity: a copy of it in the structure
    that an executable returns would make a model of another kind of what is the same.
    """
    with contextlib.suppress(ImportError, AttributeError):  # of a version that has no such mark
        from equinox._module import _flatten

        mark = _flatten.MISSING
        copyreg.pickle(type(mark), lambda _: (_missing, ()))  # pyright: ignore[reportArgumentType]


def _missing() -> Any:
    from equinox._module import _flatten

    return _flatten.MISSING


_keep_what_is_missing()


def settings() -> tuple[Any, ...]:
    """JAX's settings now, as far as they matter, and the device.

    A device that was named and the same one taken by default are one: what is named in one thread
    is not in another.
    """
    device = getattr(jax.config, "jax_default_device", None) or jax.devices()[0]
    return (*(getattr(jax.config, name, None) for name in _SETTINGS), str(device))


class Unnamed(Exception):
    """Something that cannot be told from another of its kind in the next process."""


class Executables:
    """A folder of executables of this state of the package on this device."""

    def __init__(self, folder: Path):
        """Use a folder.

        Args:
            folder: Its place; made if it is not there.

        Raises:
            OSError: If it cannot be made, or others may write there: what is loaded from it is
                run.
        """
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        refuse_shared(folder.parent)
        refuse_shared(folder)
        self.folder = folder
        _remove_unused(folder)

    @functools.cached_property
    def _base(self) -> str:
        return "\n".join(
            [_sources(), *(f"{name} {_version(name)}" for name in _BUILT_ON), _machine()]
        )

    def key(self, name: str, arguments: str) -> str:
        """The name of an executable.

        Args:
            name: Of the function.
            arguments: What `describe` says of its arguments.
        """
        text = "\n".join([self._base, *map(str, settings()), name, arguments])
        return hashlib.sha256(text.encode()).hexdigest()[:32]

    def load(self, name: str, key: str) -> Any:
        """An executable and the form of its result, None if there is none that can be used.

        `NOT_KEPT` for one that `save` was given and could not write.
        """
        from jax.experimental import serialize_executable

        path = self._path(name, key)
        _prepare_linear_algebra()
        try:
            content = path.read_bytes()
        except OSError:
            return None
        head = len(_MARK) + 32
        if content[: len(_MARK)] == _MARK and (
            _seal(name, key, content[head:]) == content[len(_MARK) : head]
        ):
            with contextlib.suppress(Exception):  # whatever it is, it is compiled again
                if (kept := pickle.loads(content[head:])) == NOT_KEPT:
                    return NOT_KEPT
                program, form, trees = kept
                executable = serialize_executable.deserialize_and_load(program, *trees)
                with contextlib.suppress(OSError):
                    os.utime(path)
                return executable, form
        self.forget(name, key)
        return None

    def forget(self, name: str, key: str) -> None:
        """Remove an executable, for example one that cannot be run here."""
        with contextlib.suppress(OSError):
            self._path(name, key).unlink()

    def save(self, name: str, key: str, executable: Any, form: Any) -> None:
        """Keep an executable, if it can be kept."""
        from jax.experimental import serialize_executable

        try:
            program, *trees = serialize_executable.serialize(executable)
            content = pickle.dumps((program, form, tuple(trees)))
        except Exception:  # a callback of the host, constants: JAX has no common error for these
            content = pickle.dumps(NOT_KEPT)
        path = self._path(name, key)
        with contextlib.suppress(OSError):  # a full or read-only disk: compiled again next time
            number, draft = tempfile.mkstemp(dir=self.folder, prefix="draft")
            try:
                with os.fdopen(number, "wb") as file:
                    file.write(_MARK + _seal(name, key, content) + content)
                Path(draft).replace(path)
            except OSError:
                Path(draft).unlink()
                raise

    def _path(self, name: str, key: str) -> Path:
        return self.folder / f"{name.rpartition('.')[2].strip('_')}-{key}"


def refuse_shared(folder: Path) -> None:
    """Refuse a folder where somebody else may put what this process would run.

    Raises:
        OSError: If it is a link, or its owner is another or others may write there.
    """
    if os.name != "posix":
        return
    known = folder.lstat()
    if stat.S_ISLNK(known.st_mode):
        raise OSError(f"{folder} is a link")
    if known.st_uid != os.getuid() or known.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise OSError(f"{folder} can be written by others (chmod go-w ends that)")


def _seal(name: str, key: str, content: bytes) -> bytes:
    """Checksum of an executable under its name: one that was moved to another name is not it."""
    return hashlib.sha256(f"{name} {key}\n".encode() + content).digest()


def compile_afresh(fn: Callable, arrays: list) -> Any:
    """An executable that can be kept, which one out of JAX's own cache cannot.

    XLA for processors leaves out the machine code when it is asked to write an executable that
    it has read. So the program gets a name that this cache has not seen, and is not put there.
    """
    fn.__name__ = f"{fn.__name__}_{secrets.token_hex(8)}"
    shortest = jax.config.jax_persistent_cache_min_compile_time_secs  # pyright: ignore
    jax.config.update("jax_persistent_cache_min_compile_time_secs", math.inf)
    try:
        return jax.jit(fn).lower(arrays).compile()
    finally:
        jax.config.update("jax_persistent_cache_min_compile_time_secs", shortest)


_KEEPER: list[Executables] = []


def keep_executables(folder: Path | None) -> None:
    """Keep executables in a folder from here on; None ends it.

    Raises:
        OSError: If the folder cannot be used.
    """
    _KEEPER[:] = [] if folder is None else [Executables(folder)]


def keeper() -> Executables | None:
    """The folder of executables in use; None where there is none or it would not be right.

    Executables are for one device: with several, which one a program is for is JAX's matter.
    """
    if not _KEEPER or jax.device_count() > 1:
        return None
    return _KEEPER[0]


def describe(value: Any) -> str:
    """What a compiled function sees of its arguments, in words that another process repeats.

    Of an array that is traced that is its shape and type; of one in a static place its values.

    Raises:
        Unnamed: If a part has no such words.
    """
    parts: list[str] = []
    _describe(value, parts.append, is_static=False)
    return "".join(parts)


def _describe(value: Any, say: Callable[[str], None], *, is_static: bool) -> None:
    def each(items: Iterable[Any]) -> None:
        for item in items:
            _describe(item, say, is_static=is_static)

    if isinstance(value, jax.Array | np.ndarray | np.generic):
        say(f"{value.dtype}{value.shape}{getattr(value, 'weak_type', '')};")
        if is_static:
            say(hashlib.sha256(np.ascontiguousarray(value).tobytes()).hexdigest())
    elif value is None or isinstance(value, bool | int | float | complex | str | bytes):
        say(f"{_named(type(value))} {value!r};")
    elif isinstance(value, tuple | list):
        say(f"{_named(type(value))} {len(value)}(")
        each(value)
        say(")")
    elif isinstance(value, Mapping):
        say(f"{_named(type(value))} {len(value)}{{")
        # JAX sorts the keys of a plain dictionary it takes apart
        names = sorted(value) if type(value) is dict and not is_static else list(value)
        each(part for name in names for part in (name, value[name]))
        say("}")
    elif isinstance(value, eqx.Module):
        say(f"{_named(type(value))}(")
        for field in dataclasses.fields(value):
            say(f"{field.name}=")
            part, static = getattr(value, field.name, None), field.metadata.get("static", False)
            _describe(part, say, is_static=is_static or static)
        say(")")
    elif jax.tree_util.all_leaves([value]) or is_static:
        _describe_static(value, say)
    else:  # a kind of tree whose static parts nobody here knows
        raise Unnamed(type(value).__qualname__)


def _describe_static(value: Any, say: Callable[[str], None]) -> None:
    def each(*parts: Any) -> None:
        for part in parts:
            _describe(part, say, is_static=True)

    if isinstance(value, types.FunctionType):
        say(f"{_named(value)}:{value.__code__.co_firstlineno};")
        each([cell.cell_contents for cell in value.__closure__ or ()])
        each(value.__defaults__, value.__kwdefaults__)
    elif isinstance(value, type | types.BuiltinFunctionType | np.ufunc):
        say(f"{_named(value)};")
    elif isinstance(value, enum.Enum):
        say(f"{_named(type(value))}.{value.name};")
    elif isinstance(value, np.dtype):
        say(f"dtype {value};")
    elif isinstance(value, slice):
        say("slice ")
        each(value.start, value.stop, value.step)
    elif isinstance(value, types.MethodType):
        say("method ")
        each(value.__func__, value.__self__)
    elif isinstance(value, functools.partial):
        say("partial ")
        each(value.func, value.args, value.keywords)
    elif dataclasses.is_dataclass(value):
        say(f"{_named(type(value))}(")
        each(*(getattr(value, field.name) for field in dataclasses.fields(value)))
        say(")")
    elif callable(value) and hasattr(value, "__wrapped__"):
        say(f"{_named(type(value))} of ")
        each(value.__wrapped__)
    elif hasattr(value, "__dict__"):
        say(f"{_named(type(value))} with ")
        each(*sorted(vars(value).items()))
    else:
        raise Unnamed(type(value).__qualname__)


def _named(thing: Any) -> str:
    module = getattr(thing, "__module__", None) or "builtins"
    name = getattr(thing, "__qualname__", None) or getattr(thing, "__name__", "")
    if module.partition(".")[0] not in _KNOWN:
        raise Unnamed(f"{module}.{name}")
    return f"{module}.{name}"


def _sources() -> str:
    """A hash of this package's sources: whatever changes there may change a program."""
    root, total = Path(__file__).parents[1], hashlib.sha256()
    for file in sorted(root.rglob("*.py")):
        name = file.relative_to(root).as_posix()
        if not name.startswith(UNCOMPILED):
            total.update(name.encode() + b"\0" + file.read_bytes())
    return total.hexdigest()


@functools.cache
def _prepare_linear_algebra() -> None:
    """Find the routines of LAPACK, which JAX does when it lowers the first call of one.

    An executable that calls one in a process that has lowered none ends that process.
    """
    jax.jit(jax.numpy.linalg.cholesky).lower(np.ones((1, 1)))


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "none"


def _machine() -> str:
    """Kind of device and processor; an executable holds instructions of this one."""
    device = jax.devices()[0]
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith(("flags", "Features")):
                return f"{device.device_kind} {device.client.platform_version} {line} {_flags()}"
    kind = f"{platform.machine()} {platform.processor()} {platform.platform()}"
    return f"{device.device_kind} {device.client.platform_version} {kind} {_flags()}"


def _flags() -> str:
    return " ".join(os.environ.get(name, "") for name in ("XLA_FLAGS", "EQX_ON_ERROR"))


def _remove_unused(folder: Path) -> None:
    """Make room: what was last asked for long before the others, and the oldest of too much."""
    found, room = [], _LARGEST
    for path in folder.iterdir():
        with contextlib.suppress(OSError):  # another process may be removing, too
            found.append((path.stat().st_mtime, path.stat().st_size, path))
    oldest = max((asked for asked, *_ in found), default=0.0) - 86_400 * _UNUSED_DAYS
    for asked, size, path in sorted(found, key=lambda entry: entry[0], reverse=True):
        room -= size
        if asked < oldest or room < 0:
            with contextlib.suppress(OSError):
                path.unlink()
