"""A network that can be cut, slowed, deafened and broken in the middle of a packet, by a proxy.

Stands between a node and its broker on loopback: plain sockets and one thread. toxiproxy does as
much and more, but is not packaged for Debian; and what is wanted here is to count bytes, so that a
fault strikes at a known one. There is no need of root, as netem has.
"""

from __future__ import annotations

import contextlib
import select
import socket
import struct
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, Literal, Self

HELD_BYTES: Final = 65_536
"""What a direction holds at most; beyond, the sender is made to wait, as a network would."""

_TICK_S: Final = 0.005
_IDLE_S: Final = 0.1
_RESET_ON_CLOSE: Final = struct.pack("ii", 1, 0)  # SO_LINGER of 0 s: close sends RST

Way = Literal["up", "down"]
Break = Literal["half_close", "reset"]


@dataclass(eq=False)
class _Stream:
    """One direction of a connection."""

    way: Way
    source: socket.socket
    sink: socket.socket
    held: bytearray = field(default_factory=bytearray)
    due_s: float = 0.0
    ended: bool = False  # nothing more comes from the source
    closed: bool = False  # the sink was told so


class NetworkProxy:
    """Forward connections to a port of 127.0.0.1, badly on request; a context manager.

    Parameters
    ----------
    target_port
        Where the broker listens.
    address
        Of this machine, where the proxy listens.

    Attributes
    ----------
    port
        Where the proxy listens; the same after a cut.
    broken
        How often an armed break has struck.
    held_back
        How often something had to wait since the network is slow.
    """

    def __init__(self, target_port: int, address: str = "127.0.0.1") -> None:
        self._target_port = target_port
        self._address = address
        self._lock = threading.RLock()
        self._listener: socket.socket | None = None
        self._connections: list[tuple[_Stream, _Stream]] = []
        self._bytes_per_s: float | None = None
        self._stalled = False
        self._deaf: set[Way] = set()
        self._armed: tuple[int, Break] | None = None
        self._awaited: tuple[int, Callable[[], None]] | None = None
        self._closing = False
        self._thread = threading.Thread(target=self._run, name="network-proxy", daemon=True)
        self.broken = 0
        self.held_back = 0
        self.port = 0

    def cut(self, *, reset: bool = True) -> None:
        """End every connection, and refuse new ones."""
        with self._lock:
            if self._listener is not None:
                # The thread may wait for it just now, and would hold the port until it returns.
                self._listener.shutdown(socket.SHUT_RDWR)
                self._listener.close()
                self._listener = None
            self._drop(reset=reset)

    def mend(self) -> None:
        """Be a good network again; connections that were stalled go on."""
        with self._lock:
            self._bytes_per_s, self._stalled, self._armed = None, False, None
            self._deaf.clear()
            if self._listener is None:
                self._listen()

    def stall(self) -> None:
        """Forward nothing in any direction, and end nothing: a black hole."""
        with self._lock:
            self._stalled = True

    def deafen(self, way: Way) -> None:
        """Swallow what goes one way: `up` to the broker, `down` from it."""
        with self._lock:
            self._deaf.add(way)

    def slow(self, bytes_per_s: float) -> None:
        """Forward so many bytes a second each way."""
        with self._lock:
            self._bytes_per_s = bytes_per_s

    def break_after(self, up_bytes: int, how: Break) -> None:
        """Once so many more bytes went up, close that direction, or reset the connection.

        A half-closed connection still carries what comes down. Strikes once.
        """
        with self._lock:
            self._armed = (up_bytes, how)

    def on_answer(self, first_byte: int, act: Callable[[], None]) -> None:
        """Act once something that begins so comes down, before it is passed on."""
        with self._lock:
            self._awaited = (first_byte, act)

    @property
    def armed(self) -> bool:
        """Whether a break has still to strike."""
        return self._armed is not None or self._awaited is not None

    def __enter__(self) -> Self:
        self._listen()
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._closing = True
        self._thread.join()
        self.cut()

    def _listen(self) -> None:
        listener = socket.socket()
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((self._address, self.port))
        listener.listen()
        self.port = listener.getsockname()[1]
        self._listener = listener

    def _run(self) -> None:
        while not self._closing:
            with self._lock:
                listener, streams = self._listener, [s for pair in self._connections for s in pair]
                readers: list[socket.socket] = [] if listener is None else [listener]
                if not self._stalled:
                    readers += [s.source for s in streams if self._takes_more(s)]
                pending = any(s.held for s in streams)
            try:
                ready, _, _ = select.select(readers, [], [], _TICK_S if pending else _IDLE_S / 4)
            except (OSError, ValueError):
                continue  # cut from another thread meanwhile
            with self._lock:
                if listener is not None and listener is self._listener and listener in ready:
                    self._accept(listener)
                for pair in list(self._connections):
                    self._serve(pair, ready)

    def _takes_more(self, stream: _Stream) -> bool:
        return not stream.ended and len(stream.held) < HELD_BYTES

    def _accept(self, listener: socket.socket) -> None:
        with contextlib.suppress(OSError):
            node, _ = listener.accept()
            try:
                broker = socket.create_connection(("127.0.0.1", self._target_port), timeout=1)
            except OSError:
                node.close()
                return
            for end in (node, broker):
                end.setblocking(False)
                end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._connections.append((_Stream("up", node, broker), _Stream("down", broker, node)))

    def _serve(self, pair: tuple[_Stream, _Stream], ready: list[socket.socket]) -> None:
        if self._stalled:
            return
        try:
            for stream in pair:
                if stream.source in ready and not stream.ended:
                    self._read(stream)
                self._write(stream, pair)
        except OSError:
            self._end(pair, reset=True)
            return
        if all(stream.closed for stream in pair):
            self._end(pair, reset=False)

    def _read(self, stream: _Stream) -> None:
        try:
            data = stream.source.recv(HELD_BYTES)
        except BlockingIOError:
            return
        if not data:
            stream.ended = True
        elif stream.way not in self._deaf:
            stream.held += data
            if self._awaited and stream.way == "down" and data[0] == self._awaited[0]:
                (_, act), self._awaited = self._awaited, None
                self.broken += 1
                act()

    def _write(self, stream: _Stream, pair: tuple[_Stream, _Stream]) -> None:
        limit = self._allowance(stream)
        self.held_back += bool(stream.held and not limit)
        strikes = False
        if self._armed is not None and stream.way == "up" and not stream.closed:
            left, _ = self._armed
            strikes = min(limit, len(stream.held)) >= left
            limit = min(limit, left)
        if stream.held and limit and not stream.closed:
            try:
                sent = stream.sink.send(stream.held[:limit])
            except BlockingIOError:
                return
            del stream.held[:sent]
            if self._bytes_per_s:
                stream.due_s = time.monotonic() + sent / self._bytes_per_s
            if self._armed is not None and stream.way == "up":
                self._armed = (self._armed[0] - sent, self._armed[1])
        if strikes and self._armed is not None and self._armed[0] <= 0:
            self._strike(stream, pair)
        if stream.ended and not stream.held and not stream.closed:
            stream.closed = True
            stream.sink.shutdown(socket.SHUT_WR)

    def _allowance(self, stream: _Stream) -> int:
        if self._bytes_per_s is None:
            return HELD_BYTES
        if time.monotonic() < stream.due_s:
            return 0
        return max(1, round(self._bytes_per_s * 4 * _TICK_S))

    def _strike(self, stream: _Stream, pair: tuple[_Stream, _Stream]) -> None:
        assert self._armed is not None
        how, self._armed = self._armed[1], None
        self.broken += 1
        if how == "reset":
            self._end(pair, reset=True)
            return
        stream.held.clear()
        stream.ended = stream.closed = True
        stream.sink.shutdown(socket.SHUT_WR)

    def _drop(self, *, reset: bool) -> None:
        for pair in list(self._connections):
            self._end(pair, reset=reset)

    def _end(self, pair: tuple[_Stream, _Stream], *, reset: bool) -> None:
        if pair in self._connections:
            self._connections.remove(pair)
        for stream in pair:
            if reset:
                with contextlib.suppress(OSError):
                    stream.source.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
            stream.source.close()
