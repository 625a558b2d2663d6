"""A scene to a real file: H.264 and AAC in MP4, the same bytes for the same scene.

Time: frame i is shown from i / 25 s, sample n at n / 44100 s. Something seen in [start, end) is in exactly the frames
with start <= i / 25 < end, and likewise for audio; voices fade within their span (5 ms), never beyond it. AAC's 1024
priming samples are hidden by the file's edit list, so sample 0 of the scene is heard at t = 0.

Determinism: one encoder thread, no dates in the file, all randomness from `scene.seed`. Another version of numpy,
FFmpeg or x264 may give other bytes.

Shape suffixes: H W pixels, C colours or channels, N samples.
"""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray

from catalog.grid import sample_at
from catalog.synthetic.scene import FPS, RATE_HZ, Actor, Scene, Voice
from catalog.whole_file import replacing

MARGIN_PX = 12  # how far the background may drift
FADE_S = Fraction(1, 200)


def render(scene: Scene, path: Path) -> None:
    """Writes `scene` to `path`: whole or not at all.

    Raises:
        OSError: the folder cannot be written.
    """
    with (
        replacing(path, draft=path.with_name(f".{path.name}.part")) as part,
        av.open(str(part), "w", format="mp4", options={"fflags": "+bitexact"}) as container,
    ):
        _encode(scene, container)


def _encode(scene: Scene, container: av.container.OutputContainer) -> None:
    # Measured: with B-frames, x264's macroblock tree (its assembly) gives other bytes from one run to the next, in one
    # thread and from equal frames: 5 of 5 encodings of one 320 x 240 scene differed. Without it none does.
    options = {"preset": "veryfast", "crf": "26", "x264-params": "mbtree=0"}
    video = container.add_stream("libx264", rate=FPS, options=options)
    video.width, video.height, video.pix_fmt = scene.width_px, scene.height_px, "yuv420p"
    video.codec_context.thread_count = 1
    video.time_base = video.codec_context.time_base = Fraction(1, FPS)
    # The fast quantiser: the default's search takes longer than the frames do.
    audio = container.add_stream("aac", rate=RATE_HZ, layout="stereo", options={"aac_coder": "fast"})
    audio.bit_rate = 96_000
    audio.codec_context.thread_count = 1

    samples_CN = render_audio(scene)
    size = audio.codec_context.frame_size or 1024
    sent = 0
    for number, frame_HWC in enumerate(render_frames(scene)):
        frame = av.VideoFrame.from_ndarray(frame_HWC, format="rgb24")
        frame.pts = number
        container.mux(video.encode(frame))
        # Audio keeps pace with the video, so that the file interleaves and nothing is buffered.
        upto = sample_at(Fraction(number + 1, FPS), RATE_HZ)
        while sent + size <= upto:
            container.mux(audio.encode(_audio_frame(samples_CN[:, sent : sent + size], sent)))
            sent += size
    container.mux(video.encode(None))
    if sent < samples_CN.shape[1]:
        container.mux(audio.encode(_audio_frame(samples_CN[:, sent:], sent)))
    container.mux(audio.encode(None))


def _audio_frame(samples_CN: NDArray[np.float32], start: int) -> av.AudioFrame:
    frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(samples_CN), format="fltp", layout="stereo")
    frame.sample_rate, frame.pts, frame.time_base = RATE_HZ, start, Fraction(1, RATE_HZ)
    return frame


def render_frames(scene: Scene) -> Iterator[NDArray[np.uint8]]:
    """The frames of `scene`, uint8 RGB (H, W, 3): drifting texture, clutter, objects, camera noise."""
    rng = np.random.default_rng([scene.seed, 1])
    height, width = scene.height_px, scene.width_px
    texture_HWC = _texture(rng, height + 2 * MARGIN_PX, width + 2 * MARGIN_PX)
    # Noise goes over the whole frame in 8-bit arithmetic; colours stay clear of both ends, so nothing wraps.
    bank_HW = rng.integers(-scene.grain, scene.grain + 1, (height + 64, width + 64)).astype(np.int8).view(np.uint8)
    drift_hz, drift_phase = rng.uniform(0.02, 0.1, 2), rng.uniform(0, 2 * np.pi, 2)
    spans = [[(sample_at(a, FPS), sample_at(b, FPS)) for a, b in actor.spans] for actor in scene.actors]
    for number in range(sample_at(scene.duration_s, FPS)):
        turn = 2 * np.pi * number / FPS
        shift = np.rint(MARGIN_PX * (1 + np.sin(turn * drift_hz + drift_phase))).astype(int)
        frame_HWC = texture_HWC[shift[0] : shift[0] + height, shift[1] : shift[1] + width].copy()
        for actor, shown in zip(scene.actors, spans, strict=True):
            if any(start <= number < stop for start, stop in shown):
                _draw(frame_HWC, actor, turn)
        y, x = rng.integers(0, 64, 2)
        frame_HWC += bank_HW[y : y + height, x : x + width, None]
        yield frame_HWC


