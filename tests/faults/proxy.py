"""A TCP proxy on loopback that delays, cuts, swallows or doubles what passes through it."""

import asyncio
import contextlib
from typing import Self


class Proxy:
    """Stands between a client and a server on this machine.

    Attributes may be changed at any time and hold from the next bytes on.

    Args:
        upstream_port: Port of the server.
        port: Port to listen on; 0 takes a free one.
    """

    def __init__(self, upstream_port: int, port: int = 0) -> None:
        self.upstream_port, self.port = upstream_port, port
        self.delay_s = 0.0
        """How late [s] everything arrives."""
        self.is_black_hole = False
        """Whether bytes are taken and never delivered, in both directions."""
        self.doubles = 0
        """How many of the next pieces from the server are delivered twice."""
        self.drop_after: int | None = None
        """Bytes from the client that still pass before the line is cut; None: all."""
        self.n_connections = 0
        """Connections taken so far."""
        self.n_bytes = 0
        """Bytes that passed from client to server."""
        self._server: asyncio.Server | None = None
        self._lines: set[asyncio.Task[None]] = set()
        self._writers: set[asyncio.StreamWriter] = set()

    async def open(self) -> Self:
        """Listen."""
        self._server = await asyncio.start_server(self._take, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def cut(self) -> None:
        """Cut every line and stop listening; `open` mends it."""
        server, self._server = self._server, None
        if server is not None:
            server.close()
        self.cut_lines()
        if self._lines:
            await asyncio.wait(self._lines)
        if server is not None:
            await server.wait_closed()

    def cut_lines(self) -> None:
        """Reset every line, and go on listening."""
        for writer in list(self._writers):
            writer.transport.abort()

    async def __aenter__(self) -> Self:
        return await self.open()

    async def __aexit__(self, *exc: object) -> None:
        await self.cut()

    async def _take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._lines.add(task)
        self._writers.add(writer)
        self.n_connections += 1
        upstream: asyncio.StreamWriter | None = None
        try:
            with contextlib.suppress(OSError):
                far, upstream = await asyncio.open_connection("127.0.0.1", self.upstream_port)
                self._writers.add(upstream)
                async with asyncio.TaskGroup() as group:
                    group.create_task(self._pass(reader, upstream, is_up=True))
                    group.create_task(self._pass(far, writer, is_up=False))
        finally:
            self._lines.discard(task)
            for end in (writer, upstream):
                if end is not None:
                    self._writers.discard(end)
                    end.transport.abort()
                    with contextlib.suppress(OSError):
                        await end.wait_closed()

    async def _pass(
        self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, *, is_up: bool
    ) -> None:
        with contextlib.suppress(OSError):
            while data := await source.read(65536):
                if self.delay_s:
                    await asyncio.sleep(self.delay_s)
                if self.is_black_hole:
                    continue
                if is_up:
                    if self.drop_after is not None:
                        data = data[: self.drop_after]
                        self.drop_after -= len(data)
                    self.n_bytes += len(data)
                elif self.doubles > 0:
                    self.doubles -= 1
                    data += data
                sink.write(data)
                await sink.drain()
                if is_up and self.drop_after == 0:
                    break
        for writer in (*self._writers,):
            if writer is sink:
                writer.transport.abort()
