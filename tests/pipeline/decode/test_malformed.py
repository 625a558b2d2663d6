"""The 91 odd and hostile media against their manifest: verdict, reason, segments, bar codes and clicks.

`table(shared)` gives one row a medium; run as a program it prints them.
"""

from __future__ import annotations

import json
import math
import sys
import tarfile
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from catalog.errors import MediaError
from catalog.grid import GridRule
from catalog.recipe import AudioSampling, Recipe, VideoSampling
from catalog.video import REASONS, Video
from pipeline.sandbox.parent import Decoded, Restart, Sandbox

RATE_HZ = 16000
RECIPE = Recipe(
    name="table",
    encoder="none",
    grid=GridRule(window_s=Fraction(1), hop_s=Fraction(1)),
    # The coded size, so that bar codes survive; nearest mixes no two pixels.
    video=VideoSampling(frames_per_segment=1, height_px=96, width_px=128, fit="stretch", interpolation="nearest"),
    audio=AudioSampling(rate_hz=RATE_HZ),
)
TOLERANCE_S = 0.002
# Where the container does not tell how many samples the MP3 encoder put in front: one of its frames.
UNKNOWN_PRIMING_S = 0.0235
UNKNOWN_PRIMING = {"mpeg4_bframes.avi", "mpeg4_mp3.avi"}
# Seconds on the clock at which second 0 of the source sound begins, where that is not the clock's 0: by construction of
# the file, or (priming counted as sound before the picture) where the manifest's first picture is.
SOUND_AT_S = {
    "audio_starts_late.mkv": 1.5,
    "audio_starts_late.mp4": 1.5,
    "editlist_trim.mp4": -1.52,
    "starts_mid_gop.ts": 0.9087 - 2,  # its first picture is source frame 50 of 25 a second
    "fragmented.mp4": 0.08,
    "h264_aac.ts": 0.0232,
    "starts_at_10s.ts": 0.0232,
    "pts_over_int32.ts": 0.0232,
    "mpeg2_mp2.mpg": 0.0109,
    "sorenson.flv": 0.05,
    "mpeg4_bframes.avi": 0.04,
    "mpeg4_mp3.avi": 0.04,
}


@dataclass(frozen=True, kw_only=True)
class Row:
    """One medium: what came of it and how that differs from the manifest.

    Attributes:
        file, verdict, reason: from the manifest.
        status, got, detail: what came of it; status "quarantined" where it raised.
        attempts: 2 where the first ended with the decoder's death.
        faults: sentences; empty where all is as it should be.
        clicks_s: clock times at which clicks were found, less their places in the source.
    """

    file: str
    verdict: str
    reason: str
    status: str
    got: str
    detail: str
    attempts: int
    faults: list[str]
    clicks_s: list[float]


def table(shared: Path) -> list[Row]:
    """All rows, in the manifest's order, from one sandbox."""
    folder = shared / "data" / "malformed"
    entries = json.loads((folder / "manifest.json").read_text())["entries"]
    with tempfile.TemporaryDirectory() as unpacked, Sandbox() as sandbox:
        with tarfile.open(folder / "odd_paths.tar") as tar:
            tar.extractall(unpacked, filter="fully_trusted")  # links to nothing and to themselves are the point
        rows = []
        for entry in entries:
            archive, _, member = entry["file"].partition("!")
            rows.append(_judge(sandbox, entry, Path(unpacked, member) if member else folder / archive))
        return rows


def _judge(sandbox: Sandbox, entry: dict[str, Any], path: Path) -> Row:
    video = Video(id=entry["file"], uri=str(path))
    result, error, attempts = None, None, 0
    while result is None and attempts < 2:
        attempts += 1
        try:
            result = _decode(sandbox, video, path)
        except MediaError as caught:
            error = caught
            if caught.reason not in ("decoder_crash", "decoder_timeout"):
                break
    faults: list[str] = []
    clicks_s: list[float] = []
    if result is None:
        assert error is not None
        status, got, detail = "quarantined", error.reason, error.detail
    else:
        decoded = result.decoded
        status, got, detail = decoded.outcome.status, decoded.outcome.reason, json.dumps(decoded.media)
        faults += _check_pictures(entry, result)
        clicks_s = result.clicks_s(SOUND_AT_S.get(entry["file"], 0.0))
        faults += _check_sound(entry, result, clicks_s)
    wanted = {"extract": "extracted", "extract_partial": "partial", "quarantine": "quarantined"}
    if entry["verdict"] in wanted and status != wanted[entry["verdict"]]:
        faults.append(f"should be {wanted[entry['verdict']]}, is {status}")
    if got != (entry["reason"] or "") and not (entry["verdict"] == "extract_or_quarantine" and status == "extracted"):
        faults.append(f"reason should be {entry['reason']}, is {got}")
    return Row(
        file=entry["file"],
        verdict=entry["verdict"],
        reason=entry["reason"] or "",
        status=status,
        got=got,
        detail=detail,
        attempts=attempts,
        faults=faults,
        clicks_s=clicks_s,
    )


