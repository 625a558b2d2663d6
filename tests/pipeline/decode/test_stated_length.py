"""Audio files cut short are told by their own headers; whole ones, and those whose header knows no length, are not."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np
import pytest
import soundfile

from catalog.errors import MediaError
from pipeline.decode.probe import probe
from pipeline.decode.stated_length import mp3_counts_frames, wav_bytes

RATE_HZ, SECONDS = 16000, 6


def written(path: Path, subtype: str | None = None) -> Path:
    tone = 0.3 * np.sin(np.arange(SECONDS * RATE_HZ) / 5)
    soundfile.write(path, tone, RATE_HZ, subtype=subtype)
    return path


@pytest.mark.parametrize(
    ("name", "subtype"),
    [
        ("a.wav", None),
        ("a.wav", "FLOAT"),
        ("a.wav", "PCM_24"),
        ("a.flac", None),
        ("a.aiff", None),
        ("a.au", None),
        ("a.mp3", None),
    ],
)
@pytest.mark.parametrize("share", [0.3, 0.5, 0.8])
def test_file_cut_short_is_truncated(tmp_path: Path, name: str, subtype: str | None, share: float) -> None:
    path = written(tmp_path / name, subtype)
    info = probe(str(path))
    assert float(info.duration_s) == pytest.approx(SECONDS, abs=0.1)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(MediaError, match=r"promises 6\.\d+ s and ends at") as caught:
        probe(str(path))
    assert caught.value.reason == "truncated_media"


@pytest.mark.parametrize("size", [0, 0x7FFFFFFF, 0xFFFFFFFF])
def test_wav_of_a_stream_whose_length_was_not_known_is_whole(tmp_path: Path, size: int) -> None:
    path = written(tmp_path / "a.wav")
    content = bytearray(path.read_bytes())
    at = content.index(b"data") + 4
    content[at : at + 4] = size.to_bytes(4, "little")
    path.write_bytes(content)
    assert wav_bytes(str(path)) is None
    if size:  # of a size of 0 FFmpeg makes nothing at all
        assert float(probe(str(path)).duration_s) == pytest.approx(SECONDS, abs=0.1)


def test_wav_with_further_chunks_before_and_after_its_samples(tmp_path: Path) -> None:
    path = written(tmp_path / "a.wav")
    content = path.read_bytes()
    at = content.index(b"data")
    extra = b"LIST" + (5).to_bytes(4, "little") + b"INFOx\0"  # of an odd size, so padded
    path.write_bytes(content[:at] + extra + content[at:] + extra)
    samples = SECONDS * RATE_HZ * 2
    assert wav_bytes(str(path)) == (samples, samples + len(extra))
    assert float(probe(str(path)).duration_s) == pytest.approx(SECONDS, abs=0.1)


@pytest.mark.parametrize("counted", [False, True])
@pytest.mark.parametrize("tags", [False, True])
def test_mp3_length_is_believed_where_its_first_frame_states_it(tmp_path: Path, counted: bool, tags: bool) -> None:
    path = tmp_path / "a.mp3"
    with av.open(str(path), "w", options={"write_xing": str(int(counted)), "id3v2_version": "3" if tags else "0"}) as c:
        c.metadata["title"] = "x" * 5000
        stream = c.add_stream("libmp3lame", rate=RATE_HZ, layout="mono", options={"q": "9"})
        for number in range(80):
            frame = av.AudioFrame.from_ndarray(np.zeros((1, 1152), np.float32), "fltp", "mono")
            frame.sample_rate, frame.pts = RATE_HZ, number * 1152
            c.mux(stream.encode(frame))
        c.mux(stream.encode(None))
    assert mp3_counts_frames(str(path)) == counted
    probe(str(path))
