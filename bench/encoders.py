"""Encoders of published size: speed, share of the machine's matrix-product rate, and what reduced precision costs.

Each tower (pictures, sound) is loaded by itself with seeded random weights (`bench.random_weights`) and encodes
segments of made-up videos by its preset, as extraction does: preparing frames and mel spectrograms is in the time. FLOP
are counted on the real call, 2 for a multiplication and an addition, and only those of products, convolutions and
attention within torch. Precisions and a large square matrix product of each take turns; the best time of each counts.

Rounding hangs on weights: the published ones may round better or worse than random ones. Random networks give segments
features that lie close together, so beside the cosine stands the error against the spread: the root mean square of
the error over that of the features' distances from their mean over the segments.
"""

from __future__ import annotations

import platform
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from bench import random_weights
from bench.encoder_report import Report, Row, measurements
from bench.measurement import Measurement
from catalog.datasets import synthetic
from catalog.recipe import Recipe
from catalog.store.modal import Features
from catalog.video import Video
from pipeline.clips import Clips
from pipeline.encode import Encoder, load_encoder
from pipeline.encoder import encoder_names, encoder_presets, encoder_spec
from pipeline.networks.inference import arithmetic
from pipeline.render import render
from pipeline.sandbox.parent import Sandbox

ABOUT = "towers of published size with random weights: segments/s, share of the matrix-product rate, rounding"

SEGMENTS_A_VIDEO = 4
_MATRIX = {"cpu": 2048, "cuda": 8192}
_SMALL_MATRIX, _SMALL_FRAMES = 256, 2
_ROUNDS = 5
# Segments that the norms' statistics come from.
_CALIBRATION = 16
# Of a tower's time, at least, though making weights, counting and warming up have taken more than the rest.
_TIMED_SHARE = 0.2


@dataclass(frozen=True, kw_only=True)
class Options:
    """What to run.

    Attributes:
        encoders: names; empty means all with weights.
        device: "cpu" or "cuda".
        precisions: float32 is run in any case, as what the others are compared with; empty means all that suit.
        segments: the most to encode at a time.
        seconds: what the whole may take, about; slow towers encode fewer segments, at least one.
        compile: let torch compile the networks first.
        small: networks of a few layers, where they have sizes, and two frames a segment; for tests.
    """

    encoders: tuple[str, ...] = ()
    device: str = "cpu"
    precisions: tuple[str, ...] = ()
    segments: int = 32
    seconds: float = 480.0
    compile: bool = False
    small: bool = False

    def __post_init__(self) -> None:
        if self.segments < 1 or self.seconds <= 0:
            raise ValueError(f"the bench needs at least 1 segment and more than 0 seconds, got {self}")
        for name in self.encoders:
            if name not in encoder_names() or not encoder_spec(name).needs_weights:
                raise ValueError(f"no encoder with weights is called {name!r}; there are {', '.join(_with_weights())}")

    @property
    def all_precisions(self) -> tuple[str, ...]:
        """float32, then those it is compared with."""
        wanted = self.precisions or (("bfloat16",) if self.device == "cpu" else ("bfloat16", "float16"))
        return ("float32", *(name for name in dict.fromkeys(wanted) if name != "float32"))


def measure(folder: Path, options: Options | None = None) -> list[Measurement]:
    """The report's figures, rounding held to its limit."""
    return measurements(report(folder, options or Options()))


def report(folder: Path, options: Options) -> Report:
    """Runs every tower of `options`.

    Raises:
        ValueError: there is no such device here.
    """

    if options.device == "cuda" and not torch.cuda.is_available():
        raise ValueError("there is no CUDA device here; leave --device out to measure on the CPU")
    began_s = time.perf_counter()
    names = options.encoders or _with_weights()
    towers = [(name, tower, recipe) for name in names for tower, recipe in _towers(name)]
    videos = _videos(max(options.segments, _CALIBRATION), folder)
    rows: list[Row] = []
    for i, (name, tower, recipe) in enumerate(towers):
        if name not in random_weights.encoders():
            why = "no weights of published size can be made for it"
            rows += [Row(encoder=name, tower=tower, precision=p, skipped=why) for p in options.all_precisions]
            continue
        spent_s = time.perf_counter() - began_s
        to_do = sum(later in random_weights.encoders() for later, _, _ in towers[i:])
        allowed_s = max(options.seconds - spent_s, 0) / to_do
        place = folder / f"{name}-{tower}"
        place.mkdir()
        rows += _measure_tower(recipe, tower, videos, place, options, allowed_s)
    return Report(
        device=torch.cuda.get_device_name() if options.device == "cuda" else f"cpu {platform.machine()}",
        threads=torch.get_num_threads(),
        torch=torch.__version__,
        compiled=options.compile,
        seconds=time.perf_counter() - began_s,
        rows=tuple(rows),
    )


