"""What both LoCo heads are: the trunk, a decoder at the points of its pyramid, LCC's loss beside the output.

B batch, T segments, P points of all levels, O outputs of the decoder at a point, K classes.
"""

from __future__ import annotations

import dataclasses

from torch import Tensor

from catalog.store.modal import Modal
from heads.dense.decoder import DenseDecoder
from heads.dense.head import DenseHead
from heads.dense.output import DenseOutput
from heads.features import FeatureBatch
from heads.models.loco.trunk import LocoConfig, LocoTrunk


class LocoHead(DenseHead):
    """Features of audio and frames to logits and offsets at the points of a pyramid.

    Args:
        config: of the architecture.
        outputs: O, what `logits` makes classes of.
    """

    config: LocoConfig

    def __init__(self, config: LocoConfig, outputs: int) -> None:
        super().__init__(config)
        self.trunk = LocoTrunk(config)
        self.decoder = DenseDecoder(
            self.trunk.out_width,
            outputs,
            levels=config.levels,
            class_aware=config.regression == "class_aware",
            hidden=config.width,
        )

    @property
    def alignment(self) -> int:
        """As `DenseHead.alignment`; base windows that move themselves lie at fixed places."""
        return super().alignment * (self.config.window if self.config.cross == "cdp" else 1)

    def logits(self, raw_BPO: Tensor) -> Tensor:
        """(B, P, K) of what the decoder says of the classes; 0 stays 0."""
        return raw_BPO

    def scalars(self) -> dict[str, float]:
        """LCC's standard deviation, in grid steps, and temperature as they stand; nothing without LCC."""
        lcc = self.trunk.lcc
        return {} if lcc is None else {"lcc_sigma": lcc.sigma, "lcc_tau": lcc.tau}

    def fit_statistics(self, visual: Modal | None, audio: Modal | None) -> None:
        """Take the standardisation, if wanted, from the training split."""
        self.trunk.fit_statistics(visual, audio)

    def forward(self, batch: FeatureBatch) -> DenseOutput:
        """As `DenseHead`, over T padded to a multiple of 2^(levels - 1)."""
        levels, loss = self.trunk(batch)
        output: DenseOutput = self.decoder([level.x_BTF for level in levels], [level.mask_BT for level in levels])
        return dataclasses.replace(output, logits_BPK=self.logits(output.logits_BPK), auxiliary=loss)
