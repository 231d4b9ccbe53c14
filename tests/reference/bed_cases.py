"""The cases on which acquisition values are compared; shared by the script and the test."""

import hashlib
from pathlib import Path
from typing import NamedTuple

import numpy as np

STORE = Path(__file__).parent / "bed.npz"
SCRIPT = Path(__file__).parent / "make_bed.py"
N_TRAIN, DIMENSION, N_OUTPUTS, N_SAMPLES, N_FANTASIES = 12, 3, 4, 64, 5
BEST_F, BETA, LIMIT, ETA = 0.6, 0.7, 0.3, 0.05
REFERENCE = (-1.2, -1.1, -1.3)
WEIGHTS = (0.65, 0.35)


class Case(NamedTuple):
    """What is evaluated."""

    name: str
    q: int
    m: int = 1
    has_pending: bool = False
    has_constraint: bool = False

    @property
    def key(self) -> str:
        """Name in the store."""
        flags = "p" * self.has_pending + "c" * self.has_constraint
        return f"{self.name}-m{self.m}-q{self.q}{'-' + flags if flags else ''}"


def all_cases() -> list[Case]:
    """Every case of the store."""
    cases = [Case(name, 1) for name in ("PI", "EI", "LogEI", "UCB")]
    for name in ("qEI", "qLogEI", "qUCB", "qLogNEI"):
        cases += [Case(name, q) for q in (1, 2, 3, 4)] + [Case(name, 2, has_pending=True)]
        if name != "qUCB":
            cases += [Case(name, 2, has_constraint=True)]
    for name in ("qEHVI", "qNEHVI"):
        cases += [Case(name, q, 2) for q in (1, 2, 3, 4)] + [Case(name, 2, 3)]
        cases += [Case(name, 2, 2, has_pending=True), Case(name, 2, 2, has_constraint=True)]
    cases += [Case("qLogNEHVI", q, 2) for q in (1, 2, 3)]
    cases += [Case("qLogNEHVI", 2, 2, has_pending=True), Case("qLogNEHVI", 2, 2, False, True)]
    cases += [Case("qNParEGO", q, 2) for q in (1, 2, 3, 4)] + [Case("qNParEGO", 2, 2, True)]
    return [*cases, Case("qKG", 1), Case("qKG", 2), Case("qKG", 2, has_pending=True)]


def script_hash() -> str:
    """What the stored values were made by."""
    text = SCRIPT.read_bytes() + Path(__file__).read_bytes()
    return hashlib.sha256(text).hexdigest()


def data() -> dict[str, np.ndarray]:
    """Training data, hyper-parameters and points, drawn from a fixed seed."""
    rng = np.random.default_rng(20)
    X = rng.random((N_TRAIN, DIMENSION))
    mixing = rng.normal(size=(DIMENSION, N_OUTPUTS))
    Y = np.sin(2.0 * X @ mixing) + 0.5 * (X**2) @ mixing
    Y = (Y - Y.mean(axis=0)) / Y.std(axis=0) + 0.1 * rng.normal(size=Y.shape)
    # some batches lie near good points, so that every kind of improvement is above zero
    good = X[np.argsort(-Y[:, 0] - Y[:, 1])[:4]]
    near = np.clip(good[None] + 0.15 * rng.normal(size=(2, 4, DIMENSION)), 0.0, 1.0)
    return {
        "X": X,
        "Y": Y,
        "lengthscale": rng.uniform(0.3, 0.9, size=(N_OUTPUTS, DIMENSION)),
        "variance": rng.uniform(0.7, 1.5, size=N_OUTPUTS),
        "noise": rng.uniform(0.01, 0.05, size=N_OUTPUTS),
        "constant": rng.normal(size=N_OUTPUTS) * 0.2,
        "pending": rng.random((2, DIMENSION)),
        "points": np.concatenate([near, rng.random((1, 4, DIMENSION))]),
        "decisions": rng.random((3, N_FANTASIES, DIMENSION)),
    }
