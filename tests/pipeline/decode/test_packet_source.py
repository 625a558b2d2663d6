"""Packets by stream from one open container: the same as demuxing each stream alone, flush packets included."""

from __future__ import annotations

from pathlib import Path

import av
import pytest

from bench.media import write_clip
from pipeline.decode.packet_source import PacketSource


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("packets") / "clip.mp4"
    write_clip(path, seconds=3, width_px=64, height_px=48, fps=10)
    return path


def alone(path: Path, stream: int) -> list[bytes]:
    with av.open(str(path)) as container:
        return [bytes(packet) for packet in container.demux(container.streams[stream])]


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_packets_one_stream_drained_before_the_other_equal_each_alone(clip: Path, order: tuple[int, int]) -> None:
    source = PacketSource(str(clip), [0, 1], lambda: None)
    got = {}
    for stream in order:
        packets = list(source.packets(stream))
        # A flush packet of another stream would end the wrong decoder.
        assert {packet.stream.index for packet in packets} == {stream}
        got[stream] = [bytes(packet) for packet in packets]
    source.close()
    for stream in order:
        assert got[stream] == alone(clip, stream)


def test_packets_that_wait_too_long_come_from_a_container_of_their_own(clip: Path) -> None:
    source = PacketSource(str(clip), [0, 1], lambda: None, max_waiting_bytes=1000)
    first_sound = next(source.packets(1))
    pictures = [bytes(packet) for packet in source.packets(0)]
    sounds = [bytes(first_sound), *(bytes(packet) for packet in source.packets(1))]
    source.close()
    assert pictures == alone(clip, 0)
    assert sounds == alone(clip, 1)
