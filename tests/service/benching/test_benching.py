"""Methods of outsiders by the command line, and figures of a machine."""

import json
import sys
import time

import numpy as np
import pytest
from rich.console import Console
from typer.testing import CliRunner

from benchmarks.botorch_method import BoTorchSearch
from perfusio_jax._core import ConfigError
from perfusio_jax.cli import app
from perfusio_jax.service.benching.methods import maker_of, run_method
from perfusio_jax.service.benching.quick import tell_figures
from perfusio_jax.study.frozen.problems import FEDBATCH_V1
from perfusio_jax.study.scale.speed import measured

OUTSIDER = '''
"""A method of twenty lines: better and better points around the best one."""

import numpy as np


class Climber:
    def __init__(self, space, seed):
        self.space, self.rng = space, np.random.default_rng(seed)
        self.best, self.top, self.width, self.n = None, -np.inf, 0.2, 0

    def ask(self, n):
        low, high = self.space.lower, self.space.upper
        self.n += 1
        if self.n <= 3 or self.best is None:
            return low + self.rng.random((n, len(low))) * (high - low)
        move = self.width * (high - low) * self.rng.standard_normal((n, len(low)))
        self.width *= 0.85
        return np.clip(self.best + move, low, high)

    def tell(self, x, value, slack):
        value = np.where(np.all(slack >= 0.0, axis=1), value, -np.inf)
        k = int(np.nanargmax(value))
        if value[k] > self.top:
            self.best, self.top = x[k], value[k]


make = Climber
'''


@pytest.fixture
def outsider(tmp_path):
    path = tmp_path / "climber.py"
    path.write_text(OUTSIDER)
    return str(path)


def test_an_outsiders_file_beats_random_search(outsider, tmp_path):
    scores = {}
    for method in ("random", outsider):
        out = tmp_path / "scores.json"
        asked = ["--on", "fedbatch-v1", "--seeds", "5", "--out", str(out)]
        done = CliRunner().invoke(app, ["benchmark", "run", method, *asked])
        assert done.exit_code == 0, done.output
        (row,) = json.loads(out.read_text())
        assert row["digest"] == FEDBATCH_V1.digest and row["seeds"] == [0, 1, 2, 3, 4]
        scores[method] = np.median([best[-1] for best in row["best_by_round"]])
    assert 0.0 < scores["random"] < scores[outsider] < 1.0


def test_problems_are_listed():
    done = CliRunner().invoke(app, ["benchmark", "list"])
    assert done.exit_code == 0
    for name in ("cho-v1", "consortium-v1", "fedbatch-v1"):
        assert name in done.output


def test_methods_that_cannot_be_used_are_refused(tmp_path, monkeypatch):
    with pytest.raises(ConfigError, match="no_such_module.*Name random, a module"):
        maker_of("no_such_module")
    with pytest.raises(ConfigError, match="does not exist"):
        maker_of(str(tmp_path / "none.py"))
    (tmp_path / "empty.py").write_text("x = 1\n")
    with pytest.raises(ConfigError, match=r"no function make\(space, seed\)"):
        maker_of(str(tmp_path / "empty.py"))
    monkeypatch.setitem(sys.modules, "botorch", None)
    with pytest.raises(ConfigError, match=r"pip install 'perfusio-jax\[bench\]'"):
        BoTorchSearch(FEDBATCH_V1.space, 0)


def test_a_plant_that_was_changed_is_not_compared():
    changed = FEDBATCH_V1._replace(digest="0" * 16)
    with pytest.raises(ConfigError, match="other numbers here than when it was frozen"):
        run_method("random", [changed], 1, Console())


def test_figures_are_timed_and_written_with_the_machine(tmp_path):
    calls = []
    speed = measured("adding", "sums/s", 100, lambda: calls.append(1), 4, clock=time.perf_counter)
    assert len(calls) == 5 and speed.rate == 100 / speed.warm_s
    out = tmp_path / "speed.json"
    tell_figures([speed], Console(), out)
    told = json.loads(out.read_text())
    assert told["figures"][0]["what"] == "adding" and told["figures"][0]["n"] == 100
    assert {"processor", "cores", "device", "jax", "threads"} <= set(told["machine"])


def test_the_whole_suite_is_elsewhere():
    done = CliRunner().invoke(app, ["bench"])
    assert isinstance(done.exception, ConfigError) and "make bench" in str(done.exception)
