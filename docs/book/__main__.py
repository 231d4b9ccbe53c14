"""`python -m docs.book [NAME ...]`: run examples, keep what they print and draw, build the book.

What was run before is not run again while script and version are the same. `--only-pages` runs
nothing.
"""

import argparse
import subprocess
import sys

from .tutorials import ROOT, all_scripts, run_script


def main() -> int:
    """Run what is asked for, then MkDocs; the exit code."""
    asked = argparse.ArgumentParser(prog="python -m docs.book", description=__doc__)
    asked.add_argument("names", nargs="*", help="beginnings of scripts' names; all by default")
    asked.add_argument("--only-pages", action="store_true", help="run no script")
    given = asked.parse_args()
    for path in [] if given.only_pages else all_scripts():
        if not given.names or path.name.startswith(tuple(given.names)):
            print(f"{path.name}: {run_script(path)}", flush=True)
    return subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet"], cwd=ROOT, check=False
    ).returncode


if __name__ == "__main__":
    sys.exit(main())
