"""Settings of XLA that are chosen for the user, and devices that would wait for ever."""

import os

import pytest

from perfusio_jax._core import ConfigError
from perfusio_jax._core.compiler_flags import check_threads, threads_for


@pytest.fixture
def two_cores(monkeypatch):
    monkeypatch.delenv("NPROC", raising=False)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1}, raising=False)


@pytest.mark.parametrize("given", [None, "", "2", "many", "0", "-3"])
def test_devices_without_a_thread_to_spare_are_refused(two_cores, monkeypatch, given):
    if given is not None:
        monkeypatch.setenv("NPROC", given)
    with pytest.raises(ConfigError, match=f"share 2 threads.*NPROC={threads_for(2)}"):
        check_threads(2, 2)


def test_more_threads_or_fewer_devices_are_taken(two_cores, monkeypatch):
    check_threads(1, 1)
    check_threads(2, 3)  # the third device's thread is to spare
    monkeypatch.setenv("NPROC", threads_for(8))
    check_threads(8, 8)


def test_jobs_and_episodes_ask_before_they_start(monkeypatch):
    import jax

    from perfusio_jax.rl import reinforce
    from perfusio_jax.study.scale import spread

    def refuse(used: int, there: int) -> None:
        raise ConfigError(f"{used} of {there}")

    monkeypatch.setattr(spread, "check_threads", refuse)
    monkeypatch.setattr(reinforce, "check_threads", refuse)
    with pytest.raises(ConfigError, match="1 of 1"):
        spread.mesh_of(1)
    monkeypatch.setattr(jax, "device_count", lambda: 2)
    with pytest.raises(ConfigError, match="2 of 1"):
        reinforce.share_out(2)
