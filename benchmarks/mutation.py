"""Mutation test of the write gate and the audit trail: `make mutation`.

Changes each line of the gate, of the device's grid, of the audit trail with what it stands on,
and of what keeps secrets out of it, in small ways (mutmut) and runs their tests, but for the one
that starts a program of its own; what survives is a change no test minds. Works in a copy under
`build/mutation`, so the sources are never touched. `python benchmarks/mutation.py FOLDER MODULE
...` takes another folder, and only some of the modules.
"""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
MODULES = (
    "decision.gate", "decision.gate_limits", "decision.grid", "records.audit", "records.chain",
    "records.vouching", "records.segments", "records.audit_memory", "records.secrets",
    "records.copies", "records.verifying",
)  # fmt: skip
"""Files of `twin` that are changed."""
JUDGES = ("gate", "grid", "audit", "secrets")
"""Their tests are the files whose names begin so."""
SETTINGS = """
[project]
name = "mutation"
version = "0"

[tool.pytest.ini_options]
asyncio_mode = "auto"
asyncio_default_fixture_loop_scope = "function"
addopts = "--import-mode=importlib -p no:xdist -p no:benchmark -p no:cacheprovider -k 'not killed'"

[tool.mutmut]
source_paths = ["src"]
only_mutate = [{sources}]
pytest_add_cli_args_test_selection = [{tests}]
"""


def make_copy(place: Path, modules: tuple[str, ...]) -> None:
    """A copy of the sources and of the tests that judge them."""
    shutil.rmtree(place, ignore_errors=True)
    (place / "tests" / "twin").mkdir(parents=True)
    shutil.copytree(
        ROOT / "src" / "perfusio_jax",
        place / "src" / "perfusio_jax",
        ignore=shutil.ignore_patterns("__pycache__"),
    )
    files = [
        file
        for name in JUDGES
        for file in sorted((ROOT / "tests" / "twin").glob(f"test_{name}*.py"))
    ]
    for file in files:
        shutil.copy(file, place / "tests" / "twin")
    sources = ", ".join(f'"src/perfusio_jax/twin/{name.replace(".", "/")}.py"' for name in modules)
    tests = ", ".join(f'"tests/twin/{file.name}"' for file in files)
    (place / "pyproject.toml").write_text(SETTINGS.format(sources=sources, tests=tests))


def main() -> int:
    """Run it and print a table; 1 if less than nine tenths are killed in a module."""
    place = Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "build" / "mutation"
    modules = tuple(sys.argv[2:]) or MODULES
    if unknown := set(modules) - set(MODULES):
        print(f"no such modules: {', '.join(sorted(unknown))}; there are {', '.join(MODULES)}.")
        return 2
    make_copy(place, modules)
    mutmut = Path(sys.executable).with_name("mutmut")
    environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
    if os.access("/dev/shm", os.W_OK):
        environment["TMPDIR"] = "/dev/shm"  # these tests wait for the disk most of the time
    environment.pop("PYTHONPATH", None)
    log = place / "mutmut.log"
    with log.open("w") as file:
        subprocess.run(
            [mutmut, "run", "--max-children", str(os.cpu_count() or 1)],
            cwd=place,
            env=environment,
            stdout=file,
            stderr=file,
            check=False,
        )
    found = subprocess.run(
        [mutmut, "results", "--all", "true"],
        cwd=place,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    results = re.findall(r"perfusio_jax\.twin\.(\w+\.\w+)\.(\S+): (.+)", found)
    if not any(outcome == "killed" for _, _, outcome in results):  # the tests themselves failed
        print(log.read_text()[-2000:])
        return 1
    is_enough, summary = True, []
    for module in modules:
        mine = [(name, outcome) for where, name, outcome in results if where == module]
        alive = [name for name, outcome in mine if outcome not in ("killed", "timeout")]
        share = 1.0 - len(alive) / max(len(mine), 1)
        is_enough = is_enough and share >= 0.9
        name = module.partition(".")[2]
        print(f"twin/{module.replace('.', '/')}.py: {len(mine)} mutants, {share:.1%} killed")
        for mutant in alive:
            print(f"  alive: {mutant}")
        summary.append(f"{name}_mutants={len(mine)} {name}_killed={share:.4f}")
    print(f"mutation: {' '.join(summary)}")
    return 0 if is_enough else 1


if __name__ == "__main__":
    sys.exit(main())
