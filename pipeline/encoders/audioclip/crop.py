"""A clip of a given length out of audio of any length, as AudioCLIP's published evaluation takes it.

Source: github.com/AndreyGuzhov/AudioCLIP, its transforms for evaluation.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def evaluation_crop(samples_N: NDArray[np.float32], size: int) -> NDArray[np.float32]:
    """A clip of exactly `size` samples, by the rule of the published 5 s evaluation.

    Shorter audio is padded on both sides with its first and its last value, itself in the centre. Of a longer one the
    centre is taken, unless its deviation is under half of the whole's: then the start; the end only where that is
    above the start's and the centre's and still under half. So a lone burst at the very end gives a silent crop.
    """
    missing = size - samples_N.size
    if missing > 0:
        before = missing // 2
        return np.pad(samples_N, (before, missing - before), mode="edge")
    start = -missing // 2
    centre, first, last = samples_N[start : start + size], samples_N[:size], samples_N[samples_N.size - size :]
    enough = samples_N.std() / 2
    if centre.std() >= enough:
        return centre
    if first.std() < enough and centre.std() < last.std() < enough:
        return last
    return first