def _with_weights() -> tuple[str, ...]:
    return tuple(name for name in encoder_names() if encoder_spec(name).needs_weights)


def _towers(name: str) -> Iterator[tuple[str, Recipe]]:
    """Each tower of the encoder's first preset, alone."""
    preset = encoder_presets(name)[0]
    if preset.video is not None:
        yield "visual", replace(preset, name=f"{preset.name}-visual", audio=None)
    if preset.audio is not None:
        yield "audio", replace(preset, name=f"{preset.name}-audio", video=None)


def _measure_tower(
    recipe: Recipe,
    tower: str,
    videos: Sequence[Video],
    folder: Path,
    options: Options,
    allowed_s: float,
) -> list[Row]:
    until_s = time.perf_counter() + allowed_s
    if options.small:
        recipe = random_weights.small_recipe(recipe, frames=_SMALL_FRAMES)
    clips = _clips(recipe, videos)
    weights = random_weights.write(recipe.encoder, tower, folder, small=options.small)
    whole = load_encoder(recipe, weights, options.device)
    random_weights.calibrate(_networks(whole), lambda: whole.encode(_one_frame_each(_first(clips, _CALIBRATION))))
    one = _first(clips, 1)
    flop, float32_s = _flop(whole, one)
    gflop = flop / 1e9
    encoders = {precision: _in_precision(whole, precision) for precision in options.all_precisions}
    if options.compile:
        for network in _networks(whole):
            network.compile()
    # What runs first pays for kernels that are made then: the count of segments errs on the short side.
    round_s = sum(
        float32_s if name == "float32" and not options.compile else _spent_s(encoder, one)
        for name, encoder in encoders.items()
    )
    left_s = max(until_s - time.perf_counter(), allowed_s * _TIMED_SHARE)
    count = min(max(int(left_s / round_s / 2), 1), options.segments)
    given = _first(clips, count)
    size = _SMALL_MATRIX if options.small else _MATRIX[options.device]
    best_s, matmul_s, made = _best_of_rounds(
        encoders, given, lambda name: _matmul_s(name, options.device, size), left_s
    )
    return [
        Row(
            encoder=recipe.encoder,
            tower=tower,
            precision=precision,
            segments=count,
            segments_per_s=count / best_s[precision],
            gflop_per_segment=gflop,
            gflop_per_s=gflop * count / best_s[precision],
            matmul_gflop_per_s=2 * size**3 / matmul_s[precision] / 1e9,
            **({} if precision == "float32" else _errors(made[precision], made["float32"])),
        )
        for precision in encoders
    ]


def _best_of_rounds(
    encoders: dict[str, Encoder], clips: Sequence[Clips], matmul_s: Callable[[str], float], allowed_s: float
) -> tuple[dict[str, float], dict[str, float], dict[str, NDArray[np.float64]]]:
    """Least seconds of each encoder and of its matrix product over the rounds that fit, and its features (S, D)."""
    began_s = time.perf_counter()
    best_s, best_matmul_s = (dict.fromkeys(encoders, float("inf")) for _ in range(2))
    made = {}
    for done in range(_ROUNDS):
        spent_s = time.perf_counter() - began_s
        if done and spent_s * (done + 1) / done > allowed_s:
            break
        for precision, encoder in encoders.items():
            best_matmul_s[precision] = min(best_matmul_s[precision], matmul_s(precision))
            turn_s = time.perf_counter()
            features = encoder.encode(clips)
            best_s[precision] = min(best_s[precision], time.perf_counter() - turn_s)
            made[precision] = np.concatenate([_rows(item) for item in features])
            best_matmul_s[precision] = min(best_matmul_s[precision], matmul_s(precision))
    return best_s, best_matmul_s, made


def _matmul_s(precision: str, device: str, size: int) -> float:
    """Seconds of the product of two square matrices, the best of three."""

    dtype = getattr(torch, precision)
    a, b = (torch.ones(size, size, device=device, dtype=dtype) for _ in range(2))
    best_s = float("inf")
    with arithmetic(device, "float32"):
        for _ in range(3):
            began_s = time.perf_counter()
            # One number of it comes back, so a GPU has finished.
            (a @ b)[0, 0].item()
            best_s = min(best_s, time.perf_counter() - began_s)
    return best_s


