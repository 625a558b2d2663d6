"""Audio on the clock: placement, holes, damage, formats; streamed resampling equals librosa's of the whole."""

from __future__ import annotations

import typing
from fractions import Fraction
from pathlib import Path

import av
import librosa
import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from catalog.errors import MediaError
from catalog.grid import GridRule
from catalog.recipe import AudioSampling, Recipe
from pipeline.decode.audio import AudioReader, Mono, Resampler, SampleBuffer
from pipeline.decode.probe import probe
from pipeline.decode.windows import decode

av.logging.set_level(av.logging.PANIC)

# Equal but for float32 rounding in another order of additions; measured: 8e-7 on white noise.
SAME = 1e-5


def _path(shared: Path, name: str) -> str:
    return str(shared / "data" / "malformed" / name)


def _sound(path: str) -> tuple[NDArray[np.float32], NDArray[np.bool_], AudioReader]:
    reader = AudioReader(path, probe(path), lambda: None)
    try:
        chunks = list(reader.chunks())
        reader.finish()
    finally:
        reader.close()
    return np.concatenate([c[0][0] for c in chunks]), np.concatenate([c[1] for c in chunks]), reader


def _resample(samples: NDArray[np.float32], sizes: list[int], **rates: int) -> NDArray[np.float32]:
    resampler = Resampler(from_hz=rates["from_hz"], to_hz=rates["to_hz"], res_type="soxr_hq")
    out, position, turn = [], 0, 0
    while position < len(samples):
        chunk = samples[position : position + sizes[turn % len(sizes)]]
        out += [piece for piece, _ in resampler.push(chunk, np.ones(len(chunk), bool))]
        position, turn = position + len(chunk), turn + 1
    out += [piece for piece, _ in resampler.finish()]
    return np.concatenate(out)


