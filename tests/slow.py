"""Keeps `tests/slow.txt`: files that take more than six seconds on one core, longest first.

    make test PYTEST_ARGS=--junitxml=report.xml
    python -m tests.slow report.xml

`make test` begins with them, so that no worker is left with a long one at the end;
`make test-fast` leaves them out.
"""

import sys
from collections import Counter
from pathlib import Path
from xml.etree import ElementTree

LIST = Path(__file__).with_name("slow.txt")
ROOT = LIST.parents[1]
LEAST_S = 6.0


def slow_files() -> list[str]:
    """Paths from the root of the repository, longest first."""
    lines = LIST.read_text(encoding="utf-8").splitlines()
    return [line.split()[1] for line in lines if line and not line.startswith("#")]


def seconds_of(report: Path) -> Counter[str]:
    """Seconds of each file in a JUnit report."""
    found: Counter[str] = Counter()
    for case in ElementTree.parse(report).iter("testcase"):
        path = case.attrib["classname"].replace(".", "/") + ".py"
        if (ROOT / path).is_file():
            found[path] += float(case.attrib["time"])
    return found


def as_text(seconds: Counter[str]) -> str:
    """The list, as it is kept."""
    rows = [f"{s:.0f} {path}" for path, s in seconds.most_common() if s > LEAST_S]
    return "\n".join(["# seconds on one core, file; written by `python -m tests.slow`", *rows, ""])


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    LIST.write_text(as_text(seconds_of(Path(sys.argv[1]))), encoding="utf-8")