def _rows(features: Features) -> NDArray[np.float64]:
    """(S, D) of the one tower there is, valid rows alone."""
    ((_, modal),) = features.modalities()
    return modal.values[modal.valid].reshape(int(modal.valid.sum()), -1).astype(np.float64)


def _errors(got_SD: NDArray[np.float64], want_SD: NDArray[np.float64]) -> dict[str, Any]:
    cosine_S = (got_SD * want_SD).sum(1) / (np.linalg.norm(got_SD, axis=1) * np.linalg.norm(want_SD, axis=1))
    error_SD = got_SD - want_SD
    spread = np.sqrt(np.mean((want_SD - want_SD.mean(0)) ** 2))
    return {
        "min_cosine": float(cosine_S.min()),
        "mean_cosine": float(cosine_S.mean()),
        "max_abs_error": float(np.abs(error_SD).max()),
        "error_to_spread": float(np.sqrt(np.mean(error_SD**2)) / spread) if len(want_SD) > 1 else None,
    }


def _videos(segments: int, folder: Path) -> list[Video]:
    """Made-up videos that hold so many segments."""

    count = -(-segments // SEGMENTS_A_VIDEO)
    made = []
    for scene in synthetic.plan(synthetic.Settings(layout="ave", videos=count, seed=0), folder).scenes:
        path = folder / f"{scene.id}.mp4"
        render(scene, path)
        made.append(Video(id=scene.id, uri=str(path)))
    return made


def _clips(recipe: Recipe, videos: Sequence[Video]) -> list[Clips]:
    """The first segments of each video, decoded as the recipe says."""

    made: list[Clips] = []
    with Sandbox() as sandbox:
        for video in videos:
            whole = [item[1] for item in sandbox.decode(video, video.uri, [recipe]) if isinstance(item, tuple)]
            made += _first(whole, SEGMENTS_A_VIDEO)
    return made


def _one_frame_each(clips: Sequence[Clips]) -> list[Clips]:
    """Clips whose segments show their first frame all the time, which is encoded once."""
    made = []
    for item in clips:
        index_SP = item.frame_index_SP
        made.append(replace(item, frame_index_SP=np.repeat(index_SP[:, :1], index_SP.shape[1], axis=1)))
    return made


def _first(clips: Sequence[Clips], count: int) -> list[Clips]:
    """Those of the first `count` segments."""
    made = []
    for item in clips:
        if count > 0:
            made.append(replace(item, frame_index_SP=item.frame_index_SP[:count]))
        count -= item.count
    return made


def _flop(encoder: Encoder, clips: Sequence[Clips]) -> tuple[int, float]:
    """FLOP of a call, and its seconds."""

    # torch counts its GPU kernels of attention and not the one for CPUs.
    on_cpu = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
    counter = FlopCounterMode(display=False, custom_mapping={on_cpu: _attention_flop})
    with counter:
        spent_s = _spent_s(encoder, clips)
    return int(counter.get_total_flops()), spent_s


def _attention_flop(
    query: Sequence[int], key: Sequence[int], value: Sequence[int], *_: object, **__: object
) -> int:  # by torch's protocol: shapes, and whatever else the kernel takes
    batch, heads, queries, width = query
    return 2 * batch * heads * queries * key[2] * (width + value[3])


def _networks(encoder: Encoder) -> list[nn.Module]:
    return list(_networks_in(encoder.towers))


def _networks_in(held: object) -> Iterator[nn.Module]:
    """Those of a dataclass, and of the dataclasses that it holds."""

    if isinstance(held, nn.Module):
        yield held
    elif is_dataclass(held):
        for field in fields(held):
            yield from _networks_in(getattr(held, field.name))


def _in_precision(encoder: Encoder, precision: str) -> Encoder:
    """The same networks under the recipe with another precision: two copies of the largest would not fit a laptop."""
    recipe = encoder.recipe.changed({"precision": precision})
    towers = cast(Any, encoder.towers)
    assert towers.recipe == encoder.recipe
    return replace(encoder, recipe=recipe, towers=replace(towers, recipe=recipe))


def _spent_s(encoder: Encoder, clips: Sequence[Clips]) -> float:
    began_s = time.perf_counter()
    encoder.encode(clips)
    return time.perf_counter() - began_s