@pytest.mark.parametrize(
    ("from_hz", "to_hz"),
    [
        (44100, 16000),
        (48000, 16000),
        (8000, 16000),
        (22050, 32000),
        (44100, 48000),
        (96000, 22050),
        (16000, 16000),
        (44056, 16000),
    ],
)
@pytest.mark.parametrize("seconds", [0.01, 3.9, 4.0, 13.37])
def test_resampled_in_blocks_equals_librosa_on_the_whole(from_hz: int, to_hz: int, seconds: float) -> None:
    noise = np.random.default_rng(0).standard_normal(int(from_hz * seconds)).astype(np.float32) * 0.3
    want = librosa.resample(noise, orig_sr=from_hz, target_sr=to_hz, res_type="soxr_hq")
    got = _resample(noise, [1024], from_hz=from_hz, to_hz=to_hz)
    # librosa multiplies by a float ratio: 441 samples at 44.1 kHz become 481 at 48 kHz, the last a padded zero.
    assert len(got) == -(-len(noise) * to_hz // from_hz)
    assert 0 <= len(want) - len(got) <= 1
    assert np.abs(got - want[: len(got)]).max() < SAME


@settings(deadline=None, max_examples=25)
@given(sizes=st.lists(st.integers(1, 50_000), min_size=1, max_size=5), length=st.integers(1, 200_000))
def test_resampled_values_do_not_depend_on_how_sound_comes_in(sizes: list[int], length: int) -> None:
    noise = np.random.default_rng(1).standard_normal(length).astype(np.float32)
    one = _resample(noise, [10**9], from_hz=22050, to_hz=16000)
    if min(sizes) < 50:
        sizes = [size + 50 for size in sizes]
    np.testing.assert_array_equal(_resample(noise, sizes, from_hz=22050, to_hz=16000), one)


def test_resampled_quality_is_the_recipes() -> None:
    noise = np.random.default_rng(2).standard_normal(44100).astype(np.float32)
    for quality in ("soxr_vhq", "soxr_mq"):
        resampler = Resampler(from_hz=44100, to_hz=16000, res_type=quality)
        out = [*resampler.push(noise, np.ones(44100, bool)), *resampler.finish()]
        want = librosa.resample(noise, orig_sr=44100, target_sr=16000, res_type=quality)
        np.testing.assert_allclose(np.concatenate([piece for piece, _ in out]), want, atol=SAME)


def test_resampled_validity_follows_the_clock() -> None:
    valid = np.ones(441 * 1000, bool)
    valid[44100 : 2 * 44100] = False
    resampler = Resampler(from_hz=44100, to_hz=16000, res_type="soxr_hq")
    pieces = [*resampler.push(np.zeros(len(valid), np.float32), valid), *resampler.finish()]
    got = np.concatenate([real for _, real in pieces])
    assert np.flatnonzero(~got).tolist() == list(range(16000, 32000))


def test_resampled_at_the_same_rate_is_untouched() -> None:
    noise = np.random.default_rng(3).standard_normal(5000).astype(np.float32)
    np.testing.assert_array_equal(_resample(noise, [777], from_hz=16000, to_hz=16000), noise)


@given(
    st.lists(st.integers(1, 30), min_size=1, max_size=8),
    st.integers(-20, 120),
    st.integers(0, 120),
    st.integers(0, 100),
)
def test_buffer_gives_what_was_put_in_and_zeros_elsewhere(sizes: list[int], start: int, size: int, before: int) -> None:
    buffer, whole = SampleBuffer(), np.arange(1, sum(sizes) + 1, dtype=np.float32)
    for piece in np.split(whole, np.cumsum(sizes)[:-1]):
        buffer.put(piece, np.ones(len(piece), bool))
    buffer.forget(min(before, max(start, 0)))
    samples, valid = buffer.get(start, start + size)
    want = np.array([whole[n] if 0 <= n < len(whole) else 0 for n in range(start, start + size)], np.float32)
    np.testing.assert_array_equal(samples, want)
    np.testing.assert_array_equal(valid, want > 0)


@pytest.mark.parametrize("name", ["onepeace_cow.flac", "imagebind_bird_audio.wav", "torchvggish_test.wav"])
def test_sound_equals_soundfiles_mean_of_channels(shared: Path, name: str) -> None:
    path = shared / "data" / "media" / "audio" / name
    want, rate_hz = soundfile.read(path, dtype="float32", always_2d=True)
    got, valid, reader = _sound(str(path))
    assert reader.rate_hz == rate_hz
    assert valid.all()
    np.testing.assert_allclose(got, want.mean(axis=1), atol=1e-6)


@pytest.mark.parametrize("subtype", ["PCM_U8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE"])
def test_sound_of_every_sample_format_is_scaled_to_one(tmp_path: Path, subtype: str) -> None:
    wave = np.stack([np.linspace(-1, 0.99, 8000), np.linspace(-0.5, 0.5, 8000)], axis=1)
    soundfile.write(tmp_path / "a.wav", wave, 8000, subtype=subtype)
    got, _, _ = _sound(str(tmp_path / "a.wav"))
    np.testing.assert_allclose(got, wave.mean(axis=1), atol=1 / 64 if subtype == "PCM_U8" else 1e-4)


def test_sound_of_six_channels_is_their_plain_mean(shared: Path) -> None:
    # The same tone at gains 1, .8, .6, .1, .4, .2; an ITU downmix has another level.
    five, _, _ = _sound(_path(shared, "audio_5.1.mp4"))
    level = np.sqrt((five[10000:40000] ** 2).mean()) / (0.2 / np.sqrt(2))
    assert level == pytest.approx(np.mean([1, 0.8, 0.6, 0.1, 0.4, 0.2]), rel=0.1)


def test_sound_that_starts_late_is_preceded_by_what_is_not_real(shared: Path) -> None:
    for name, start_s in (("audio_starts_late.mkv", 1.5), ("audio_starts_late.mp4", 1.476)):
        samples, valid, reader = _sound(_path(shared, name))
        first = int(np.flatnonzero(valid)[0])
        assert first / reader.rate_hz == pytest.approx(start_s, abs=0.001)
        assert not samples[:first].any()
        assert valid[first:].all()


def test_sound_holes_are_zeros_that_are_not_real(shared: Path) -> None:
    samples, valid, reader = _sound(_path(shared, "fragmented.mp4"))
    hole = np.flatnonzero(~valid)
    assert hole[0] / reader.rate_hz == pytest.approx(0.0232, abs=0.0001)
    assert hole[-1] / reader.rate_hz == pytest.approx(0.08, abs=0.0001)
    assert not samples[hole].any()


def test_sound_lost_packets_shift_nothing_after_them(shared: Path) -> None:
    whole, _, _ = _sound(_path(shared, "good_h264_aac.mp4"))
    damaged, valid, reader = _sound(_path(shared, "bitflip_mdat_2.mp4"))
    assert reader.packet_errors == 7
    lost = np.flatnonzero(~valid) / reader.rate_hz
    assert [round(t, 2) for t in (lost.min(), lost.max())] == [3.39, 3.83]
    before = slice(0, int(3.3 * reader.rate_hz))
    np.testing.assert_array_equal(damaged[before], whole[before])
    after = slice(int(3.86 * reader.rate_hz), int(3.95 * reader.rate_hz))
    assert np.corrcoef(damaged[after], whole[after])[0, 1] > 0.99


def test_sound_opus_priming_is_dropped(shared: Path) -> None:
    for name in ("av1_opus.mp4", "h264_opus.mkv", "vp9_opus.webm"):
        samples, _, reader = _sound(_path(shared, name))
        loud = np.flatnonzero(np.abs(samples) > 0.3)[0] / reader.rate_hz  # the click at second 0
        assert loud < 0.002, name


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("audio_nan_inf.mkv", "audio_not_finite"),
        ("pyav_sigsegv.mp4", "corrupt_payload"),
        ("bitflip_mdat_0.mp4", "corrupt_payload"),
    ],
)
def test_sound_that_cannot_be_used_says_why(shared: Path, name: str, reason: str) -> None:
    with pytest.raises(MediaError) as caught:
        _sound(_path(shared, name))
    assert caught.value.reason == reason


