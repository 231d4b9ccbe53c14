"""Set-points in a database: a history that whatever drives the reactor obeys."""

import secrets
from typing import Any

import sqlalchemy as sa

from perfusio_jax._core import DataError

from ..base import Reading, check_setpoints
from . import schema
from .records import check_name
from .rows import Rows


class SetpointHistory(Rows):
    """Set-points of one reactor, appended and never changed."""

    controls: tuple[str, ...]
    """Names of the controls that may be written."""

    async def write_setpoints(
        self,
        setpoints: dict[str, float],
        *,
        day: float | None = None,
        time_h: float | None = None,
        write_id: str | None = None,
        user: str = "system",
        reason: str | None = None,
    ) -> None:
        """Append set-points to the history, all of them or none; on the disk on return.

        Args:
            setpoints: Value per control, in canonical units.
            day: Culture day [d] they are for.
            time_h: Time since inoculation [h] they are for.
            write_id: Name of this write, to make trying it again harmless.
            user: Who writes.
            reason: Why.

        Raises:
            DataError: If a name is not a control, a value is not finite, or that `write_id`
                wrote other values.
            DatabaseError: If the database cannot be used.
        """
        checked = check_setpoints(setpoints, self.controls)
        key = check_name(write_id or secrets.token_hex(16), "write_id")
        stamps = {"day": day, "time_h": time_h, "written_at": self._now(), "reason": reason}
        stamps["written_by"] = check_name(user, "user")

        def work(connection: sa.Connection) -> None:
            reactor = self._vessel(connection)
            table = schema.setpoint_history
            known = {
                row.name: row.value
                for row in connection.execute(
                    sa.select(table.c.name, table.c.value).where(
                        table.c.reactor_id == reactor, table.c.write_id == key
                    )
                )
            }
            if known:
                if known != checked:
                    raise DataError(f"the write {key} put {known} before, not {checked}.")
                return
            rows = [
                {"reactor_id": reactor, "write_id": key, "name": n, "value": v, **stamps}
                for n, v in checked.items()
            ]
            connection.execute(table.insert(), rows)

        await self.database.acall(work, is_write=True)

    async def read_setpoints(self) -> dict[str, float]:
        """The last value of each control in the history; empty before the first write.

        Raises:
            DatabaseError: If the database cannot be used.
        """
        return {n: r.value for n, r in (await self.read_back()).items() if r.value is not None}

    async def read_back(self) -> dict[str, Reading]:
        """The last value of each control with the time it was written.

        Raises:
            DatabaseError: If the database cannot be used.
        """

        def work(connection: sa.Connection) -> dict[str, Reading]:
            self._check_culture(connection)
            table = schema.setpoint_history
            last = self._of_this(sa.select(sa.func.max(table.c.id)), table).group_by(table.c.name)
            query = sa.select(table).where(table.c.id.in_(last))
            now = self._now()
            found = {row.name: row for row in connection.execute(query)}
            return {
                name: Reading(found[name].value, "good", found[name].written_at, now)
                for name in self.controls
                if name in found
            }

        return await self.database.acall(work)

    def setpoint_history(self) -> list[dict[str, Any]]:
        """Every set-point ever written, oldest first."""
        return self._rows(schema.setpoint_history)
