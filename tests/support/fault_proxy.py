"""`FaultProxy`: a TCP proxy between the gateway and the engine that fails on demand.

async with FaultProxy(fake.port) as proxy:
    proxy.fault = Fault("reset", after=300)     # after this many bytes from the engine
    ...                                         # send requests to proxy.url
"""

import asyncio
import contextlib
import socket
import struct
from dataclasses import dataclass

KINDS = ("reset", "half_close", "truncate", "blackhole", "latency", "corrupt")
LATENCY_S = 0.05
READ_BYTES = 2**16


@dataclass(frozen=True)
class Fault:
    """A fault in the engine's responses, and after how many bytes it happens."""

    kind: str
    after: int = 0


class FaultProxy:
    def __init__(self, port: int) -> None:
        self.fault: Fault | None = None
        self._port = port
        self._writers: list[asyncio.StreamWriter] = []
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    async def __aenter__(self) -> "FaultProxy":
        self._server = await asyncio.start_server(self._connected, "127.0.0.1", 0)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for writer in self._writers:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        engine_reader, engine_writer = await asyncio.open_connection("127.0.0.1", self._port)
        self._writers += [writer, engine_writer]
        ways = (
            self._forward_requests(reader, engine_writer),
            self._forward_responses(engine_reader, writer),
        )
        for way in ways:
            task = asyncio.ensure_future(way)
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _forward_requests(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(READ_BYTES):
                writer.write(data)
                await writer.drain()
        writer.close()

    async def _forward_responses(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        """Forward the engine's bytes up to the fault."""
        passed = 0
        with contextlib.suppress(OSError):
            while data := await reader.read(READ_BYTES):
                fault = self.fault
                if fault and fault.kind == "latency":
                    await asyncio.sleep(LATENCY_S)
                elif fault and passed + len(data) > fault.after:
                    whole = data[: fault.after - passed] if passed < fault.after else b""
                    if await self._fail(fault, whole, data[len(whole) :], writer):
                        return
                    passed += len(data)
                    continue
                passed += len(data)
                writer.write(data)
                await writer.drain()
        writer.close()

    async def _fail(
        self, fault: Fault, whole: bytes, rest: bytes, writer: asyncio.StreamWriter
    ) -> bool:
        """Inject the fault; returns whether the connection has ended."""
        writer.write(whole)
        await writer.drain()
        if fault.kind == "corrupt":
            writer.write(bytes([rest[0] ^ 0x80]) + rest[1:])
            return False
        if fault.kind == "blackhole":
            await asyncio.Event().wait()
        if fault.kind == "half_close":
            writer.write_eof()
            await asyncio.Event().wait()
        if fault.kind == "reset":
            connection: socket.socket = writer.get_extra_info("socket")
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        writer.close()
        return True