def test_sound_of_no_decodable_packet_is_undecodable(shared: Path, tmp_path: Path) -> None:
    with av.open(_path(shared, "good_h264_aac.mp4")) as source, av.open(str(tmp_path / "a.mkv"), "w") as target:
        stream = target.add_stream_from_template(source.streams.audio[0])
        for packet in source.demux(source.streams.audio[0]):
            if packet.dts is not None:
                noise = av.Packet(b"\x5a" * 100)
                noise.pts, noise.dts, noise.time_base, noise.stream = packet.pts, packet.dts, packet.time_base, stream
                target.mux(noise)
    with pytest.raises(MediaError) as caught:
        _sound(str(tmp_path / "a.mkv"))
    assert caught.value.reason == "audio_undecodable"


def _live(path: Path, jitter_s: list[float], lost: frozenset[int] = frozenset()) -> NDArray[np.float32]:
    """A Matroska file of 20 ms PCM packets, each stamped with its jitter; returns the audio."""
    rate_hz, size = 16000, 320
    wave: NDArray[np.float32] = np.sin(np.arange(size * len(jitter_s)) * 0.05).astype(np.float32) / 2
    with av.open(str(path), "w") as container:
        stream = container.add_stream("pcm_f32le", rate=rate_hz, layout="mono")
        for number, late_s in enumerate(jitter_s):
            if number in lost:
                continue
            frame = av.AudioFrame.from_ndarray(wave[None, number * size : (number + 1) * size], "flt", "mono")
            frame.rate, frame.time_base = rate_hz, Fraction(1, 1000)
            frame.pts = round(number * 20 + late_s * 1000)
            for packet in stream.encode(frame):
                container.mux(packet)
        container.mux(stream.encode(None))
    return wave


def test_sound_of_a_jittering_clock_is_not_torn(tmp_path: Path) -> None:
    jitter_s = [0.0, *np.random.default_rng(4).uniform(-0.008, 0.008, 99).round(3)]
    wave = _live(tmp_path / "live.mkv", jitter_s)
    samples, valid, _ = _sound(str(tmp_path / "live.mkv"))
    np.testing.assert_array_equal(samples, wave)
    assert valid.all()


