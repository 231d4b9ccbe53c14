"""Values into the nodes of a server, with whatever is wrong with the sensors."""

# The protocol library re-exports its types by wildcards and declares numbers as subclasses.
# pyright: reportPrivateImportUsage=false, reportArgumentType=false

import datetime as dt
import heapq
import itertools
import time
from collections.abc import Mapping
from typing import Any

from asyncua import Server, ua

from perfusio_jax.connectors.opcua.rack import Rack
from perfusio_jax.connectors.opcua.sensor_faults import Key, SensorFaults
from perfusio_jax.connectors.opcua.space import FAULT_KINDS, Space, data_value


class Display:
    """Shows what a rack does.

    Args:
        server: Whose nodes they are.
        space: Where they are.
        faults: What is wrong with the sensors.
        delay_s: How late [s] a sensor with the fault "Delayed" is.
        began: When the server started.
    """

    def __init__(
        self,
        server: Server,
        space: Space,
        faults: SensorFaults,
        *,
        delay_s: float,
        began: dt.datetime,
    ) -> None:
        self._iserver: Any = server.iserver
        self._storage = server.iserver.history_manager.storage
        self._space, self._faults = space, faults
        self.delay_s = delay_s
        self._began = began
        self._beats, self._counter = itertools.count(), itertools.count()
        self._late: list[tuple[float, int, Key, float | None, dt.datetime, bool]] = []
        self.n_shown = 0
        """Values shown so far."""

    async def sample(
        self,
        vessel: int,
        day: int,
        time_h: float,
        values: Mapping[str, float | None],
        at: dt.datetime,
        *,
        keep: bool = True,
    ) -> None:
        """Show the sample of a day.

        Args:
            vessel: Number of the vessel.
            day: Culture day [d].
            time_h: Time since inoculation [h].
            values: Species and stream totals; those not named are missing.
            at: When it was taken.
            keep: Whether it goes into the history.
        """
        for name in self._space.shows[vessel].sampled:
            await self._show((vessel, name), values.get(name), at, keep=keep)
        await self._store(self._space.times[vessel], data_value(time_h, at), keep=keep)
        # Last, so that whoever sees the day sees its values.
        await self._store(self._space.days[vessel], data_value(day, at, kind="Int32"), keep=keep)

    async def refresh(self, rack: Rack, now: dt.datetime, *, is_running: bool) -> None:
        """Show everything that is not sampled, and what was late.

        Args:
            rack: What is shown.
            now: Time stamp.
            is_running: Whether culture time passes.
        """
        monotonic = time.monotonic()
        while self._late and self._late[0][0] <= monotonic:
            _, _, key, value, at, keep = heapq.heappop(self._late)
            kinds = self._faults.of(key) - {"Delayed"}
            shown = data_value(value, at, kinds)
            keep = keep and self._space.is_sampled(*key)
            await self._store(self._space.sensors[key], shown, keep=keep)
        beat = next(self._beats) % 2**32
        for vessel, tags in enumerate(rack.tags()):
            online = self._space.shows[vessel].online
            for name, value in {"volume_L": rack.volume_L, **tags}.items():
                if name in online:  # the history is of samples
                    await self._show((vessel, name), value, now, keep=False)
            for name in self._space.spare:
                await self._show((vessel, name), float(beat), now)
            held = rack.controls(vessel)
            for name in self._space.shows[vessel].controls:
                value = held[name]
                shown = data_value(value, now)
                await self._store(self._space.currents[vessel, name], shown)
                await self._follow(self._space.targets[vessel, name], value, shown)
        await self._show_examples(now)
        await self._store(self._space.heartbeat, data_value(beat, now, kind="UInt32"))
        running = data_value(is_running, now, kind="Boolean")
        await self._store(self._space.clock, running)
        await self._store(self._space.culture_time, data_value(rack.time_h, now))
        await self._iserver.current_time_node.write_value(now)

    async def _show_examples(self, now: dt.datetime) -> None:
        """One sensor per kind of fault, in its own folder."""
        for kind in FAULT_KINDS:
            stands = kind in ("Frozen", "Stuck")
            value = 7.0 if stands else 7.0 + 0.001 * (next(self._counter) % 100)
            at = now
            if kind == "Frozen":
                at = self._began
            elif kind == "Delayed":
                at = now - dt.timedelta(seconds=self.delay_s)
            await self._store(self._space.examples[kind], data_value(value, at, [kind]))

    async def _follow(self, node: ua.NodeId, value: float, shown: ua.DataValue) -> None:
        """A target keeps the time it was written at; it is refreshed only when it differs."""
        held = self._iserver.read_attribute_value(node, ua.AttributeIds.Value)
        if held.Value is None or held.Value.Value != value:
            await self._store(node, shown)

    async def _show(
        self, key: Key, value: float | None, at: dt.datetime, *, keep: bool = True
    ) -> None:
        """Show a sensor's value, with whatever is wrong with the sensor."""
        kinds = self._faults.of(key)
        node = self._space.sensors[key]
        if "Frozen" in kinds:
            return
        if "Delayed" in kinds:
            due = time.monotonic() + self.delay_s
            heapq.heappush(self._late, (due, next(self._counter), key, value, at, keep))
            return
        if "Stuck" in kinds:
            held = self._iserver.read_attribute_value(node, ua.AttributeIds.Value)
            value = held.Value.Value if held.Value is not None else None
        await self._store(
            node, data_value(value, at, kinds), keep=keep and self._space.is_sampled(*key)
        )

    async def _store(self, node: ua.NodeId, value: ua.DataValue, *, keep: bool = False) -> None:
        self.n_shown += 1
        kind = value.Value.VariantType if value.Value is not None else None
        held = self._iserver.aspace[node].attributes[ua.AttributeIds.Value]
        if kind is ua.VariantType.String:  # the checks of type would refuse what is wrong here
            held.value = value
        else:
            if held.value.Value is not None and held.value.Value.VariantType is not kind:
                held.value = ua.DataValue()  # nor would they take a number after a text
            await self._iserver.write_attribute_value(node, value, ua.AttributeIds.Value)
        if keep:
            await self._storage.save_node_value(node, value)
