"""Random vectors of planted benchmarks: prototypes, rotations, embeddings, slow noise, and the streams of chance.

K classes, D width, T segments.
"""

from __future__ import annotations

import hashlib

import numpy as np
from numpy.typing import NDArray

from catalog.dataset import SPLITS

Vectors = NDArray[np.float64]


def world_stream(seed: int, part: int) -> np.random.Generator:
    """The stream of one part of a world (prototypes, embedding); no part's draws move another's."""
    return np.random.default_rng([seed, part])


def video_stream(noise_seed: int, split: str, video_id: str) -> np.random.Generator:
    """The stream of one video; each split has its own family of them."""
    digest = hashlib.sha256(video_id.encode("utf-8")).digest()
    words = np.frombuffer(digest[:16], dtype="<u4").tolist()
    return np.random.default_rng([noise_seed, SPLITS.index(split), *words])


def unit(vectors: Vectors) -> Vectors:
    """`vectors` (..., D) with norm 1."""
    found: Vectors = vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)
    return found


def paired(rng: np.random.Generator, num_classes: int, width: int, *, first: int, factor: float) -> Vectors:
    """Prototypes (K, D) of norm 1, neighbours alike in pairs: first and first + 1, first + 2 and first + 3, ...

    The second of a pair is the first + factor * (what it was - the first). With 0 for one modality and 1 for the other
    neither alone can name a class.
    """
    drawn_KD = unit(rng.normal(size=(num_classes, width)))
    seconds = np.arange(first + 1, num_classes, 2)
    drawn_KD[seconds] = drawn_KD[seconds - 1] + factor * (drawn_KD[seconds] - drawn_KD[seconds - 1])
    return unit(drawn_KD)


def orthogonal(drawn: Vectors) -> Vectors:
    """The orthonormal columns of a QR decomposition whose R has a positive diagonal.

    LAPACK leaves the signs open: without them the decomposition of nearly the identity is nearly minus the identity.
    """
    q, r = np.linalg.qr(drawn)
    found: Vectors = q * np.sign(np.diag(r))
    return found


def embedding(seed: int, part: int, width: int, feature_width: int) -> Vectors:
    """(feature_width, width) with orthonormal columns; the identity where both are equal."""
    if feature_width == width:
        return np.eye(width)
    return orthogonal(world_stream(seed, part).normal(size=(feature_width, width)))


def autoregressive(rng: np.random.Generator, num_segments: int, width: int, *, keep: float, step: float) -> Vectors:
    """(T, D): x[0] normal, x[t] = keep * x[t - 1] + step * normal; of variance 1 where step² = 1 - keep²."""
    x_TD = rng.normal(size=(num_segments, width))
    for t in range(1, num_segments):
        x_TD[t] = keep * x_TD[t - 1] + step * x_TD[t]
    return x_TD