def test_sound_lost_on_a_coarse_clock_leaves_its_hole(tmp_path: Path) -> None:
    wave = _live(tmp_path / "lost.mkv", [0.0] * 100, lost=frozenset({30, 31}))
    samples, valid, _ = _sound(str(tmp_path / "lost.mkv"))
    assert np.flatnonzero(~valid).tolist() == list(range(30 * 320, 32 * 320))
    np.testing.assert_array_equal(samples[32 * 320 :], wave[32 * 320 :])


def test_sound_that_overlaps_is_heard_once(tmp_path: Path) -> None:
    early = [0.0] * 50
    early[20] = -0.015
    wave = _live(tmp_path / "early.mkv", early)
    samples, valid, _ = _sound(str(tmp_path / "early.mkv"))
    # Packet 20 lies 240 samples early: those are taken for heard, its last 80 follow, and packet 21 is where it was.
    np.testing.assert_array_equal(samples[: 20 * 320], wave[: 20 * 320])
    np.testing.assert_array_equal(samples[20 * 320 : 20 * 320 + 80], wave[20 * 320 + 240 : 21 * 320])
    assert np.flatnonzero(~valid).tolist() == list(range(20 * 320 + 80, 21 * 320))
    np.testing.assert_array_equal(samples[21 * 320 :], wave[21 * 320 :])


def _tone(first: int, count: int, rate_hz: int, channels: int) -> NDArray[np.float32]:
    """(channels, N) of a tone of 440 Hz that begins at `first` samples of the clock; the second channel is silent."""
    wave = 0.4 * np.sin(2 * np.pi * 440 * (first + np.arange(count)) / rate_hz)
    out = np.zeros((channels, count), np.float32)
    out[0] = wave
    return out


def _coded(name: str, frames: int, *, first_s: float, rate_hz: int, layout: str) -> list[typing.Any]:
    """Packets of an encoder of its own, with times in samples of its rate from `first_s` on."""
    encoder = typing.cast(av.AudioCodecContext, av.CodecContext.create(name, "w"))
    encoder.sample_rate, encoder.layout, encoder.time_base = rate_hz, layout, Fraction(1, rate_hz)
    encoder.format = "fltp"
    encoder.bit_rate = 192_000
    encoder.open()
    size, packets = encoder.frame_size, []
    channels = encoder.layout.nb_channels
    for number in range(frames):
        first = round(first_s * rate_hz) + number * size
        frame = av.AudioFrame.from_ndarray(_tone(first, size, rate_hz, channels), "fltp", layout)
        frame.sample_rate, frame.pts, frame.time_base = rate_hz, first, Fraction(1, rate_hz)
        packets += encoder.encode(frame)
    return packets + encoder.encode(None)


def _written(path: Path, name: str, parts: list[tuple[int, int, str]], format_: str | None = None) -> Path:
    """One track of parts: (frames, rate, layout) one after the other on one clock."""
    with av.open(str(path), "w", format=format_) as container:
        stream = container.add_stream(name, rate=parts[0][1], layout=parts[0][2])
        at_s = Fraction(0)
        for frames, rate_hz, layout in parts:
            packets = _coded(name, frames, first_s=float(at_s), rate_hz=rate_hz, layout=layout)
            for packet in packets:
                packet.stream, packet.time_base = stream, Fraction(1, rate_hz)
                container.mux(packet)
            at_s += Fraction(frames * {"aac": 1024, "ac3": 1536}[name], rate_hz)
    return path


def _heard_level(samples_N: NDArray[np.float32], rate_hz: int, at_s: float) -> float:
    """Amplitude of 440 Hz in the tenth of a second around a time."""
    window = slice(int((at_s - 0.05) * rate_hz), int((at_s + 0.05) * rate_hz))
    numbers = np.arange(window.start, window.stop)
    return float(2 * abs(np.mean(samples_N[window] * np.exp(-2j * np.pi * 440 * numbers / rate_hz))))


