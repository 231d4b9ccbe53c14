"""The suite of benchmarks: what it keeps, what it leaves out, and how a device is measured."""

import json
import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest

from benchmarks import everything, gpu
from benchmarks.everything import PARTS, Part, machine_name, missing, read_last, run_part


def test_every_part_is_there():
    folder = Path(everything.__file__).parent
    assert all((folder / f"{part.name}.py").is_file() for part in PARTS)
    assert len({part.name for part in PARTS}) == len(PARTS)


def test_last_lines_are_read():
    printed = "table\nother: a=1\nsimulate: ratio=843 runs_per_s=24255\n\n"
    assert read_last("simulate", printed) == {"ratio": "843", "runs_per_s": "24255"}
    with pytest.raises(ValueError, match="no line 'gp: key=value"):
        read_last("gp", printed)


def test_what_cannot_be_measured_is_told():
    absent = Part("simulate", needs=("json", "no_such_package"))
    assert missing(absent) == ["no_such_package"]
    assert run_part(absent)[0] == {"left_out": "not installed: no_such_package"}
    found, _ = run_part(Part("no_such_benchmark"))
    assert found["left_out"].startswith("ended with 1: ") and "no_such_benchmark" in str(found)
    assert run_part(Part("everything", ("--help",), minutes=1e-4))[0] == {
        "left_out": "took longer than 0.0001 minutes"
    }


def test_results_of_other_parts_stay(tmp_path, monkeypatch, capsys):
    path = tmp_path / f"{machine_name()}.json"
    path.write_text(json.dumps({"parts": {"gp": {"figures": {"ratio": "9"}, "seconds": 1.0}}}))
    line = "simulate: ratio=8"
    monkeypatch.setattr(everything, "run_part", lambda part: ({"figures": {"ratio": "8"}}, line))
    monkeypatch.setattr(sys, "argv", ["everything", "--only", "simulate", "--out", str(tmp_path)])
    everything.main()
    kept = json.loads(path.read_text())
    assert {name: p["figures"]["ratio"] for name, p in kept["parts"].items()} == {
        "gp": "9",
        "simulate": "8",
    }
    assert kept["machine"]["jax"] == jax.__version__
    assert path.with_name(f"{path.stem}-simulate.txt").read_text() == line
    assert capsys.readouterr().out.endswith("everything: parts=1 measured=1 left_out=0\n")


def test_sizes_grow_as_long_as_the_time_allows(monkeypatch):
    monkeypatch.setattr(gpu, "ceiling", lambda dtype: gpu.Ceiling(1e9, 1e12))
    asked = []

    def make(n, dtype):
        asked.append(n)

        def call():
            time.sleep(n * 1e-5)
            return jnp.asarray(2.0)

        return gpu.Work(call, "x/s", n, lambda: {"flops": 1e4}, float)

    until = time.perf_counter() + 1.0
    device = jax.devices()[0]
    found = gpu.measure("x", "me", make, device, jnp.float64, until, (100, 1000, 100_000))
    assert asked == [100, 1000]  # 100,000 would take a second each
    assert [row.n for row in found] == [100, 1000]
    assert 0 < found[0].rate < 1e5
    # two passes of 1e4 flops in 1 ms or more, of 1e9 a second
    assert found[0].share.endswith(" flops") and 0.0 < float(found[0].share.split()[0]) <= 0.02


def test_a_device_without_memory_ends_the_sizes_and_other_errors_do_not_hide(monkeypatch):
    monkeypatch.setattr(gpu, "ceiling", lambda dtype: gpu.Ceiling(1.0, 1.0))

    def failing(text):
        def make(n, dtype):
            def call():
                if n > 1:
                    raise jax.errors.JaxRuntimeError(text)
                return jnp.zeros(())

            return gpu.Work(call, "x/s", n)

        until = time.perf_counter() + 60.0
        return gpu.measure("x", "me", make, jax.devices()[0], jnp.float64, until, (1, 10))

    assert len(failing("RESOURCE_EXHAUSTED: Out of memory")) == 1
    with pytest.raises(jax.errors.JaxRuntimeError, match="INTERNAL"):
        failing("INTERNAL: something else")