def _texture(rng: np.random.Generator, height: int, width: int) -> NDArray[np.uint8]:
    """Smooth coloured blotches of three sizes, 8-bit values in 40 .. 215."""
    total = np.zeros((height, width, 3))
    for cells, weight in ((3, 1.0), (8, 0.6), (24, 0.4)):
        coarse = rng.standard_normal((cells, cells + cells // 2, 3)) * weight * np.array([1.0, 0.6, 0.6])
        total += _stretch(_stretch(coarse, height, 0), width, 1)
    # Mostly grey: first plane is lightness, the others push towards red and blue.
    light, warm, cold = np.moveaxis(total, 2, 0)
    strength = rng.uniform(14, 30)
    base = rng.uniform(85, 170) + rng.uniform(-15, 15, 3)
    colours = np.stack([light + warm, light - 0.5 * warm - 0.5 * cold, light + cold], axis=2)
    return np.clip(base + strength * colours, 40, 215).astype(np.uint8)


def _stretch(values: NDArray[np.float64], size: int, axis: int) -> NDArray[np.float64]:
    """Linear interpolation to `size` along `axis`."""
    at = np.linspace(0, values.shape[axis] - 1, size)
    low = np.minimum(at.astype(int), values.shape[axis] - 2)
    shape = [1] * values.ndim
    shape[axis] = size
    share = (at - low).reshape(shape)
    return np.asarray(values.take(low, axis) * (1 - share) + values.take(low + 1, axis) * share)


def _draw(frame_HWC: NDArray[np.uint8], actor: Actor, turn: float) -> None:
    """Paints `actor` where its path is at `turn` = 2 pi t, with soft edges."""
    height, width, _ = frame_HWC.shape
    radius = actor.radius * height
    x = width * (actor.x + actor.reach_x * np.sin(turn * actor.speed_hz + actor.phase))
    y = height * (actor.y + actor.reach_y * np.cos(1.3 * turn * actor.speed_hz + actor.phase))
    half = int(np.ceil(1.5 * radius)) + 1
    left, top = max(int(x) - half, 0), max(int(y) - half, 0)
    right, bottom = min(int(x) + half + 1, width), min(int(y) + half + 1, height)
    if left >= right or top >= bottom:
        return
    dx = np.arange(left, right, dtype=np.float32)[None] - np.float32(x)
    dy = np.arange(top, bottom, dtype=np.float32)[:, None] - np.float32(y)
    angle = turn * actor.spin_hz
    cos, sin = np.float32(np.cos(angle)), np.float32(np.sin(angle))
    distance = _distance(actor.shape, cos * dx + sin * dy, cos * dy - sin * dx, np.float32(radius))
    alpha = np.clip(np.float32(0.5) - distance, 0, 1)[..., None]
    colour = np.array([40 + 175 * part for part in actor.colour], np.float32)
    patch = frame_HWC[top:bottom, left:right]
    patch[...] = (patch + alpha * (colour - patch)).astype(np.uint8)


def _distance(shape: str, x: NDArray[np.float32], y: NDArray[np.float32], radius: np.float32) -> NDArray[np.float32]:
    """Pixels outside (positive) or inside (negative) the shape; `radius` is that of a disc of about equal reach."""
    if shape == "square":
        return np.asarray(np.maximum(abs(x), abs(y)) - np.float32(0.85) * radius)
    if shape == "ring":
        return np.asarray(abs(np.hypot(x, y) - np.float32(0.75) * radius) - np.float32(0.25) * radius)
    if shape == "cross":
        arm, reach = np.float32(0.3) * radius, np.float32(1.05) * radius
        beam = np.maximum(abs(x) - arm, abs(y) - reach)
        return np.asarray(np.minimum(beam, np.maximum(abs(y) - arm, abs(x) - reach)))
    if shape == "kite":
        return np.asarray((abs(x) * np.float32(1.6) + abs(y)) / np.float32(1.9) - np.float32(0.6) * radius)
    if shape == "disc":
        return np.asarray(np.hypot(x, y) - np.float32(0.9) * radius)
    if shape == "bar":
        return np.asarray(np.maximum(abs(x) - np.float32(1.2) * radius, abs(y) - np.float32(0.35) * radius))
    if shape == "diamond":
        return np.asarray((abs(x) + abs(y)) / np.float32(1.414) - np.float32(0.75) * radius)
    raise ValueError(f"no shape is called {shape!r}")


def render_audio(scene: Scene) -> NDArray[np.float32]:
    """The samples of `scene`, float32 (2, N) within [-0.98, 0.98]: noise floor and voices."""
    rng = np.random.default_rng([scene.seed, 2])
    size = sample_at(scene.duration_s, RATE_HZ)
    total_CN = np.stack([_noise(rng, size, scene.noise_slope) for _ in range(2)])
    total_CN *= 10 ** (scene.noise_db / 20)
    for voice in scene.voices:
        gains = np.sqrt([[1 - voice.pan], [1 + voice.pan]])
        for start_s, end_s in voice.spans:
            start, stop = sample_at(start_s, RATE_HZ), sample_at(end_s, RATE_HZ)
            wave_N = _wave(rng, voice, stop - start)
            wave_N *= 10 ** (voice.level_db / 20) / np.sqrt(np.mean(wave_N**2))
            fade = sample_at(FADE_S, RATE_HZ)
            ramp = np.linspace(0, 1, fade, endpoint=False)
            wave_N[:fade] *= ramp
            wave_N[-fade:] *= ramp[::-1]
            total_CN[:, start:stop] += gains * wave_N
    return np.clip(total_CN, -0.98, 0.98).astype(np.float32)


def _noise(rng: np.random.Generator, size: int, slope_db: float) -> NDArray[np.float64]:
    """Noise of RMS 1 that falls by `slope_db` an octave above 60 Hz and swells slowly."""
    spectrum = np.fft.rfft(rng.standard_normal(size))
    frequency_hz = np.fft.rfftfreq(size, 1 / RATE_HZ)
    spectrum *= np.maximum(frequency_hz, 60) ** (-slope_db / 6.02)
    noise_N = np.fft.irfft(spectrum, size)
    swell = np.interp(np.arange(size), np.linspace(0, size, 8), rng.uniform(0.6, 1.4, 8))
    noise_N *= swell
    return np.asarray(noise_N / np.sqrt(np.mean(noise_N**2)))


def _wave(rng: np.random.Generator, voice: Voice, size: int) -> NDArray[np.float64]:
    """`size` samples of a voice, of any level."""
    at_s = np.arange(size) / RATE_HZ
    if voice.kind == 0:  # hum: a low tone with its overtones
        phase = 2 * np.pi * 105 * voice.pitch * at_s
        wave_N = sum(np.sin(k * phase) / k for k in range(1, 9))
        return np.asarray(wave_N * (1 + 0.2 * np.sin(2 * np.pi * 1.1 * at_s)))
    if voice.kind == 1:  # whistle: one tone that wavers
        frequency_hz = 1700 * voice.pitch * (1 + 0.12 * np.sin(2 * np.pi * 2.3 * at_s))
        return np.asarray(np.sin(2 * np.pi * np.cumsum(frequency_hz) / RATE_HZ))
    if voice.kind == 2:  # rattle: bursts of bright noise, 13 a second
        beat = at_s * 13 * voice.pitch % 1
        bright_N = np.diff(rng.standard_normal(size + 1))
        return np.asarray(bright_N * np.exp(-9 * beat))
    if voice.kind == 3:  # beeps: a tone, four times a second
        gate = np.clip(20 * np.sin(2 * np.pi * 4 * at_s), 0, 1)
        return np.asarray(np.sin(2 * np.pi * 780 * voice.pitch * at_s) * gate)
    raise ValueError(f"no sound has the number {voice.kind}")
