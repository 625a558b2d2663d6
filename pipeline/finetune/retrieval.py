"""Cross-modal retrieval: how often the right audio is among the nearest to an image, and the other way round."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


def recall_at(
    image_ND: NDArray[np.floating], audio_ND: NDArray[np.floating], ranks: Sequence[int] = (1, 5, 10)
) -> dict[str, float]:
    """R@k in both directions, by cosine.

    Args:
        image_ND, audio_ND: (N, D), row i of both from one event.
        ranks: the k; one above N counts as N.

    Returns:
        {"image_to_audio_r1": ..., "audio_to_image_r1": ..., ...}, shares in [0, 1]. A partner that ties with others
        is as far down as it could be: equal features are no retrieval.

    Raises:
        ValueError: shapes do not fit, nothing in them, or not finite.
    """
    if image_ND.ndim != 2 or image_ND.shape != audio_ND.shape or not len(image_ND):
        raise ValueError(f"retrieval needs as many images as sounds, got {image_ND.shape} and {audio_ND.shape}")
    if not (np.isfinite(image_ND).all() and np.isfinite(audio_ND).all()):
        raise ValueError("retrieval needs finite features; some are NaN or infinite")
    similarity_NN = _unit(image_ND) @ _unit(audio_ND).T
    own_N = np.diagonal(similarity_NN)
    better = {
        "image_to_audio": (similarity_NN >= own_N[:, None]).sum(axis=1) - 1,
        "audio_to_image": (similarity_NN >= own_N[None, :]).sum(axis=0) - 1,
    }
    return {f"{way}_r{k}": float((rank_N < k).mean()) for way, rank_N in better.items() for k in ranks}


def chance(num_pairs: int, ranks: Sequence[int] = (1, 5, 10)) -> dict[str, float]:
    """What guessing gives: k / N."""
    return {f"r{k}": min(1.0, k / num_pairs) for k in ranks}


def _unit(values_ND: NDArray[np.floating]) -> NDArray[np.float64]:
    values_ND = values_ND.astype(np.float64)
    length_N1 = np.linalg.norm(values_ND, axis=1, keepdims=True)
    return np.asarray(values_ND / np.maximum(length_N1, 1e-12))
