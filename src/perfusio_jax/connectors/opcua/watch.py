"""Changes as the server reports them, over reconnects."""

import datetime as dt
from collections.abc import AsyncGenerator, Callable, Sequence
from typing import Any

from asyncua import ua
from asyncua.common.subscription import DataChangeEvent, StatusChangeEvent

from perfusio_jax._core import ConnectorError
from perfusio_jax.connectors.base import Reading
from perfusio_jax.connectors.opcua.directory import Directory
from perfusio_jax.connectors.opcua.link import Link
from perfusio_jax.connectors.opcua.session import Session
from perfusio_jax.connectors.opcua.values import plain

# The protocol library re-exports its types by wildcards and declares numbers as subclasses.
# pyright: reportPrivateImportUsage=false, reportArgumentType=false


class Watch:
    """A subscription that is made anew whenever its connection is.

    Args:
        link: The connection.
        directory: Where the nodes are.
        names: Names of the node map.
        vessel: Name of the vessel, for messages.
        period_s: How often the server looks and reports [s].
        queue_size: Changes per node the server keeps between two reports.
        now: Source of time stamps.
    """

    def __init__(
        self,
        link: Link,
        directory: Directory,
        names: Sequence[str],
        *,
        vessel: str,
        period_s: float,
        queue_size: int,
        now: Callable[[], dt.datetime],
    ) -> None:
        self._link, self._directory = link, directory
        self._names, self._vessel = names, vessel
        self._period_s, self._queue_size, self._now = period_s, queue_size, now

    async def changes(self) -> AsyncGenerator[tuple[str, Reading], None]:
        """Names and readings until abandoned; the same value of the same time once only.

        Raises:
            ConnectorError: If the server cannot be reached.
        """
        last: dict[str, tuple[Any, Any]] = {}
        while True:
            session, subscription, by_id = await self._link.run(self._subscribe)
            try:
                async for event in subscription:
                    if isinstance(event, StatusChangeEvent):
                        break  # the line is lost, or the server gave the subscription up
                    if not isinstance(event, DataChangeEvent):
                        continue
                    value = event.data.monitored_item.Value
                    name = by_id[event.node.nodeid]
                    if self._directory.is_news(event.node.nodeid, value):
                        await self._link.run(lambda s: self._directory.resolved(s, is_anew=True))
                    if name is None:
                        continue
                    mark = (value.SourceTimestamp, plain(value))
                    if mark[0] is not None and last.get(name) == mark:
                        continue
                    last[name] = mark
                    yield name, self._directory.reading(name, value, self._now())
            finally:
                await self._link.forget(session, subscription)

    async def _subscribe(
        self, session: Session
    ) -> tuple[Session, Any, dict[ua.NodeId, str | None]]:
        nodes = await self._directory.resolved(session)
        by_id: dict[ua.NodeId, str | None] = {
            nodes.found[n].id: n for n in self._names if n in nodes.found
        }
        if not by_id:
            names = ", ".join(self._names)
            raise ConnectorError(f"{self._vessel}: the server has none of {names}.")
        for node in [nodes.found[n] for n in by_id.values() if n is not None]:
            if node.unit_node is not None:
                by_id.setdefault(node.unit_node, None)  # its unit may change meanwhile
        subscription = await session.client.create_subscription(
            self._period_s * 1000.0, queue_maxsize=max(10_000, self._queue_size * len(by_id))
        )
        subscribe: Any = subscription.subscribe_data_change
        items = [session.client.get_node(i) for i in by_id]
        await subscribe(
            items,
            queuesize=self._queue_size,
            sampling_interval=0.0,
        )
        return session, subscription, by_id
