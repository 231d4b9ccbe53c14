"""Functions that are compiled once per size of their arguments, also across processes.

Inside a process `compiled` does what `equinox.filter_jit` does. Where programs are kept on disk
(see `enable_compile_cache`), it also keeps the finished executable: the next process then neither
traces nor lowers nor compiles the function, which takes most of the time of a first call even
where JAX's own cache, which is asked only after tracing and lowering, has the result.

An executable is found again by the sources of this package, the versions of what it is built on,
the settings of JAX, the device, and the shapes and the static parts of the arguments. Whatever has
no such name (a function of the caller's, a host callback, several devices) is compiled as usual.
"""

import functools
from collections.abc import Callable
from typing import Any, Generic, NamedTuple, ParamSpec, TypeVar

import equinox as eqx
import jax
from jax.core import Tracer

from perfusio_jax._core.executables import (
    NOT_KEPT,
    Executables,
    Unnamed,
    compile_afresh,
    describe,
    keeper,
    settings,
)
from perfusio_jax._core.progress import compiled_now

P = ParamSpec("P")
R = TypeVar("R")

_PLAIN = object()
"""In place of an executable: these arguments are for `filter_jit`."""


class Compiled(Generic[P, R]):
    """A function with its programs, one per size."""

    def __init__(self, fn: Callable[P, R]):
        """See `compiled`."""
        self._fn, self._plain = fn, eqx.filter_jit(fn)
        self._name = f"{fn.__module__}.{fn.__qualname__}"
        self._ready: dict[Any, Any] = {}
        functools.update_wrapper(self, fn)

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """The function's result; compiles or reads what it needs first."""
        store = keeper()
        if store is None or jax.config.jax_disable_jit:  # pyright: ignore[reportAttributeAccessIssue]
            return self._plain(*args, **kwargs)
        leaves, tree = jax.tree.flatten((args, kwargs))
        arrays = [leaf for leaf in leaves if eqx.is_array(leaf)]
        if any(isinstance(leaf, Tracer) for leaf in arrays):
            return self._plain(*args, **kwargs)
        rest = tuple(None if eqx.is_array(leaf) else _fixed(leaf) for leaf in leaves)
        try:
            key = (tree, rest, tuple(map(_size, arrays)), settings(), store)
            found = self._ready.get(key)
        except TypeError:  # a static argument without a hash; `filter_jit` says so
            return self._plain(*args, **kwargs)
        if found is None:
            found = self._ready[key] = _made(self._fn, self._name, store, (leaves, tree), arrays)
        if found is _PLAIN:
            return self._plain(*args, **kwargs)
        try:
            return found.call(arrays)
        except jax.errors.JaxRuntimeError:
            if found.forget is None:
                raise
            found.forget()  # whole, and yet not for this machine
            found = _compiled(self._fn, self._name, store, found.key, (leaves, tree), arrays)
            self._ready[key] = found
            return found.call(arrays)

    def __repr__(self) -> str:
        """Which function it is."""
        return f"<compiled {self._name}>"

    def __reduce__(self) -> str:
        """Found again by its name, like any function of a module."""
        return self._fn.__qualname__

    def n_programs(self) -> int:
        """Programs of this function in this process."""
        return self._plain._cached._cache_size() + sum(
            v is not _PLAIN for v in self._ready.values()
        )

    def lower(self, *args: P.args, **kwargs: P.kwargs) -> Any:
        """The function traced and lowered, to be looked at."""
        return self._plain.lower(*args, **kwargs)


def compiled(fn: Callable[P, R]) -> Compiled[P, R]:
    """Compile a function for each size of its arguments, and keep what was compiled.

    Arrays in the arguments are traced, everything else is static, as in `equinox.filter_jit`.
    Inside another traced function the call becomes part of that.

    Args:
        fn: A function of a module of this package, pure, whose result depends on its arguments
            alone.

    Returns:
        The compiled function.
    """
    return Compiled(fn)


def _fixed(leaf: Any) -> Any:
    """A static leaf as part of a key: 1, 1.0 and True differ, 0.0 and -0.0 too, NaN does not."""
    return type(leaf), repr(leaf) if isinstance(leaf, float | complex) else leaf


def _size(array: Any) -> tuple[Any, ...]:
    return array.shape, array.dtype, getattr(array, "weak_type", False)


class _Ready(NamedTuple):
    """An executable that can be called."""

    call: Callable[[list], Any]
    key: str
    forget: Callable[[], None] | None = None
    """Removes it from the folder it was read from."""


def _made(
    fn: Callable, name: str, store: Executables, given: tuple[list, Any], arrays: list
) -> Any:
    """An executable from the folder, or a new one that is put there."""
    try:
        key = store.key(name, describe(jax.tree.unflatten(given[1], given[0])))
    except Unnamed:
        return _PLAIN
    kept = store.load(name, key)
    if kept is None:
        return _compiled(fn, name, store, key, given, arrays)
    if kept == NOT_KEPT:
        return _PLAIN
    return _Ready(_called(*kept), key, functools.partial(store.forget, name, key))


def _compiled(
    fn: Callable, name: str, store: Executables, key: str, given: tuple[list, Any], arrays: list
) -> _Ready:
    leaves, tree = given
    where = [k for k, leaf in enumerate(leaves) if eqx.is_array(leaf)]
    rest = [None if eqx.is_array(leaf) else leaf for leaf in leaves]
    form: list[Any] = []

    def flat(arrays: list) -> list:
        whole = list(rest)
        for k, array in zip(where, arrays, strict=True):
            whole[k] = array
        args, kwargs = jax.tree.unflatten(tree, whole)
        made, result_tree = jax.tree.flatten(fn(*args, **kwargs))
        # the tree itself cannot be kept: equinox knows absent fields by identity
        places = [_HERE if eqx.is_array(leaf) else leaf for leaf in made]
        form[:] = [jax.tree.unflatten(result_tree, places)]
        return [leaf for leaf in made if eqx.is_array(leaf)]

    flat.__name__ = flat.__qualname__ = fn.__name__
    executable = compile_afresh(flat, arrays)
    compiled_now()
    store.save(name, key, executable, form[0])
    return _Ready(_called(executable, form[0]), key)


class _Place:
    """Where the next array of a result belongs."""


_HERE = _Place()


def _called(executable: Any, form: Any) -> Callable[[list], Any]:
    """What calls an executable and puts its arrays where they belong in the result."""
    places, tree = jax.tree.flatten(form)

    def call(arrays: list) -> Any:
        made = iter(executable(arrays))
        return jax.tree.unflatten(
            tree, [next(made) if isinstance(leaf, _Place) else leaf for leaf in places]
        )

    return call
