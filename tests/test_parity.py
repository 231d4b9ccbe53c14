"""The public names of the reference API exist, with its parameters; the table is not stale.

Run this file as a program to bring the status column up to date:
`python tests/test_parity.py`.
"""

import dataclasses
import importlib
import inspect
import sys
from pathlib import Path
from typing import Any, NamedTuple

TABLE = Path(__file__).parents[1] / "docs" / "parity.md"
KINDS = {"module", "class", "function", "method", "async method", "classmethod", "property",
         "attribute"}  # fmt: skip


class Row(NamedTuple):
    """One line of the table."""

    name: str
    kind: str
    parameters: tuple[str, ...]
    status: str
    note: str


def read_table(text: str) -> list[Row]:
    rows = []
    for line in text.splitlines():
        cells = [cell.strip() for cell in line.strip().strip("|").split("|")]
        if line.startswith("| `") and len(cells) == 5:
            name, kind, parameters, status, note = cells
            rows.append(Row(name.strip("`"), kind, tuple(parameters.split()), status, note))
    return rows


ROWS = read_table(TABLE.read_text(encoding="utf-8"))


def find(name: str) -> Any:
    """The object behind a dotted name, or None."""
    parts = name.split(".")
    for split in range(len(parts), 0, -1):
        target = ".".join(parts[:split])
        try:
            found = importlib.import_module(target)
        except ImportError as error:  # missing, or built on something of ours that is missing
            if str(error.name).startswith("perfusio_jax"):
                continue
            raise
        for owner_depth, part in enumerate(parts[split:]):
            if _has(found, part):
                found = getattr(found, part)
            elif owner_depth == len(parts) - split - 1 and _is_instance_field(found, part):
                return _FIELD
            else:
                return None
        return found
    return None


_FIELD = object()


def _has(owner: Any, name: str) -> bool:
    try:
        return hasattr(owner, name)
    except ImportError as error:  # a face that is announced but not written yet
        if str(error.name).startswith("perfusio_jax"):
            return False
        raise


def _is_instance_field(owner: Any, name: str) -> bool:
    """Whether instances have an attribute that the class itself does not show."""
    if not inspect.isclass(owner):
        return False
    if dataclasses.is_dataclass(owner) and name in {f.name for f in dataclasses.fields(owner)}:
        return True
    if name in getattr(owner, "model_fields", {}) or name in getattr(owner, "_fields", ()):
        return True
    bases = [base for base in owner.__mro__ if base.__module__.startswith("perfusio_jax")]
    return any(f"self.{name} = " in inspect.getsource(base) for base in bases)


def problem(row: Row) -> str | None:
    """What is wrong with a row that claims to be present."""
    found = find(row.name)
    if found is None:
        return f"{row.name} does not exist"
    if row.kind == "class" and not inspect.isclass(found):
        return f"{row.name} is no class"
    if row.kind == "async method" and not inspect.iscoroutinefunction(found):
        return f"{row.name} is not async"
    if row.kind == "property" and not isinstance(found, property):
        return f"{row.name} is no property"
    if row.kind in {"function", "method", "classmethod"} and not callable(found):
        return f"{row.name} cannot be called"
    if row.parameters and callable(found):
        accepted = inspect.signature(found).parameters
        lacking = [p for p in row.parameters if not p.startswith("*") and p not in accepted]
        if lacking:
            return f"{row.name} lacks parameter {', '.join(lacking)}; it has {', '.join(accepted)}"
    return None


def test_the_table_is_well_formed():
    assert len(ROWS) > 400
    names = [row.name for row in ROWS]
    assert len(set(names)) == len(names)
    for row in ROWS:
        assert row.kind in KINDS, row
        assert row.status in {"present", "planned"}, row
        assert row.name.startswith("perfusio_jax"), row
        assert "tensor" not in row.name and "torch" not in row.name, row


def test_every_name_that_is_present_has_its_parameters():
    problems = [problem(row) for row in ROWS if row.status == "present"]
    assert [p for p in problems if p] == []


def test_no_name_that_is_planned_exists_already():
    stale = [row.name for row in ROWS if row.status == "planned" and problem(row) is None]
    assert stale == [], "run `python tests/test_parity.py` to bring docs/parity.md up to date"


def test_a_missing_name_and_a_missing_parameter_are_noticed():
    absent = Row("perfusio_jax.states.State.fly", "method", (), "present", "")
    assert problem(absent) == "perfusio_jax.states.State.fly does not exist"
    no_module = Row("perfusio_jax.nowhere.Thing", "class", (), "present", "")
    assert problem(no_module) == "perfusio_jax.nowhere.Thing does not exist"
    wrong = Row("perfusio_jax.states.Trajectory.slice_days", "method", ("start", "stop"), "", "")
    assert "lacks parameter stop; it has self, start, end" in str(problem(wrong))
    kind = Row("perfusio_jax.states.Trajectory.n_days", "class", (), "present", "")
    assert problem(kind) == "perfusio_jax.states.Trajectory.n_days is no class"


def refresh() -> None:
    """Rewrite the status column by what exists, and say what changed."""
    lines = TABLE.read_text(encoding="utf-8").splitlines()
    by_name = {row.name: row for row in ROWS}
    for number, line in enumerate(lines):
        rows = read_table(line)
        if not rows:
            continue
        row = by_name[rows[0].name]
        wrong = problem(row)
        status = "planned" if wrong else "present"
        if wrong and row.status == "present":
            sys.stdout.write(f"{wrong}\n")
        cells = [f"`{row.name}`", row.kind, " ".join(row.parameters), status, row.note]
        lines[number] = "| " + " | ".join(cells) + " |"
    TABLE.write_text("\n".join(lines) + "\n", encoding="utf-8")
    done = sum(row.status == "present" for row in read_table(TABLE.read_text(encoding="utf-8")))
    sys.stdout.write(f"{done} of {len(ROWS)} names are present.\n")


if __name__ == "__main__":
    sys.path.insert(0, str(TABLE.parents[1] / "src"))
    importlib.import_module("perfusio_jax")
    refresh()
