"""Encoders planted as real plug-in files in a second folder."""

from __future__ import annotations

from pathlib import Path

from pipeline import encoder, recipes

# Visual: the mean of each frame's first value, the segment's place in its call, how many segments the call had.
# Audio: first and last sample that the piece holds around the segment's window, context included.
PLUGIN = """
from fractions import Fraction
import numpy as np
from catalog.grid import GridRule, sample_at
from catalog.recipe import AudioSampling, Recipe, VideoSampling
from pipeline.encoder import EncoderSpec
from pipeline.weights.asset import Asset

SPEC = EncoderSpec(name="{name}", visual_shape=(3,), audio_shape=(2,), assets={assets},
                   licence="none", citation="none", batch_segments=4)
PRESETS = (Recipe(name="{preset}", encoder="{name}", grid=GridRule(window_s=Fraction(1), hop_s=Fraction(1, 2)),
                  video=VideoSampling(frames_per_segment=2, height_px=8, width_px=8),
                  audio=AudioSampling(rate_hz=1000, context_s=Fraction(1, 10)), settings={{"depth": 1}}),)

class Towers:
    def __init__(self, recipe):
        self.recipe = recipe

    def visual(self, segments):
        total = sum(len(rows) for _, rows in segments)
        made = []
        for clips, rows in segments:
            for row in rows:
                frames = clips.frames_FHWC[clips.frame_index_SP[row], 0, 0, 0]
                made.append([frames.mean(), len(made), total])
        out = np.array(made, np.float32)
        return {visual}

    def audio(self, segments):
        made = []
        context_s = self.recipe.audio.context_s
        for clips, rows in segments:
            for row in rows:
                start = sample_at(clips.grid.start_s(clips.first + row) - context_s, 1000) - clips.samples_start
                stop = sample_at(clips.grid.end_s(clips.first + row) + context_s, 1000) - clips.samples_start
                heard = clips.samples_N[max(start, 0):stop]
                made.append([heard[0], heard[-1]])
        out = np.array(made, np.float32)
        return {audio}

def load(weights, device, recipe):
    return Towers(recipe)
"""


def clear() -> None:
    encoder.declaration.cache_clear()
    recipes._presets.cache_clear()


def write(
    folder: Path,
    name: str,
    *,
    visual: str = "out",
    audio: str = "out",
    preset: str | None = None,
    needs_weights: bool = False,
) -> None:
    assets = '(Asset(name="tiny", filename="tiny.pt", url=None, licence="none"),)' if needs_weights else "()"
    text = PLUGIN.format(name=name, preset=preset or f"{name}-1s", visual=visual, audio=audio, assets=assets)
    (folder / f"{name}.py").write_text(text, encoding="utf-8")
