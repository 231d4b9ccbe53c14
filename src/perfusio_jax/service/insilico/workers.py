"""Who computes the parts of a campaign: this process, or the workers of a Ray cluster."""

import importlib
import os
import sys
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import pyarrow as pa

from perfusio_jax._core import ConfigError, ConnectorError

from .driving import run_part
from .plan import CampaignPlan

_RETRIES = 5
"""How often a part is computed again whose worker died."""


class Cluster(NamedTuple):
    """Workers on Ray."""

    address: str = "local"
    """`local` for workers on this machine, `auto` for the cluster it belongs to, or an address."""
    n_workers: int | None = None
    """Of `local`: how many; one for each core if None."""


def compute(
    plan: CampaignPlan, parts: Sequence[int], cluster: Cluster | None
) -> Iterator[tuple[int, pa.Table]]:
    """Compute parts, in any order.

    Args:
        plan: The campaign.
        parts: Which.
        cluster: Workers on Ray; this process if None.

    Yields:
        The number of a part and its rows.

    Raises:
        ConfigError: If Ray is not installed, or a policy cannot be used.
        ConnectorError: If the cluster cannot be had, or workers die again and again.
    """
    if cluster is None:
        for part in parts:
            yield part, run_part(plan, part)
    else:
        yield from _on_ray(plan, parts, cluster)


def _remote_part(text: str, part: int) -> pa.Table:
    """What a worker does; its precision is that of a command."""
    import perfusio_jax

    perfusio_jax.enable_x64()
    return run_part(CampaignPlan.from_json(text), part)


def _on_ray(
    plan: CampaignPlan, parts: Sequence[int], cluster: Cluster
) -> Iterator[tuple[int, pa.Table]]:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    ray: Any = _ray()
    is_ours = not ray.is_initialized()
    if is_ours:
        _join(ray, cluster)
    try:
        task = ray.remote(max_retries=_RETRIES, num_cpus=1)(_remote_part)
        text = plan.to_json()
        # a few more than there are workers are asked for at once: results do not pile up
        ahead = 2 * max(1, int(ray.cluster_resources().get("CPU", 1)))
        left, running = list(parts)[::-1], {}
        while left or running:
            while left and len(running) < ahead:
                part = left.pop()
                running[task.remote(text, part)] = part
            (done,), _ = ray.wait(list(running), num_returns=1)
            part = running.pop(done)
            yield part, _got(ray, done, part)
    finally:
        if is_ours:
            ray.shutdown()


def _ray() -> Any:
    try:
        return importlib.import_module("ray")
    except ImportError:
        raise ConfigError(
            "Ray is not installed: pip install 'perfusio-jax[ray]', here and on every machine of "
            "the cluster. Without it the same campaign runs in this process."
        ) from None


def _join(ray: Any, cluster: Cluster) -> None:
    """Join a cluster, or start workers here; they find modules where this process does."""
    paths = os.pathsep.join(dict.fromkeys(p or os.getcwd() for p in sys.path))
    threads = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
    asked: dict[str, Any] = {
        "runtime_env": {"env_vars": {"PYTHONPATH": paths, **threads}},
        "log_to_driver": False,
        "logging_level": "error",
    }
    if cluster.address == "local":
        asked |= {"num_cpus": cluster.n_workers, "include_dashboard": False}
    try:
        ray.init(address=cluster.address, **asked)
    except Exception as error:  # Ray has no common exception for what keeps one from joining
        raise ConnectorError(
            f"the Ray cluster {cluster.address!r} cannot be had: {error}. 'local' starts workers "
            "here; 'auto' joins the cluster that `ray start` made."
        ) from error


def _got(ray: Any, done: Any, part: int) -> pa.Table:
    try:
        return ray.get(done)
    except ray.exceptions.RayTaskError as error:
        cause = error.cause
        if isinstance(cause, ConfigError):
            raise cause from None
        raise ConnectorError(f"part {part} failed on its worker: {cause}") from error
    except ray.exceptions.RayError as error:
        raise ConnectorError(
            f"part {part} was tried {_RETRIES + 1} times, and its worker died each time: {error}. "
            "Fewer runs at once (part, in the plan) take less memory. What is done is kept."
        ) from error
