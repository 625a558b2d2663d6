"""Rendered files, decoded again: contents and times are those of the scene."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from numpy.typing import NDArray

from catalog.datasets.synthetic import Settings, plan
from catalog.synthetic.scene import FPS, RATE_HZ, Actor, Scene, Span, Voice
from pipeline.render import render, render_audio, render_frames

SEEN: tuple[Span, ...] = ((Fraction(1), Fraction("1.6")), (Fraction("2.2"), Fraction("2.48")))
HEARD: tuple[Span, ...] = ((Fraction("0.4"), Fraction(1)), (Fraction(2), Fraction("2.6")))


def make_scene(*, shape: str = "square", kind: int = 2, seed: int = 1, duration_s: Fraction = Fraction(3)) -> Scene:
    actor = Actor(
        kind=0,
        shape=shape,
        colour=(1.0, 0.0, 0.0),
        spans=SEEN,
        radius=0.25,
        x=0.5,
        y=0.5,
        reach_x=0.1,
        reach_y=0.1,
        speed_hz=0.3,
        phase=1.0,
        spin_hz=0.1,
    )
    voice = Voice(kind=kind, spans=HEARD, level_db=-22.0, pitch=1.0, pan=0.3)
    return Scene(
        id="v",
        duration_s=duration_s,
        width_px=160,
        height_px=120,
        actors=(actor,),
        voices=(voice,),
        noise_db=-70.0,
        noise_slope=3.0,
        grain=3,
        seed=seed,
    )


def decode(path: Path) -> tuple[list[Fraction], list[NDArray[np.uint8]], NDArray[np.float32]]:
    """Frame times, frames, and the audio (2, N) laid out by its own times from t = 0."""
    times_s, frames = [], []
    with av.open(str(path)) as container:
        for picture in container.decode(video=0):
            assert picture.pts is not None
            assert picture.time_base is not None
            times_s.append(Fraction(picture.pts * picture.time_base))
            frames.append(np.asarray(picture.to_ndarray(format="rgb24"), np.uint8))
    samples_CN = np.zeros((2, 4 * RATE_HZ), np.float32)
    with av.open(str(path)) as container:
        for sound in container.decode(audio=0):
            assert sound.pts is not None
            assert sound.time_base is not None
            start = round(sound.pts * sound.time_base * RATE_HZ)
            values = sound.to_ndarray()[:, max(-start, 0) :]
            samples_CN[:, max(start, 0) : max(start, 0) + values.shape[1]] = values
    return times_s, frames, samples_CN


@pytest.fixture(scope="module")
def rendered(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("render") / "v.mp4"
    render(make_scene(), path)
    return path


def test_file_is_h264_and_aac_of_the_scenes_length(rendered: Path) -> None:
    with av.open(str(rendered)) as container:
        (video,), (audio,) = container.streams.video, container.streams.audio
        assert (video.codec_context.name, video.width, video.height) == ("h264", 160, 120)
        assert video.average_rate == FPS
        assert (audio.codec_context.name, audio.rate, audio.channels) == ("aac", RATE_HZ, 2)
        assert video.duration is not None
        assert audio.duration is not None
        assert video.time_base is not None
        assert video.duration * video.time_base == 3
        assert 0 <= audio.duration / RATE_HZ - 3 < 0.05


def test_objects_are_in_exactly_the_frames_of_their_spans(rendered: Path) -> None:
    times_s, frames, _ = decode(rendered)
    assert times_s == [Fraction(n, FPS) for n in range(75)]
    for at_s, frame in zip(times_s, frames, strict=True):
        red = frame[..., 0].astype(int) - frame[..., 1]
        share = float((red > 90).mean())
        expected = any(start_s <= at_s < end_s for start_s, end_s in SEEN)
        # The square covers (2 * 0.85 * 0.25)^2 of a height squared, 3/4 of that of the frame.
        assert (0.1 < share < 0.16) if expected else share < 0.002, (at_s, share)


def test_sounds_begin_and_end_where_the_scene_says(rendered: Path) -> None:
    _, _, samples_CN = decode(rendered)
    envelope_N = np.abs(samples_CN).max(axis=0)
    # AAC smears a burst by a few ms before and after; its long frames are 23 ms.
    quiet = 0.03
    for start_s, end_s in HEARD:
        start, end = int(start_s * RATE_HZ), int(end_s * RATE_HZ)
        assert envelope_N[start : start + 700].max() > 4 * quiet
        assert envelope_N[start - 4000 : start - 1100].max() < quiet
        assert envelope_N[end + 1100 : end + 4000].max() < quiet


def test_sound_is_not_shifted_by_the_encoders_priming(rendered: Path) -> None:
    _, _, decoded_CN = decode(rendered)
    made_CN = render_audio(make_scene())
    # The shift at which the two agree best: correlation of both by Fourier transform.
    size = made_CN.shape[1]
    product = np.fft.rfft(decoded_CN[0, :size]) * np.conj(np.fft.rfft(made_CN[0]))
    assert int(np.fft.irfft(product, size).argmax()) == 0


@pytest.mark.parametrize("kind", [0, 1, 2, 3])
def test_voices_have_their_level_and_stay_within_their_span(kind: int) -> None:
    samples_CN = render_audio(make_scene(kind=kind)).astype(np.float64)
    inside = np.zeros(samples_CN.shape[1], bool)
    for start_s, end_s in HEARD:
        inside[int(start_s * RATE_HZ) : int(end_s * RATE_HZ)] = True
    # Pan shares power: the mean over channels of the power is the voice's.
    power = (samples_CN**2).mean(axis=0)
    assert 10 * np.log10(power[inside].mean()) == pytest.approx(-22, abs=0.3)
    assert 10 * np.log10(power[~inside].mean()) == pytest.approx(-70, abs=1.5)
    assert np.abs(samples_CN).max() < 0.981


@pytest.mark.parametrize("shape", ["square", "ring", "cross", "kite", "disc", "bar", "diamond"])
def test_every_shape_is_drawn_and_none_fills_its_box(shape: str) -> None:
    frames = list(render_frames(make_scene(shape=shape)))
    red = frames[30][..., 0].astype(int) - frames[30][..., 1]
    height, width = np.nonzero(red > 90)
    box = (np.ptp(height) + 1) * (np.ptp(width) + 1)
    assert 0.02 < (red > 90).mean() < 0.2
    assert (red > 90).sum() < 0.95 * box


def test_same_scene_gives_the_same_bytes_and_another_seed_others(tmp_path: Path) -> None:
    for name, seed in (("one", 1), ("two", 1), ("three", 2)):
        # Large enough that x264's macroblock tree would differ (see render.py); small scenes did not.
        scene = replace(make_scene(seed=seed), width_px=320, height_px=240, grain=6)
        render(scene, tmp_path / f"{name}.mp4")
    contents = {name: (tmp_path / f"{name}.mp4").read_bytes() for name in ("one", "two", "three")}
    assert contents["one"] == contents["two"] != contents["three"]


def test_failed_render_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no shape is called 'blob'"):
        render(make_scene(shape="blob"), tmp_path / "v.mp4")
    assert list(tmp_path.iterdir()) == []


def test_planned_scene_has_its_size_and_length() -> None:
    scene = plan(Settings(layout="unav100", videos=1, seed=0), "/x").scenes[0]
    frames = sum(frame.shape == (scene.height_px, scene.width_px, 3) for frame in render_frames(scene))
    assert frames == scene.duration_s * FPS
    assert render_audio(scene).shape == (2, int(scene.duration_s * RATE_HZ))
