"""What has no column of its own in the table of samples: rows with name, value and unit."""

from collections.abc import Mapping, Sequence
from typing import Any

import sqlalchemy as sa

from perfusio_jax._core import CONTROL_NAMES, REGISTRY, DataError
from perfusio_jax._core.units import CANONICAL_UNITS

from ..base import SampleRecord
from ..tables.vocabulary import Vocabulary
from . import schema
from .schema import CHUNK

_ROLES = {"quantity": "values", "control": "controls"}
"""Field of a record by the role of a row."""


def has_place(name: str, field: str, words: Vocabulary) -> bool:
    """Whether a value stands in the table of samples itself: ours, in our unit.

    Args:
        name: Its name.
        field: Field of a record: "values" or "controls".
        words: The names of the culture and their units.
    """
    ours = REGISTRY if field == "values" else CONTROL_NAMES
    return name in ours and words.unit(name) == CANONICAL_UNITS[name]


def rows_apart(record: SampleRecord, words: Vocabulary) -> list[dict[str, Any]]:
    """Rows of the table `reading` for a clean record, but for the number of its sample."""
    return [
        {"role": role, "name": name, "value": value, "unit": words.unit(name)}
        for role, field in _ROLES.items()
        for name, value in getattr(record, field).items()
        if not has_place(name, field, words)
    ]


def insert_samples(
    connection: sa.Connection, rows: Sequence[dict[str, Any]], apart: Sequence[list[dict[str, Any]]]
) -> None:
    """Insert samples, and what of each has no column.

    Args:
        connection: To the database.
        rows: Of the table `sample`.
        apart: Rows of the table `reading` for each.
    """
    if not any(apart):
        connection.execute(schema.sample.insert(), rows)
        return
    table = schema.sample
    new = table.insert().returning(table.c.id, sort_by_parameter_order=True)
    numbers = connection.execute(new, rows).scalars().all()
    found = [
        {**row, "sample_id": number}
        for number, mine in zip(numbers, apart, strict=True)
        for row in mine
    ]
    for start in range(0, len(found), CHUNK):
        connection.execute(schema.reading.insert(), found[start : start + CHUNK])


def with_readings(
    connection: sa.Connection, rows: Sequence[Mapping[Any, Any]], words: Vocabulary
) -> list[dict[str, Any]]:
    """Rows of the table `sample`, with what of each stands in rows of its own under `apart`.

    Args:
        connection: To the database.
        rows: As they were read.
        words: The names of the culture and their units.

    Raises:
        DataError: If a reading has another unit than the culture has it in.
    """
    if words.process == "":
        return [{**row, "apart": {}} for row in rows]
    table, found = schema.reading, {}
    for start in range(0, len(rows), CHUNK):
        numbers = [row["id"] for row in rows[start : start + CHUNK]]
        query = sa.select(table).where(table.c.sample_id.in_(numbers)).order_by(table.c.id)
        for row in connection.execute(query).mappings():
            field = _ROLES.get(row["role"])
            name = row["name"]
            known = words.species if field == "values" else words.controls
            if field is None or name not in known:
                continue  # another program's; what we do not know is not ours to judge
            if row["unit"] != words.unit(name):
                raise DataError(
                    f"the database holds {name} in {row['unit']!r}, and process {words.process} "
                    f"has it in {words.unit(name)!r}; it was put there by another program."
                )
            found.setdefault(row["sample_id"], {})[field, name] = row["value"]
    return [{**row, "apart": found.get(row["id"], {})} for row in rows]
