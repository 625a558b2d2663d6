"""A scene: all that one made-up video shows and sounds, exactly when. Planned in `catalog/datasets/synthetic.py`, made
into a file by `pipeline/render.py`.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

FPS = 25
RATE_HZ = 44100

Span = tuple[Fraction, Fraction]  # [start, end) in seconds


@dataclass(frozen=True, kw_only=True)
class Actor:
    """Something seen. Lengths are shares of the frame height (x: of the frame width).

    Attributes:
        kind: number of the object; -1 for clutter, which belongs to no class.
        shape, colour: what it looks like, colour as RGB in [0, 1].
        spans: when it is seen, ascending, half-open seconds on whole frames.
        radius, x, y: size and the middle of its path.
        reach_x, reach_y, speed_hz, phase: the path, a slow Lissajous figure.
        spin_hz: turns a second.
    """

    kind: int
    shape: str
    colour: tuple[float, float, float]
    spans: tuple[Span, ...]
    radius: float
    x: float
    y: float
    reach_x: float
    reach_y: float
    speed_hz: float
    phase: float
    spin_hz: float


@dataclass(frozen=True, kw_only=True)
class Voice:
    """Something heard.

    Attributes:
        kind: number of the sound: 0 hum, 1 whistle, 2 rattle, 3 beeps.
        spans: when it is heard, ascending, half-open seconds on whole samples.
        level_db: its RMS against full scale.
        pitch: factor on its frequencies.
        pan: -1 left .. 1 right.
    """

    kind: int
    spans: tuple[Span, ...]
    level_db: float
    pitch: float
    pan: float


@dataclass(frozen=True, kw_only=True)
class Scene:
    """All that one video shows and sounds; the renderer needs nothing else.

    Attributes:
        id: the video's.
        duration_s: whole frames and samples.
        width_px, height_px: even.
        actors, voices: clutter first, so that objects lie in front.
        noise_db, noise_slope: RMS of the noise floor against full scale, and its fall in dB an octave.
        grain: amplitude of the camera's noise, 8-bit steps.
        seed: of texture and noise.
    """

    id: str
    duration_s: Fraction
    width_px: int
    height_px: int
    actors: tuple[Actor, ...]
    voices: tuple[Voice, ...]
    noise_db: float
    noise_slope: float
    grain: int
    seed: int
