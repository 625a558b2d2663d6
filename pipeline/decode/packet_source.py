"""The packets of one or two tracks of a medium, from one open container.

A demuxer's index costs some 70 bytes a packet (an MP4 of three hours: 30 MB), so video and audio of a long medium
share one. Packets of the track that is not asked for wait in memory, still coded; interleaved files keep that to about
a second. Where a file is so ill interleaved that more would wait, the waiting track gets a container of its own.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence

from pipeline.decode.container import Packet, demux, open_container

# Coded bytes of one track that may wait for the other.
MAX_WAITING_BYTES = 32 << 20


class PacketSource:
    """Packets by stream, each stream front to back at its own pace. Close it when all are done.

    Args:
        path: of the medium.
        streams: indices of one or two streams.
        heartbeat: called once a packet.
        max_waiting_bytes: coded bytes of one stream that may wait for the other.
    """

    def __init__(
        self,
        path: str,
        streams: Sequence[int],
        heartbeat: Callable[[], None],
        *,
        max_waiting_bytes: int = MAX_WAITING_BYTES,
    ) -> None:
        self._path, self._heartbeat, self._max_waiting_bytes = path, heartbeat, max_waiting_bytes
        self._container = open_container(path)
        self._own: dict[int, PacketSource] = {}
        self._waiting: dict[int, deque[Packet]] = {index: deque() for index in streams}
        self._waiting_bytes = dict.fromkeys(streams, 0)
        self._num_given = dict.fromkeys(streams, 0)
        for index in streams:
            self._container.streams[index].codec_context.thread_count = 1
        self._demux = demux(self._container, [self._container.streams[index] for index in streams])

    @property
    def waiting_bytes(self) -> int:
        """Coded bytes that wait in memory."""
        return sum(self._waiting_bytes.values()) + sum(source.waiting_bytes for source in self._own.values())

    def packets(self, stream: int) -> Iterator[Packet]:
        """All packets of `stream`, an empty one last (it flushes the decoder)."""
        while (packet := self._next(stream)) is not None:
            self._heartbeat()
            yield packet

    def close(self) -> None:
        for source in self._own.values():
            source.close()
        for waiting in self._waiting.values():
            waiting.clear()
        self._container.close()

    def _next(self, stream: int) -> Packet | None:
        if stream in self._own:
            return self._own[stream]._next(stream)
        waiting = self._waiting[stream]
        if waiting:
            packet = waiting.popleft()
            self._waiting_bytes[stream] -= packet.size
        else:
            packet = self._read_until(stream)
        self._num_given[stream] += 1
        return packet

    def _read_until(self, stream: int) -> Packet | None:
        for packet in self._demux:
            # Not packet.stream_index: it is 0 in the empty packets that flush the decoders, whatever their stream.
            index = packet.stream.index
            if index == stream:
                return packet
            if index in self._own or index not in self._waiting:
                continue
            self._waiting[index].append(packet)
            self._waiting_bytes[index] += packet.size
            if self._waiting_bytes[index] > self._max_waiting_bytes:
                self._part(index)
        return None

    def _part(self, stream: int) -> None:
        """Gives `stream` a container of its own, at the place where it stands."""
        own = PacketSource(self._path, [stream], self._heartbeat)
        for _ in range(self._num_given[stream]):
            own._next(stream)
        self._waiting[stream].clear()
        self._waiting_bytes[stream] = 0
        self._own[stream] = own
