"""Cosine similarity of audio and frames of one video at each pair of times, which a correspondence loss makes vary.

    S_ij = cosine of the visual feature at i and the audio one at j        one video
    mean of std = mean over videos of the standard deviation of S           a split

A greater mean of std means features that distinguish times. LoCo's paper draws S before and after its unimodal encoders
and finds that LCC raises the mean.

Readings of what the paper leaves open: "encoded" is what its figure shows by its words; the encoders' outputs meet in
one space only behind LCC's own maps, so "common" says more of LCC, and needs a head that has it. The standard deviation
is the population's over all pairs of a video's segments that have the modality. Before the encoders both features must
be of one width.

T segments, V of them with a visual feature, A with an audio one, C width.

Source: the LoCo paper (locality-aware cross-modal correspondence learning for dense audio-visual events localization),
figure 4, section 4.5.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from heads.data.device import DeviceSplit
from heads.data.split import Split
from heads.features import FeatureBatch
from heads.models.loco.trunk import LocoTrunk
from heads.spec import inference

Stage = Literal["raw", "encoded", "common"]


@dataclass(frozen=True, kw_only=True)
class MeanOfStd:
    """Of a split.

    Attributes:
        mean: mean over videos of the standard deviation of their matrix.
        std_by_item: of each video that has both modalities, by the item's id.
    """

    mean: float
    std_by_item: dict[str, float]


def cross_similarity(
    head: nn.Module | None, split: Split, item: int, *, stage: Stage = "encoded", device: str = "cpu"
) -> NDArray[np.float32]:
    """(V, A) float32 cosines of one item: rows are times of the frames, columns of the audio.

    Args:
        head: a head with LoCo's trunk, of which the parameters are used as they stand; None for raw features.
        item: its number in the split.
        stage: "raw" the features as stored, "encoded" after the unimodal encoders, "common" in LCC's own space.

    Raises:
        ValueError: the item lacks a modality, the head has no such stage, or raw features differ in width.
    """
    trunk = _trunk(head, stage)
    batch = _batch(DeviceSplit(split, None, device), split, item, device)
    with torch.inference_mode():
        visual_TC, audio_TC = _features(trunk, batch, stage)
    valid = (batch.visual_valid_BT[0], batch.audio_valid_BT[0])
    if not all(bool(valid_T.any()) for valid_T in valid):
        raise ValueError(f"{split.items[item].id}: similarity needs features of both modalities, one has none")
    visual_VC, audio_AC = (
        F.normalize(x_TC[valid_T], dim=-1) for x_TC, valid_T in zip((visual_TC, audio_TC), valid, strict=True)
    )
    similarity_VA: NDArray[np.float32] = (visual_VC @ audio_AC.T).float().cpu().numpy()
    return similarity_VA


def mean_of_std(
    head: nn.Module | None,
    split: Split,
    *,
    stage: Stage = "encoded",
    items: Iterable[int] | None = None,
    device: str = "cpu",
) -> MeanOfStd:
    """The figure over a split; items that lack a modality are left out.

    Args:
        items: numbers in the split; None takes all that have features.

    Raises:
        ValueError: as `cross_similarity`, or no item has both modalities.
    """
    trunk = _trunk(head, stage)
    data = DeviceSplit(split, None, device)
    found: dict[str, float] = {}
    for item in split.present.tolist() if items is None else items:
        batch = _batch(data, split, item, device)
        if bool(batch.visual_valid_BT.any()) and bool(batch.audio_valid_BT.any()):
            with torch.inference_mode():
                features = _features(trunk, batch, stage)
            found[split.items[item].id] = _std(*features, batch.visual_valid_BT[0], batch.audio_valid_BT[0])
    if not found:
        raise ValueError(f"no item of {split.name} has features of both modalities")
    return MeanOfStd(mean=float(np.mean(list(found.values()))), std_by_item=found)


def _std(visual_TC: Tensor, audio_TC: Tensor, visual_valid_T: Tensor, audio_valid_T: Tensor) -> float:
    """Standard deviation of all cosines, without the matrix of them: their mean and mean square are sums over C.

    sum_ij S_ij = (sum v)(sum a), sum_ij S_ij^2 = <V^T V, A^T A>: linear in T also for videos of hours.
    """
    visual_VC = F.normalize(visual_TC[visual_valid_T].double(), dim=-1)
    audio_AC = F.normalize(audio_TC[audio_valid_T].double(), dim=-1)
    pairs = len(visual_VC) * len(audio_AC)
    mean = visual_VC.sum(dim=0) @ audio_AC.sum(dim=0) / pairs
    square = ((visual_VC.T @ visual_VC) * (audio_AC.T @ audio_AC)).sum() / pairs
    return float((square - mean**2).clamp(min=0).sqrt())


def _trunk(head: nn.Module | None, stage: Stage) -> LocoTrunk | None:
    if stage not in ("raw", "encoded", "common"):
        raise ValueError(f"stage must be raw, encoded or common, got {stage!r}")
    if stage == "raw":
        return None
    trunk = getattr(head, "trunk", None)
    if not isinstance(trunk, LocoTrunk) or len(trunk.config.streams) != 2:
        raise ValueError(
            f"stage {stage} needs a head with encoders of audio and frames (loco, loco_texts, with both modalities), "
            f"got {type(head).__name__}; raw features need none"
        )
    if stage == "common" and trunk.lcc is None:
        raise ValueError("stage common is the space of LCC, and this head was made without; take encoded")
    return trunk


def _batch(data: DeviceSplit, split: Split, item: int, device: str) -> FeatureBatch:
    length = int(split.mask_NT[item].sum())
    if not length:
        raise ValueError(f"{split.items[item].id}: has no features ({split.absent.get(split.items[item].id, 'empty')})")
    one, start, count = (torch.tensor([value], device=device) for value in (item, 0, length))
    return data.crops(one, start, count)


def _features(trunk: LocoTrunk | None, batch: FeatureBatch, stage: Stage) -> tuple[Tensor, Tensor]:
    """Both modalities' (T, C) of a batch of one item."""
    visual, audio = batch.visual, batch.audio
    if visual is None or audio is None:
        raise ValueError("similarity needs features of audio and frames; this recipe has one of them")
    if trunk is None:
        visual_TC, audio_TC = (x[0] if x.ndim == 3 else x[0].flatten(1, -2).mean(dim=1) for x in (visual, audio))
        if visual_TC.shape[1] != audio_TC.shape[1]:
            raise ValueError(
                f"raw features need one width, got {visual_TC.shape[1]} and {audio_TC.shape[1]}; take stage encoded"
            )
        return visual_TC, audio_TC
    with inference(trunk):
        streams = trunk.encoded(batch)
    visual_BTC, audio_BTC = streams["visual"], streams["audio"]
    if stage == "common":
        assert trunk.lcc is not None, "_trunk has looked"
        visual_BTC, audio_BTC = trunk.lcc.project(visual_BTC, audio_BTC)
    return visual_BTC[0], audio_BTC[0]