@pytest.mark.parametrize(
    ("name", "suffix", "parts"),
    [
        ("ac3", "ts", [(60, 48000, "5.1"), (60, 48000, "stereo")]),
        ("ac3", "ts", [(60, 48000, "stereo"), (40, 32000, "stereo"), (60, 48000, "mono")]),
        ("ac3", "ts", [(40, 32000, "mono"), (60, 48000, "mono")]),
    ],
)
def test_sound_that_changes_on_the_way_goes_on_with_the_clock(
    tmp_path: Path, name: str, suffix: str, parts: list[tuple[int, int, str]]
) -> None:
    path = _written(tmp_path / f"a.{suffix}", name, parts, "mpegts")
    samples, valid, reader = _sound(str(path))
    assert reader.rate_hz == parts[0][1]
    assert reader.packet_errors <= len(parts) - 1
    at_s = 0.0
    for frames, rate_hz, layout in parts:
        length_s = frames * {"aac": 1024, "ac3": 1536}[name] / rate_hz
        channels = {"mono": 1, "stereo": 2, "5.1": 6}[layout]
        for share in (0.2, 0.5, 0.8):
            level = _heard_level(samples, reader.rate_hz, at_s + share * length_s)
            assert level == pytest.approx(0.4 / channels, rel=0.1), (layout, share)
        at_s += length_s
    assert len(samples) / reader.rate_hz == pytest.approx(at_s, abs=0.1)
    assert valid.mean() > 0.97
    # The phase stands still over the changes: nothing is shifted.
    phases = []
    for t_s in np.arange(0.2, at_s - 0.2, 0.1):
        window = np.arange(int((t_s - 0.05) * reader.rate_hz), int((t_s + 0.05) * reader.rate_hz))
        phases.append(np.angle(np.mean(samples[window] * np.exp(-2j * np.pi * 440 * window / reader.rate_hz))))
    apart = np.abs(np.angle(np.exp(1j * (np.array(phases) - phases[0]))))
    assert np.median(apart) < 0.1
    assert np.count_nonzero(apart > 0.5) <= 2 * (len(parts) - 1)


def test_sound_of_adts_whose_channels_change_goes_on(tmp_path: Path) -> None:
    content = b""
    for layout in ("mono", "stereo"):
        content += _written(tmp_path / f"{layout}.aac", "aac", [(60, 16000, layout)], "adts").read_bytes()
    (tmp_path / "a.aac").write_bytes(content)
    samples, valid, reader = _sound(str(tmp_path / "a.aac"))
    assert reader.packet_errors <= 1
    assert len(samples) >= 120 * 1024
    assert valid.mean() > 0.98
    for at_s, level in ((1.0, 0.4), (2.5, 0.4), (5.0, 0.2), (7.0, 0.2)):
        assert _heard_level(samples, 16000, at_s) == pytest.approx(level, rel=0.1)


def test_sound_of_one_frame_unlike_its_neighbours_is_damage(tmp_path: Path) -> None:
    def adts(frames: int, layout: str) -> bytes:
        return _written(tmp_path / "part.aac", "aac", [(frames, 16000, layout)], "adts").read_bytes()

    odd = adts(30, "stereo")
    length = ((odd[3] & 3) << 11) | (odd[4] << 3) | (odd[5] >> 5)  # of its first frame, by the ADTS header
    (tmp_path / "a.aac").write_bytes(adts(30, "mono") + odd[:length] + adts(30, "mono"))
    samples, _, reader = _sound(str(tmp_path / "a.aac"))
    assert reader.packet_errors == 1
    assert len(samples) >= 60 * 1024


@pytest.mark.parametrize("channels", [9, 16, 24])
def test_sound_of_many_channels_is_their_mean(tmp_path: Path, channels: int) -> None:
    noise = np.random.default_rng(0).uniform(-0.5, 0.5, (8000, channels)).astype(np.float32)
    soundfile.write(tmp_path / "a.wav", noise, 8000, subtype="FLOAT")
    samples, _, _ = _sound(str(tmp_path / "a.wav"))
    np.testing.assert_allclose(samples, noise.astype(np.float64).mean(axis=1), atol=1e-6)


def test_sound_of_many_planes_is_their_mean(tmp_path: Path) -> None:
    with av.open(str(tmp_path / "a.mkv"), "w") as container:
        stream = container.add_stream("libopus", rate=48000, options={"mapping_family": "255"})
        stream.layout = "hexadecagonal"
        for number in range(50):
            frame = av.AudioFrame.from_ndarray(
                _tone(number * 960, 960, 48000, 16).T.reshape(1, -1).copy(), "flt", "hexadecagonal"
            )
            frame.sample_rate, frame.pts = 48000, number * 960
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    samples, _, reader = _sound(str(tmp_path / "a.mkv"))
    assert _heard_level(samples, reader.rate_hz, 0.5) == pytest.approx(0.4 / 16, rel=0.1)


