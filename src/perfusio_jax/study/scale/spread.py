"""Blocks of lanes over devices: one program, of one block per device, whatever their number.

`shard_map` hands every device a block of its own, and the loop of an adaptive solver ends there by
itself; automatic sharding would make all devices take the steps of the slowest lane anywhere. The
program of a device is the same for one device and for many, and so are a lane's bits.
"""

from collections import OrderedDict
from collections.abc import Sequence
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
from jaxtyping import Array, Float, Int

from perfusio_jax._core import ConfigError, Result
from perfusio_jax._core.compiler_flags import check_threads, threads_for
from perfusio_jax._core.devices import Device
from perfusio_jax._core.progress import compiling

from .lanes import Lanes
from .moments import Moments, moments_of
from .sketch import added, n_buckets

AXIS = "lanes"
"""Name of the axis that devices stand along."""
LANES_AT_ONCE = 512
"""Lanes of a block: enough to amortise a pass of the integrator, few enough for the cache."""
_MOST_KEPT = 8
_KEPT: OrderedDict[Any, Any] = OrderedDict()
_MOST = 2**31 - 2**22


class Shape(NamedTuple):
    """Sizes of a job; static."""

    rows: int
    """Lanes of a block."""
    n_outputs: int
    bits: int
    """Resolution of the sketch; 0 without one."""
    is_kept: bool = False
    """Whether the lanes themselves are handed on."""


class Step(NamedTuple):
    """What one block adds; a leading axis of devices outside `shard_map`."""

    moments: Moments
    tally: Int[Array, " C"]
    """Lanes by result code, of those that are asked for."""
    lanes: tuple[Float[Array, "B O"], Int[Array, " B"]] | None
    """Outputs and codes of each, if they are kept."""


def mesh_of(devices: int | Sequence[Device] | None) -> Mesh:
    """Devices in a row.

    Args:
        devices: How many of this process, or which; all of all processes if None.

    Raises:
        ConfigError: If there are not so many, or they would wait for each other for ever.
    """
    if devices is None:
        chosen = list(jax.devices())
    elif isinstance(devices, int):
        there = jax.local_devices()
        if not 1 <= devices <= len(there):
            raise ConfigError(
                f"{devices} devices were asked for, and this process sees {len(there)} "
                f"({there[0].platform}). Ask for at most so many; on a CPU more can be made with "
                f"NPROC={threads_for(max(devices, 2))} "
                f"XLA_FLAGS=--xla_force_host_platform_device_count={max(devices, 2)} before Python "
                "starts."
            )
        chosen = there[:devices]
    else:
        chosen = list(devices)
        if not chosen or len(set(chosen)) != len(chosen):
            raise ConfigError(f"devices {chosen}; name one or more, each once.")
    hosts = {d.process_index for d in chosen}
    if hosts != {jax.process_index()} and hosts != set(range(jax.process_count())):
        raise ConfigError(
            f"devices of the processes {sorted(hosts)} out of {jax.process_count()}; a job runs on "
            "those of one process, or has some of every process."
        )
    here = [d for d in chosen if d.process_index == jax.process_index()]
    if here[0].platform == "cpu":
        check_threads(len(here), jax.local_device_count("cpu"))
    return Mesh(np.array(chosen), (AXIS,))


def check_size(n: int, rows: int) -> None:
    """Refuse counts that no job has.

    Raises:
        ConfigError: If there is no lane, or more than 32 bits can number.
    """
    if not (1 <= n <= _MOST and 1 <= rows <= 2**20):
        raise ConfigError(
            f"{n} lanes in blocks of {rows}; 1 to {_MOST} lanes and blocks of 1 to {2**20} are "
            "possible. Larger jobs are made of several with other seeds."
        )


def everywhere(mesh: Mesh, tree: Any) -> Any:
    """Arrays copied to every device; all processes must give the same."""
    return jax.tree.map(lambda v: _placed(mesh, P(), np.asarray(v)), tree)


def one_each(mesh: Mesh, values: np.ndarray) -> Array:
    """An array whose first axis is spread over the devices."""
    return _placed(mesh, P(AXIS), values)


def _placed(mesh: Mesh, where: P, value: np.ndarray) -> Array:
    # every process holds the whole value and cuts out what its devices need: nothing is sent
    return jax.make_array_from_callback(
        value.shape, NamedSharding(mesh, where), lambda index: value[index]
    )


def pieces(mesh: Mesh, tree: Any) -> dict[int, Any]:
    """What devices of this process hold of spread arrays, by their place in the mesh.

    Waits until it is computed.
    """
    leaves, form = jax.tree.flatten(tree)
    found: dict[int, list] = {}
    for leaf in leaves:
        for shard in leaf.addressable_shards:
            found.setdefault(shard.index[0].start or 0, []).append(np.asarray(shard.data)[0])
    return {place: jax.tree.unflatten(form, own) for place, own in sorted(found.items())}


