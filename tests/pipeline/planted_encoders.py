"""Encoders planted as real plug-in files in a second folder."""

from __future__ import annotations

from pathlib import Path

from pipeline import encoder, recipes

# Visual: the mean of each frame's first value, the segment's place in its call, how many segments the call had.
# Audio: first and last sample that the piece holds around the segment's window, context included.
PLUGIN = """
from dataclasses import replace
from fractions import Fraction
import numpy as np
from catalog.grid import GridRule, sample_at
from catalog.recipe import AudioSampling, Recipe, VideoSampling
from pipeline.encoder import EncoderSpec
from catalog.store.modal import Features, Modal
from pipeline.weights.asset import Asset

SPEC = EncoderSpec(name="{name}", visual_shape=(3,), audio_shape=(2,), assets={assets},
                   licence="none", citation="none", batch_segments=4)
PRESETS = (Recipe(name="{preset}", encoder="{name}", grid=GridRule(window_s=Fraction(1), hop_s=Fraction(1, 2)),
                  video=VideoSampling(frames_per_segment=2, height_px=8, width_px=8),
                  audio=AudioSampling(rate_hz=1000, context_s=Fraction(1, 10)), settings={{"depth": 1}}),)

def load(weights, device, recipe):
    return recipe

def encode(net, clips):
    total, place, out = sum(item.count for item in clips), 0, []
    for item in clips:
        visual, audio = [], []
        for row in range(item.count):
            frames = item.frames_FHWC[item.frame_index_SP[row], 0, 0, 0]
            visual.append([frames.mean(), place, total])
            start = sample_at(item.grid.start_s(item.first + row) - net.audio.context_s, 1000) - item.samples_start
            stop = sample_at(item.grid.end_s(item.first + row) + net.audio.context_s, 1000) - item.samples_start
            heard = item.samples_N[max(start, 0):stop]
            audio.append([heard[0], heard[-1]])
            place += 1
        yes = np.ones(item.count, bool)
        out.append(Features(visual=Modal(values=np.array(visual, np.float32), valid=yes),
                            audio=Modal(values=np.array(audio, np.float32), valid=yes)))
    return {result}

def changed(features, name, **fields):
    return replace(features, **{{name: replace(getattr(features, name), **fields)}})
"""


def clear() -> None:
    encoder.encoder_module.cache_clear()
    recipes._presets.cache_clear()


def write(
    folder: Path, name: str, *, result: str = "out", preset: str | None = None, needs_weights: bool = False
) -> None:
    assets = '(Asset(name="tiny", filename="tiny.pt", url=None, licence="none"),)' if needs_weights else "()"
    text = PLUGIN.format(name=name, preset=preset or f"{name}-1s", result=result, assets=assets)
    (folder / f"{name}.py").write_text(text, encoding="utf-8")
