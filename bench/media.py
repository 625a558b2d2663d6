"""Clips to measure on: H.264 + AAC files with moving noise, so that the decoder has its usual work."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np

RATE_HZ = 44100
_AAC_FRAME = 1024


def write_clip(
    path: Path, *, seconds: int, width_px: int = 480, height_px: int = 360, fps: int = 30, seed: int = 0
) -> None:
    """One clip: a textured picture that drifts, with a tone in noise."""
    generator = np.random.default_rng(seed)
    coarse = generator.integers(0, 256, (height_px // 8 + 2, width_px // 8 + 2, 3), dtype=np.uint8)
    texture = coarse.repeat(16, axis=0).repeat(16, axis=1)
    with av.open(str(path), "w") as container:
        video = container.add_stream("libx264", rate=fps, options={"preset": "ultrafast", "crf": "28"})
        video.width, video.height, video.pix_fmt = width_px, height_px, "yuv420p"
        video.codec_context.thread_count = 1
        audio = container.add_stream("aac", rate=RATE_HZ, layout="mono")
        sent = 0
        for second in range(seconds):
            for n in range(second * fps, (second + 1) * fps):
                top, left = n * 2 % height_px, n * 3 % width_px
                picture = texture[top : top + height_px, left : left + width_px]
                container.mux(video.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")))
            while sent < (second + 1) * RATE_HZ:
                times_s = np.arange(sent, sent + _AAC_FRAME) / RATE_HZ
                sound = 0.2 * np.sin(2 * np.pi * 440 * times_s) + 0.05 * generator.standard_normal(_AAC_FRAME)
                frame = av.AudioFrame.from_ndarray(sound[None].astype(np.float32), format="fltp", layout="mono")
                frame.sample_rate, frame.pts, frame.time_base = RATE_HZ, sent, Fraction(1, RATE_HZ)
                container.mux(audio.encode(frame))
                sent += _AAC_FRAME
        container.mux(video.encode(None))
        container.mux(audio.encode(None))


def repeat_clip(source: Path, path: Path, times: int) -> None:
    """`source` played `times` times in a row, by copying its packets."""
    with av.open(str(path), "w") as out:
        offset_s = Fraction(0)
        streams: dict[int, av.stream.Stream] = {}
        for _ in range(times):
            with av.open(str(source)) as container:
                for stream in container.streams:
                    if stream.index not in streams:
                        streams[stream.index] = out.add_stream_from_template(stream)
                end_s = Fraction(0)
                for packet in container.demux():
                    if packet.dts is None or packet.pts is None or packet.time_base is None:
                        continue
                    base = Fraction(packet.time_base)
                    end_s = max(end_s, (packet.pts + (packet.duration or 0)) * base)
                    packet.pts += round(offset_s / base)
                    packet.dts += round(offset_s / base)
                    packet.stream = streams[packet.stream.index]
                    out.mux(packet)
            # AAC's first packet is dated before 0, and dates must ascend; a hole of a tenth of a second is harmless.
            offset_s += end_s + Fraction(1, 10)
