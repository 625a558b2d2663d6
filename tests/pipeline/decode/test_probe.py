"""Tracks, frame tables and the clock, against the manifest of odd media and files built here."""

from __future__ import annotations

import itertools
import json
import shutil
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from catalog.errors import MediaError
from pipeline.decode.packet_source import PacketSource
from pipeline.decode.probe import LONGEST_S, probe, refuse_implausible

av.logging.set_level(av.logging.PANIC)


def _malformed(shared: Path) -> Path:
    return shared / "data" / "malformed"


def _video(path: Path, *, pts: list[int], time_base: Fraction = Fraction(1, 1000)) -> None:
    """Writes a 32x32 MPEG-4 video without B frames, a picture at each of `pts`."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=25)
        stream.width, stream.height, stream.pix_fmt = 32, 32, "yuv420p"
        stream.codec_context.time_base = time_base
        stream.time_base = time_base
        for number, ticks in enumerate(pts):
            frame = av.VideoFrame.from_ndarray(np.full((32, 32, 3), number * 9 % 256, np.uint8))
            frame.pts, frame.time_base = ticks, time_base
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def test_probe_agrees_with_the_manifest_on_every_extractable_file(shared: Path) -> None:
    entries = json.loads((_malformed(shared) / "manifest.json").read_text())["entries"]
    checked = 0
    for entry in entries:
        if not entry["verdict"].startswith("extract") or "!" in entry["file"] or "quarantine" in entry["verdict"]:
            continue
        info = probe(str(_malformed(shared) / entry["file"]))
        assert float(info.t0_s) == pytest.approx(entry["t0"], abs=1e-4), entry["file"]
        assert float(info.duration_s) == pytest.approx(entry["duration"], abs=0.02), entry["file"]
        assert (info.video is not None, info.audio is not None) == (entry["has_video"], entry["has_audio"])
        if info.video is not None:
            assert len(info.video.pts_F) == entry["video"]["frames"], entry["file"]
            assert [info.video.width_px, info.video.height_px] == entry["video"]["coded_size"]
            start_s = float(int(info.video.pts_F[0]) * info.video.time_base - info.t0_s)
            assert start_s == pytest.approx(entry["video"]["start"], abs=1e-4), entry["file"]
        if info.audio is not None:
            assert (info.audio.rate_hz, info.audio.channels) == (entry["audio"]["rate"], entry["audio"]["channels"])
            start_s = float(info.audio.start_ticks * info.audio.time_base - info.t0_s)
            assert start_s == pytest.approx(entry["audio"]["start"], abs=1e-4), entry["file"]
        checked += 1
    assert checked > 50


def test_probe_table_is_what_pyav_decodes(shared: Path) -> None:
    for name in (
        "vfr.mp4",
        "editlist_trim.mp4",
        "editlist_tail_trim.mp4",
        "mpeg4_bframes.avi",
        "h264_aac.ts",
        "av1_opus.mp4",
    ):
        path = str(_malformed(shared) / name)
        with av.open(path) as container:
            shown = [frame.pts for frame in container.decode(video=0)]
        info = probe(path)
        assert info.video is not None
        assert info.video.pts_F.tolist() == shown, name


def test_probe_the_default_sound_track_is_taken(shared: Path) -> None:
    info = probe(str(_malformed(shared) / "two_audio_tracks.mp4"))
    assert info.audio is not None
    assert info.audio.index == 2
    assert info.tracks == {"audio": 2, "video": 1}


def test_probe_last_frame_lasts_its_own_duration_not_the_gaps(shared: Path) -> None:
    # Packet durations are decode-order differences: the packet before the 2 s gap ends at 5.16 s of a 4 s video.
    assert probe(str(_malformed(shared) / "video_gap.mp4")).duration_s == 4


def test_probe_exact_rationals_survive_a_clock_of_billionths(shared: Path) -> None:
    info = probe(str(_malformed(shared) / "timescale_1ghz.mp4"))
    assert info.video is not None
    assert info.video.time_base == Fraction(1, 10**9)
    assert info.duration_s == 4
    assert info.video.pts_F.dtype == np.int64
    assert info.video.pts_F[-1] > 2**31


@pytest.mark.parametrize(
    ("name", "uses_decord", "sparse"),
    [
        ("good_h264_aac.mp4", True, True),
        ("vp9_opus.webm", True, True),
        ("editlist_trim.mp4", True, False),
        ("fragmented.mp4", True, False),
        ("h264_aac.ts", False, False),
        ("mpeg2_mp2.mpg", False, False),
        ("mpeg4_bframes.avi", False, False),
        ("av1_opus.mp4", False, False),
    ],
)
def test_probe_rules_decord_out_where_it_misplaces(shared: Path, name: str, uses_decord: bool, sparse: bool) -> None:
    video = probe(str(_malformed(shared) / name)).video
    assert video is not None
    assert (not video.not_decord, video.sparse_safe) == (uses_decord, sparse)


def test_probe_container_without_duration_lasts_to_its_last_frame(shared: Path) -> None:
    info = probe(str(shared / "data" / "media" / "video" / "no_duration.webm"))
    with av.open(str(shared / "data" / "media" / "video" / "no_duration.webm")) as container:
        last_s = max(frame.time for frame in container.decode(video=0))
    assert 0 < float(info.duration_s) - last_s < 0.2


def test_probe_cut_file_is_truncated_whatever_the_container(shared: Path, tmp_path: Path) -> None:
    for name in ("good_h264_aac.mp4", "h264_flac.mkv", "mpeg4_mp3.avi"):
        whole = (_malformed(shared) / name).read_bytes()
        cut = tmp_path / f"cut_{name}"
        cut.write_bytes(whole[: len(whole) * 6 // 10])
        with pytest.raises(MediaError) as caught:
            probe(str(cut))
        assert caught.value.reason in ("truncated_media", "container_truncated"), name


def test_probe_cut_fragmented_file_ends_within_a_packet(shared: Path) -> None:
    # Its header promises nothing: only the last packet, cut short, tells.
    with pytest.raises(MediaError, match="ends within a sound packet") as caught:
        probe(str(_malformed(shared) / "fragmented_truncated.mp4"))
    assert caught.value.reason == "truncated_media"


def test_probe_playlist_is_no_medium_and_opens_nothing_else(shared: Path, tmp_path: Path) -> None:
    shutil.copy(_malformed(shared) / "h264_aac.ts", tmp_path / "part.ts")
    for name, text in {
        "list.mp4": "#EXTM3U\n#EXT-X-TARGETDURATION:4\n#EXTINF:4,\npart.ts\n#EXT-X-ENDLIST\n",
        "list.m3u8": "#EXTM3U\n#EXT-X-TARGETDURATION:4\n#EXTINF:4,\npart.ts\n#EXT-X-ENDLIST\n",
        "concat.mp4": "ffconcat version 1.0\nfile part.ts\n",
    }.items():
        (tmp_path / name).write_text(text)
        with pytest.raises(MediaError) as caught:
            probe(str(tmp_path / name))
        assert caught.value.reason == "not_media", name


def test_probe_picture_is_no_medium(shared: Path) -> None:
    with pytest.raises(MediaError) as caught:
        probe(str(shared / "data" / "media" / "images" / "imagebind_car_image.jpg"))
    assert caught.value.reason == "not_media"


@pytest.mark.parametrize(
    ("pts", "damaged"),
    [
        ([*range(0, 4000, 40), 2_987_000], True),
        ([0, *range(2_987_000, 2_991_000, 40)], True),
        (list(range(0, 4000, 40)), False),
        ([*range(0, 4000, 40), *range(60_000, 64_000, 40)], False),  # a camera that slept
        (list(range(0, 3_000_000, 60_000)), False),  # slides
        ([0, 40, 80, 600_000], False),  # too few to tell
    ],
)
def test_probe_frame_far_away_from_all_others_is_implausible(tmp_path: Path, pts: list[int], damaged: bool) -> None:
    _video(tmp_path / "v.mkv", pts=pts)
    info = probe(str(tmp_path / "v.mkv"))
    if not damaged:
        refuse_implausible(info)
        return
    with pytest.raises(MediaError, match=f"1 of {len(pts)} frames are 29.. s away from the others") as caught:
        refuse_implausible(info)
    assert caught.value.reason == "corrupt_container"


def test_probe_encrypted_media_say_so(tmp_path: Path) -> None:
    key = {"encryption_key": "76a6c65c5ea762046bd749a2e632ccbb", "encryption_kid": "a7e61c373e219033c21091fa607bf3b8"}
    path = tmp_path / "protected.mp4"
    with av.open(str(path), "w", options={"encryption_scheme": "cenc-aes-ctr", **key}) as container:
        stream = container.add_stream("libx264", rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for number in range(20):
            frame = av.VideoFrame(64, 48, "yuv420p")
            frame.pts = number
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    with pytest.raises(MediaError, match="the video track is encrypted") as caught:
        probe(str(path))
    assert caught.value.reason == "video_undecodable"


def test_probe_frames_larger_than_may_be_decoded_are_refused(shared: Path) -> None:
    path = str(_malformed(shared) / "good_10s.mp4")
    info = probe(path)
    assert info.video is not None
    pixels = info.video.width_px * info.video.height_px
    assert probe(path, max_pixels=pixels).video is not None
    with pytest.raises(MediaError, match=f"frames of .* px; up to {pixels - 1:,} px are decoded") as caught:
        probe(path, max_pixels=pixels - 1)
    assert caught.value.reason == "decoder_memory"


def test_probe_damaged_clock_is_implausible(tmp_path: Path) -> None:
    far = int(LONGEST_S * 1000) + 1000
    _video(tmp_path / "far.mkv", pts=[0, 40, 80, far])
    info = probe(str(tmp_path / "far.mkv"))
    with pytest.raises(MediaError, match="bytes last 12096"):
        refuse_implausible(info)
    _video(tmp_path / "thin.mkv", pts=[0, 40, 80, 4 * 3600_000])
    with pytest.raises(MediaError, match="bytes last 14400"):
        refuse_implausible(probe(str(tmp_path / "thin.mkv")))
    _video(tmp_path / "near.mkv", pts=[0, 40, 80, 120])
    refuse_implausible(probe(str(tmp_path / "near.mkv")))


def test_probe_long_video_has_a_flat_table_and_shares_its_container(tmp_path: Path) -> None:
    _video(tmp_path / "long.mkv", pts=list(range(0, 20_001 * 40, 40)))
    video = probe(str(tmp_path / "long.mkv")).video
    assert video is not None
    assert video.pts_F.nbytes == 20_001 * 8
    assert "long" in video.not_decord


def test_probe_stream_that_appears_in_mid_file_is_passed_over(shared: Path, tmp_path: Path) -> None:
    whole = (_malformed(shared) / "sorenson.flv").read_bytes()
    # An FLV tag of type 18 (script data, here with a name that FFmpeg makes a data stream of) before the last tag.
    body = b"\x02\x00\x08onTextXX" + b"\x08\x00\x00\x00\x01\x00\x04text\x02\x00\x02hi\x00\x00\x09"
    tag = b"\x12" + len(body).to_bytes(3, "big") + b"\x00\x0f\xa0\x00\x00\x00\x00" + body
    last = len(whole) - 4 - int.from_bytes(whole[-4:], "big")
    late = whole[:last] + tag + (len(tag)).to_bytes(4, "big") + whole[last:]
    (tmp_path / "late.flv").write_bytes(late)
    want, got = probe(str(_malformed(shared) / "sorenson.flv")), probe(str(tmp_path / "late.flv"))
    assert got.duration_s == want.duration_s


def _packets_of(source: PacketSource, stream: int, num: int) -> list[tuple[int | None, int]]:
    return [(packet.pts, packet.size) for packet in itertools.islice(source.packets(stream), num)]


@pytest.mark.parametrize("ahead", [0, 1])
@pytest.mark.parametrize("most", [1 << 20, 3000])
def test_packet_source_gives_each_stream_whole_and_in_order(shared: Path, most: int, ahead: int) -> None:
    # With 3000 bytes the stream that waits soon gets a container of its own.
    path = str(_malformed(shared) / "good_10s.mp4")
    alone = []
    for stream in (0, 1):
        with av.open(path) as container:
            alone.append([(packet.pts, packet.size) for packet in container.demux(container.streams[stream])])
    source = PacketSource(path, [0, 1], lambda: None, max_waiting_bytes=most)
    behind = 1 - ahead
    assert _packets_of(source, behind, 5) == alone[behind][:5]
    assert _packets_of(source, ahead, 10**6) == alone[ahead]
    assert (source.waiting_bytes == 0) == (most == 3000)
    assert _packets_of(source, behind, 10**6) == alone[behind][5:]
    assert source.waiting_bytes == 0
    source.close()