@dataclass(frozen=True, kw_only=True)
class Result:
    """All that came out of one medium, put together."""

    decoded: Decoded
    frames: list[NDArray[np.uint8] | None]  # at each segment's middle
    samples_N: NDArray[np.float32]
    valid_N: NDArray[np.bool_]

    def clicks_s(self, source_at_s: float) -> list[float]:
        """For each source second whose click lies within the real sound: clock time found, less where it belongs."""
        found = []
        for second in range(math.ceil(max(0.0, -source_at_s)), 62):
            expected_s = second + source_at_s
            low = max(0, round((expected_s - 0.1) * RATE_HZ))
            high = round((expected_s + 0.2) * RATE_HZ)
            if high > len(self.samples_N) or not self.valid_N[round((expected_s + 0.03) * RATE_HZ) : high].all():
                break
            found.append((low + click_at(self.samples_N[low:high])) / RATE_HZ - expected_s)
        return found


def click_at(samples_N: NDArray[np.float32]) -> int:
    """First sample of the 10 ms of 2 kHz in a stretch of sound: where a window of that length holds most of it."""
    width = RATE_HZ // 100
    wave = np.exp(-2j * np.pi * 2000 / RATE_HZ * np.arange(len(samples_N)))
    total = np.concatenate([[0], np.cumsum(samples_N * wave)])
    return int(np.argmax(np.abs(total[width:] - total[:-width])))


def barcode(frame: NDArray[np.uint8]) -> int:
    """The source frame number in the picture's top two rows of blocks."""
    gray = frame.mean(2)
    h, w = gray.shape
    value = 0
    for bit in range(16):
        row, column = divmod(bit, 8)
        rows = slice(int((row + 0.25) * h / 6), int((row + 0.75) * h / 6))
        block = gray[rows, int((column + 0.25) * w / 8) : int((column + 0.75) * w / 8)]
        value = 2 * value + int(block.mean() > 125)
    return value


def _decode(sandbox: Sandbox, video: Video, path: Path) -> Result:
    frames: list[NDArray[np.uint8] | None] = []
    samples: list[NDArray[np.float32]] = []
    valid: list[NDArray[np.bool_]] = []
    decoded = None
    for item in sandbox.decode(video, path, [RECIPE]):
        if isinstance(item, Decoded):
            decoded = item
            continue
        if isinstance(item, Restart):
            frames, samples, valid = [], [], []
            continue
        name, clips = item
        assert name == RECIPE.name
        assert clips.first == len(frames)
        frames += [None if i < 0 else clips.frames_FHWC[i] for i in clips.frame_index_SP[:, 0]]
        samples.append(clips.samples_N)
        valid.append(clips.sample_valid_N)
    assert decoded is not None
    return Result(decoded=decoded, frames=frames, samples_N=np.concatenate(samples), valid_N=np.concatenate(valid))


def _check_pictures(entry: dict[str, Any], result: Result) -> Iterator[str]:
    if len(result.frames) != entry["segments"]:
        yield f"{len(result.frames)} segments, should be {entry['segments']}"
    if abs(float(result.decoded.duration_s) - entry["duration"]) > 0.025:
        yield f"lasts {float(result.decoded.duration_s)} s, should be {entry['duration']}"
    if "sha256" in entry and result.decoded.sha256 != entry["sha256"]:
        yield "another SHA-256"
    codes = (entry.get("barcodes") or {}).get("at_segment_middle")
    if codes is not None:
        turns = round(entry["video"]["rotation"] / 90)
        # The frame comes as shown and stretched; the bar code was drawn before the turn.
        upright = [None if frame is None else np.rot90(frame, -turns) for frame in result.frames]
        got = [None if frame is None else barcode(frame) for frame in upright]
        if got != codes:
            yield f"bar codes {got}, should be {codes}"


def _check_sound(entry: dict[str, Any], result: Result, clicks_s: list[float]) -> Iterator[str]:
    if not entry["has_audio"] or entry["file"] == "audio_digital_silence.mp4":
        if result.samples_N.any():
            yield "sound out of nothing"
        return
    audio = entry["audio"]
    # A click is sought to 0.2 s after its place; damage may hide some.
    least = int(min(audio["end"], len(result.frames)) - max(0.0, SOUND_AT_S.get(entry["file"], 0.0)) - 0.25)
    if len(clicks_s) < least - (entry["verdict"] == "extract_or_quarantine"):
        yield f"{len(clicks_s)} clicks, should be {least}"
    limit_s = UNKNOWN_PRIMING_S if entry["file"] in UNKNOWN_PRIMING else TOLERANCE_S
    late = [round(click, 4) for click in clicks_s if abs(click) > limit_s]
    if late:
        yield f"clicks off by {late} s"


@pytest.fixture(scope="module")
def rows(shared: Path) -> list[Row]:
    return table(shared)


def test_malformed_every_medium_comes_out_as_the_manifest_says(rows: list[Row]) -> None:
    assert len(rows) == 91
    wrong = [f"{row.file}: {'; '.join(row.faults)} ({row.detail})" for row in rows if row.faults]
    assert not wrong, "\n".join(["", *wrong])


def test_malformed_every_reason_is_a_known_one(rows: list[Row]) -> None:
    assert {row.got for row in rows if row.got} <= set(REASONS)


def test_malformed_one_crashing_medium_needs_two_attempts_and_no_other(rows: list[Row]) -> None:
    assert [row.file for row in rows if row.attempts == 2] == ["decord_sigabrt.mp4"]


if __name__ == "__main__":
    for row in table(Path(sys.argv[1])):
        print(  # noqa: T201 - a program's output
            "FAIL" if row.faults else "ok  ", row.file, row.verdict, row.reason, row.status, row.got,
            [round(1000 * click, 1) for click in row.clicks_s[:5]], "; ".join(row.faults),
        )  # fmt: skip
