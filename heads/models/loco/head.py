"""LoCo: local correspondence of audio and frames finds events with a start and an end of their own.

    levels = trunk(visual, audio)                                       heads.models.loco.trunk, lcc, cdp, pyramid
    logits, offsets = three convolutions each, shared by the levels     (B, P, K), (B, P, K, 2)
    loss = (focal + IoU loss) / normaliser + 0.1 LCC                    (equation 9)

The paper's IoU loss is GIoU (`iou_loss="giou"`, in one dimension 1 - IoU); the default is DIoU, which is what the code
base that it builds on computes under that name.

No code was ever published; what the paper leaves open and how it is read here stands in the blocks. Training needs
O((B T)^2) for LCC's matrix; all else is linear in T, but for global attention where it is asked for.

B batch, T segments, P points of all levels, K classes, C = K (class-aware regression) or 1.

Source: the LoCo paper (locality-aware cross-modal correspondence learning for dense audio-visual events localization).
"""

from __future__ import annotations

from heads.models.loco.base import LocoHead
from heads.models.loco.trunk import TRAINING, LocoConfig
from heads.spec import HeadSpec

SPEC = HeadSpec(
    summary="LoCo: local correspondence of audio and frames, windows that move themselves; dense events",
    task="events",
    pools_places=True,
    training=TRAINING,
)


class Loco(LocoHead):
    """Features of audio and frames to logits and offsets at the points of a pyramid."""

    Config = LocoConfig

    def __init__(self, config: LocoConfig) -> None:
        super().__init__(config, config.num_classes)


Head = Loco
