"""AudioCLIP checkpoints for tests: the official layout, seeded weights, whole or small."""

from __future__ import annotations

from pathlib import Path

import torch

from catalog.recipe import Recipe
from pipeline.networks.clip_resnet import ClipResNet
from pipeline.networks.clip_resnet import Config as ImageConfig
from pipeline.networks.clip_text import ClipText
from pipeline.networks.clip_text import Config as TextConfig
from pipeline.networks.esresnext import Config as AudioConfig
from pipeline.networks.esresnext import EsResNeXt
from pipeline.recipes import find_recipe

# The small one looks at 64 x 64 pictures, and its features have 32 numbers.
SMALL = {
    "settings.size": "from-weights",
    "video.height_px": "64",
    "video.width_px": "64",
    "video.frames_per_segment": "2",
}


def small_recipe(**more: str) -> Recipe:
    return find_recipe("audioclip-1s").changed(SMALL | more)


def write_small(path: Path, *, seed: int = 0) -> Path:
    """A whole AudioCLIP of small towers, in the published layout."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        parts = {
            "visual.": ClipResNet(ImageConfig(blocks=(1, 1, 1, 1), width=16, image_px=64, embedding=32)),
            "audio.": EsResNeXt(AudioConfig(blocks=(1, 1, 1, 1), width=16, groups=8, filters=257, embedding=32)),
            "": ClipText(TextConfig(width=64, layers=1, tokens=77, vocabulary=49408, embedding=32)),
        }
    state = {prefix + key: value for prefix, net in parts.items() for key, value in net.state_dict().items()}
    state |= {name: torch.tensor(2.659) for name in ("logit_scale", "logit_scale_ai", "logit_scale_at")}
    torch.save(state, path)
    return path