def shape_of(lanes: Lanes, rows: int, bits: int, is_kept: bool) -> Shape:
    """Sizes of a job; traces it, and computes nothing."""
    number = jnp.arange(rows, dtype=jnp.int32)
    values, codes = eqx.filter_eval_shape(lambda j: j.block(jax.random.key(0), number), lanes)
    if values.ndim != 2 or values.shape[0] != rows or codes.shape != (rows,):
        raise ConfigError(
            f"a block of {rows} lanes gave outputs of shape {values.shape} and codes of shape "
            f"{codes.shape}; ({rows}, outputs) and ({rows},) are needed."
        )
    if values.shape[1] != len(lanes.names):
        raise ConfigError(
            f"{values.shape[1]} outputs with {len(lanes.names)} names; one for each is needed."
        )
    return Shape(rows, values.shape[1], bits, is_kept)


def empty_counts(mesh: Mesh, shape: Shape) -> Array:
    """Sketches of nothing, one for each device."""
    # without a sketch one bucket that stays empty: arrays of no size have no devices
    k = n_buckets(shape.bits) if shape.bits else 1
    like = (mesh.size, shape.n_outputs, k)
    where = NamedSharding(mesh, P(AXIS))
    return jax.make_array_from_callback(
        like, where, lambda i: np.zeros((1, shape.n_outputs, k), np.int32)
    )


def judged(
    values: Float[Array, "B O"], codes: Int[Array, " B"], is_asked: Array
) -> tuple[Array, Array]:
    """Result code of each lane, with what is not finite; and which lanes are used."""
    is_finite = jnp.all(jnp.isfinite(values), axis=1)
    codes = jnp.where((codes == 0) & ~is_finite, Result.NONFINITE.value, codes)
    return codes, is_asked & (codes == 0)


def compiled_step(
    lanes: Lanes, mesh: Mesh, rows: int, bits: int, is_kept: bool
) -> tuple[Any, Any, Shape]:
    """The program of one step, its arrays in place, and its sizes.

    The last few programs are kept: other numbers in the same job trace and compile nothing.

    Args:
        lanes: The job.
        mesh: Its devices.
        rows: Lanes of a block.
        bits: Resolution of the sketch; 0 without one.
        is_kept: Whether the lanes themselves are handed on.

    Returns:
        JAX's compiled program (call it with the arrays, a seed, the blocks' numbers, the number of
        lanes and the counts), the arrays, and the sizes.
    """
    arrays, static = eqx.partition(lanes, eqx.is_array)
    placed = everywhere(mesh, arrays)
    rest, form = jax.tree.flatten(static)
    sizes = tuple((v.shape, str(v.dtype)) for v in jax.tree.leaves(arrays))
    wide = jax.config.read("jax_enable_x64")
    key = (form, tuple(map(repr, rest)), sizes, mesh, rows, bits, is_kept, wide)
    if key in _KEPT:
        _KEPT.move_to_end(key)
    else:
        shape = shape_of(lanes, rows, bits, is_kept)
        _KEPT[key] = _lowered(placed, static, mesh, shape).compile(), shape
        while len(_KEPT) > _MOST_KEPT:
            _KEPT.popitem(last=False)
    program, shape = _KEPT[key]
    return program, placed, shape


def _lowered(placed: Any, static: Any, mesh: Mesh, shape: Shape) -> Any:
    def one(arrays: Any, seed: Array, block: Array, n: Array, counts: Array) -> Any:
        compiling("a block of lanes")
        job: Lanes = eqx.combine(arrays, static)
        key = jax.random.fold_in(jax.random.key(seed), block[0])
        number = block[0] * shape.rows + jnp.arange(shape.rows, dtype=block.dtype)
        values, codes = job.block(key, number)
        is_asked = number < n
        codes, is_used = judged(values, codes, is_asked)
        kinds = jnp.arange(len(Result), dtype=codes.dtype)
        tally = jnp.sum((codes[None] == kinds[:, None]) & is_asked[None], axis=1)
        if shape.bits:
            counts = added(counts[0], values, is_used, shape.bits)[None]
        each = (values, codes) if shape.is_kept else None
        step = Step(moments_of(values, is_used), tally, each)
        return jax.tree.map(lambda v: v[None], step), counts

    spread = jax.shard_map(
        one,
        mesh=mesh,
        in_specs=(P(), P(), P(AXIS), P(), P(AXIS)),
        out_specs=(P(AXIS), P(AXIS)),
        check_vma=False,
    )
    seed, n = everywhere(mesh, (np.uint32(0), np.int32(1)))
    blocks = one_each(mesh, np.zeros(mesh.size, np.int32))
    counts = empty_counts(mesh, shape)
    return jax.jit(spread, donate_argnums=4).lower(placed, seed, blocks, n, counts)