def _clips(
    path: str, audio: AudioSampling, window_bytes: int
) -> list[tuple[int, NDArray[np.float32], NDArray[np.bool_]]]:
    recipe = Recipe(
        name="r",
        encoder="none",
        grid=GridRule(window_s=Fraction("0.96"), hop_s=Fraction("0.48")),
        video=None,
        audio=audio,
    )
    out = []
    for item in decode(path, probe(path), [recipe], video_id="v", window_bytes=window_bytes):
        if isinstance(item, tuple):
            clips = item[1]
            for segment in range(clips.first, clips.first + clips.count):
                span = clips.window_samples(segment)
                assert span.start >= round(float(audio.context_s) * audio.rate_hz)
                out.append((clips.samples_start + span.start, clips.samples_N[span], clips.sample_valid_N[span]))
    return out


@pytest.mark.parametrize("window_bytes", [1, 100_000, 32 << 20])
@pytest.mark.parametrize("context_s", ["0", "0.5"])
def test_windows_hold_the_resampled_whole(shared: Path, window_bytes: int, context_s: str) -> None:
    path = _path(shared, "good_10s.mp4")
    native, _, _ = _sound(path)
    whole = librosa.resample(native, orig_sr=44100, target_sr=16000, res_type="soxr_hq")
    rows = _clips(path, AudioSampling(rate_hz=16000, context_s=Fraction(context_s)), window_bytes)
    assert len(rows) == 20
    for segment, (start, samples, valid) in enumerate(rows):
        assert start == -(-48 * 16000 * segment // 100)
        assert len(samples) == 15360
        want = whole[start : start + 15360]
        np.testing.assert_allclose(samples[: len(want)], want, atol=SAME)
        assert valid[: len(want)].all()
        assert not valid[len(want) :].any()


def test_sound_past_the_pictures_end_makes_no_segment(shared: Path) -> None:
    rows = _clips(_path(shared, "audio_longer.mp4"), AudioSampling(rate_hz=16000), 32 << 20)
    # 4 s: starts 0, 0.48 ... 3.36 (ends 4.32: a rest over 0.1 s beyond 3.84 is padded)
    assert [start / 16000 for start, _, _ in rows] == pytest.approx([0.48 * k for k in range(8)])


def test_sound_shorter_than_the_picture_is_not_real_after_its_end(shared: Path) -> None:
    rows = _clips(_path(shared, "audio_shorter.mp4"), AudioSampling(rate_hz=16000), 32 << 20)
    start, samples, valid = rows[-1]
    assert start / 16000 == pytest.approx(3.36)
    assert not valid.any()
    assert not samples.any()


def test_sound_of_both_kinds_of_mono_comes_from_one_pass(tmp_path: Path) -> None:
    left, right = np.random.default_rng(0).integers(-20000, 20000, (2, 16000 * 3), dtype=np.int16)
    soundfile.write(tmp_path / "stereo.wav", np.stack([left, right], axis=1), 16000)
    path = str(tmp_path / "stereo.wav")
    recipes = [
        Recipe(
            name=channels,
            encoder="none",
            grid=GridRule(window_s=Fraction(1), hop_s=Fraction(1)),
            video=None,
            audio=AudioSampling(rate_hz=16000, channels=channels),
        )
        for channels in typing.get_args(Mono)
    ]
    heard: dict[str, list[NDArray[np.float32]]] = {"mean": [], "first": []}
    for item in decode(path, probe(path), recipes, video_id="v", window_bytes=1 << 16):
        if isinstance(item, tuple):
            heard[item[0]].append(item[1].samples_N)
    np.testing.assert_array_equal(np.concatenate(heard["first"]), (left / 2**15).astype(np.float32))
    mean = (left.astype(np.float64) + right) / 2**16
    np.testing.assert_array_equal(np.concatenate(heard["mean"]), mean.astype(np.float32))
