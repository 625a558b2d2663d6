"""I3D of frames and of optical flow, and VGGish, out of their published checkpoints.

Shape suffixes: S segments, P frames a segment, F frames, N pairs of frames, B batch, T frames of a clip, H W pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from catalog.grid import sample_at
from catalog.recipe import Recipe
from pipeline.clips import Clips, Segments
from pipeline.encoder import Shapes
from pipeline.encoders.i3d_vggish.checkpoint import i3d, i3d_config
from pipeline.encoders.i3d_vggish.flow import pair_flows
from pipeline.encoders.i3d_vggish.recipes import SIDE_PX, STREAM_WIDTH, Settings, shapes, streams_of
from pipeline.networks.checkpoint import build, read_state
from pipeline.networks.i3d import I3d
from pipeline.networks.inference import FrozenTowers, frozen, in_batches
from pipeline.networks.raft import Raft
from pipeline.networks.vggish import Vggish
from pipeline.preprocess.frames import centre, first_held
from pipeline.preprocess.vggish_log_mel import EXAMPLE_SAMPLES, examples_at

# Windows go through I3D and pairs through RAFT so many at a time: 24 frames a window, an all-pairs correlation volume
# a pair.
BATCH_WINDOWS, BATCH_PAIRS, BATCH_EXAMPLES = 4, 8, 32


@dataclass(frozen=True, kw_only=True)
class I3dVggish(FrozenTowers):
    """The networks of a recipe; None where it has no such stream."""

    rgb: I3d | None
    flow: I3d | None
    raft: Raft | None
    vggish: Vggish | None

    def visual(self, segments: Sequence[Segments]) -> NDArray[np.float32]:
        """(n, D) of the streams, joined; video by video, since whole frames are of each video's own size."""
        return np.concatenate([self._streams(*one) for one in segments])

    def audio(self, segments: Sequence[Segments]) -> NDArray[np.float32]:
        """(n, 128)."""
        vggish = self.vggish
        assert vggish is not None
        inputs = [examples(*one) for one in segments]
        return in_batches(inputs, lambda x: self.forward(vggish, x), device=self.device, batch_size=BATCH_EXAMPLES)

    def _streams(self, clips: Clips, rows: NDArray[np.intp]) -> NDArray[np.float32]:
        assert self.recipe.video is not None
        slots = self.recipe.video.frames_per_segment
        index_SP = first_held(clips.frame_index_SP[rows])
        parts = []
        if self.rgb is not None:
            frames_FHWC = torch.from_numpy(np.ascontiguousarray(centre(clips.frames_FHWC, SIDE_PX)))

            def rgb(row: int) -> Tensor:
                frames_THWC = frames_FHWC[index_SP[row, :slots].astype(np.int64)].to(self.device)
                return 2 * frames_THWC.float().permute(3, 0, 1, 2) / 255 - 1

            parts.append(self._windows(self.rgb, len(rows), rgb))
        if self.flow is not None:
            pairs_SP2 = np.stack([index_SP[:, :slots], index_SP[:, 1 : slots + 1]], axis=-1)
            distinct_N2, index = np.unique(pairs_SP2.reshape(-1, 2), axis=0, return_inverse=True)
            pair_index_SP = index.reshape(len(rows), slots)
            flows_N2HW = self._flows(clips.frames_FHWC, distinct_N2)

            def flow(row: int) -> Tensor:
                return flows_N2HW[torch.from_numpy(pair_index_SP[row])].transpose(0, 1)

            parts.append(self._windows(self.flow, len(rows), flow))
        return np.concatenate(parts, axis=1)

    def _flows(self, frames_FHWC: NDArray[np.uint8 | np.float32], pairs_N2: NDArray[np.int32]) -> Tensor:
        assert self.raft is not None
        return pair_flows(
            self.raft,
            frames_FHWC,
            pairs_N2,
            iterations=Settings.of(self.recipe).flow_iterations,
            device=self.device,
            precision=self.recipe.precision,
            batch_pairs=BATCH_PAIRS,
        )

    def _windows(self, network: I3d, count: int, clip: Callable[[int], Tensor]) -> NDArray[np.float32]:
        """(count, D): `clip(row)` gives I3D's input of a window, (C, T, H, W) on the device."""
        parts = []
        for low in range(0, count, BATCH_WINDOWS):
            clips_BCTHW = torch.stack([clip(row) for row in range(low, min(low + BATCH_WINDOWS, count))])
            parts.append(self.forward(network, clips_BCTHW).float().cpu().numpy())
        return np.concatenate(parts)


def shapes_from(recipe: Recipe, weights: Mapping[str, Path]) -> Shapes:
    """Of one segment's features: the width is that of the streams' checkpoints.

    Raises:
        BadCheckpoint: a file is damaged or not I3D's.
    """
    visual, audio = shapes(recipe)
    if Settings.of(recipe).size == "from-weights":
        streams = streams_of(recipe)
        width = sum(i3d_config(weights[name])[1].features if name in weights else STREAM_WIDTH for name in streams)
        visual = (width,)
    return visual, audio


def load(weights: Mapping[str, Path], device: str, recipe: Recipe) -> I3dVggish:
    """The networks that `recipe` asks for, frozen.

    Raises:
        BadCheckpoint: a file is damaged or of another network or stream.
        ValueError: a checkpoint of other sizes than the published.
    """
    streams = streams_of(recipe)
    raft = vggish = None
    if "flow" in streams:
        path = weights["raft"]
        built = build(
            Raft, read_state(path, prefix="module."), where=f"{path}, RAFT", optional=("num_batches_tracked",)
        )
        raft = frozen(built, device)
    if recipe.audio is not None:
        path = weights["vggish"]
        vggish = frozen(build(Vggish, read_state(path), where=f"{path}, VGGish", ignore=("pproc.",)), device)
    nets = {name: i3d(weights[name], name, recipe, device) for name in streams}
    return I3dVggish(recipe=recipe, device=device, rgb=nets.get("rgb"), flow=nets.get("flow"), raft=raft, vggish=vggish)


def examples(clips: Clips, rows: NDArray[np.intp]) -> NDArray[np.float32]:
    """VGGish's examples of segments `rows`, (n, 1, 96, 64) float32; samples that are not real count as 0."""
    begins = [sample_at(clips.grid.start_s(clips.first + int(row)), clips.rate_hz) for row in rows]
    first, samples_N = begins[0], np.zeros(begins[-1] + EXAMPLE_SAMPLES - begins[0], np.float32)
    low = max(first, clips.samples_start)
    high = min(first + samples_N.size, clips.samples_start + clips.samples_N.size)
    if low < high:
        there = slice(low - clips.samples_start, high - clips.samples_start)
        real_N, given_N = clips.sample_valid_N[there], clips.samples_N[there]
        samples_N[low - first : high - first] = np.where(real_N, given_N, np.float32(0))
    return examples_at(samples_N, [begin - first for begin in begins])
