"""The examples in docstrings run as printed."""

import doctest
import importlib
import pkgutil

import numpy as np
import pytest

import perfusio_jax

MODULES = sorted(
    info.name for info in pkgutil.walk_packages(perfusio_jax.__path__, "perfusio_jax.")
)
OPTIONS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE


@pytest.mark.parametrize("name", MODULES)
def test_examples(name: str):
    module = importlib.import_module(name)
    with np.printoptions(precision=4, suppress=True):
        failed, _ = doctest.testmod(module, optionflags=OPTIONS)
    assert failed == 0, "the difference is printed above"


def test_there_are_examples():
    finder = doctest.DocTestFinder()
    modules = [importlib.import_module(name) for name in MODULES]
    examples = sum(len(test.examples) for m in modules for test in finder.find(m))
    assert examples >= 10
