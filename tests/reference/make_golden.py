"""Store T2 and Q as scikit-learn's PCA gives them: `python -m tests.reference.make_golden`.

Needs scikit-learn, which no extra brings. The tests read `golden.npz` only.
"""

from pathlib import Path

import numpy as np
from sklearn.decomposition import PCA

STORE = Path(__file__).parent / "golden.npz"


def main() -> None:
    """Forty samples of six quantities with two causes; three components; five further samples."""
    rng = np.random.default_rng(20)
    causes = rng.normal(size=(45, 2)) @ rng.normal(size=(2, 6))
    table = causes + 0.4 * rng.normal(size=(45, 6))
    known, new = table[:40], table[40:]
    new = np.vstack([new, known.mean(axis=0) + 3.0 * known.std(axis=0)])
    mean, spread = known.mean(axis=0), known.std(axis=0, ddof=1)
    rows, z = (known - mean) / spread, (new - mean) / spread
    stored = {"rows": rows, "z": z}
    full = PCA().fit(rows)
    share = np.cumsum(full.explained_variance_ratio_)
    n = int(np.argmax(share >= 0.8)) + 1
    model = PCA(n_components=n).fit(rows)
    scores = model.transform(z)
    stored["n"] = np.array(n)
    stored["t2"] = (scores**2 / model.explained_variance_).sum(axis=1)
    stored["q_by"] = (z - model.inverse_transform(scores)) ** 2
    stored["eigenvalues"] = full.explained_variance_
    np.savez(STORE, **stored)


if __name__ == "__main__":
    main()
