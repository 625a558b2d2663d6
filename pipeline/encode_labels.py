"""Class names in, text features out: the vocabulary of an open-vocabulary head, in the space of a recipe's features.

Shape suffixes: K class names, D text width.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import cast

import numpy as np
from numpy.typing import NDArray

from catalog.recipe import Recipe
from pipeline.encode import GivenWeights
from pipeline.encoder import TextModule, encoder_module, encoder_names, encoder_spec
from pipeline.recipes import check_settings

# Texts that go through the text tower at once.
BATCH_TEXTS = 64


def encode_labels(
    names: Sequence[str],
    recipe: Recipe,
    weights: Mapping[str, Path],
    *,
    prompt: str = "{}",
    device: str = "cpu",
) -> NDArray[np.float32]:
    """The text features of class names.

    Args:
        names: distinct, not empty; the order is kept.
        recipe: whose encoder has a text tower; its settings and precision hold for the text too.
        weights: asset name -> file, those of use "text" included.
        prompt: what is encoded, with `{}` where the name goes. OV-AVEL and AVE-CLIP encode the bare name.
        device: "cpu" or "cuda".

    Returns:
        (K, D) float32, as the published `encode_text` gives them (ImageBind: unit vectors times the text scale).

    Raises:
        ValueError: names empty or repeated, no `{}` in the prompt, an encoder without text tower, an asset that is not
            given, or a text that its tokenizer refuses.
    """
    if not names or len(set(names)) != len(names) or not all(name.strip() for name in names):
        raise ValueError(f"label features need distinct class names that are not empty, got {list(names)[:5]}")
    if prompt.count("{}") != 1:
        raise ValueError(f"a prompt needs {{}} once, where the class name goes, got {prompt!r}")
    check_settings(recipe)
    if encoder_spec(recipe.encoder).text_width is None:
        having = [name for name in encoder_names() if encoder_spec(name).text_width is not None]
        raise ValueError(
            f"recipe {recipe.name}: encoder {recipe.encoder} has no text tower; those with one: {', '.join(having)}"
        )
    module = cast(TextModule, encoder_module(recipe.encoder))
    encode = module.load_text(GivenWeights(recipe, weights), device, recipe)
    texts = [prompt.replace("{}", name) for name in names]
    parts = [encode(texts[low : low + BATCH_TEXTS]) for low in range(0, len(texts), BATCH_TEXTS)]
    features_KD = np.concatenate(parts).astype(np.float32)
    if features_KD.ndim != 2 or len(features_KD) != len(names) or not np.isfinite(features_KD).all():
        raise RuntimeError(
            f"encoder {recipe.encoder} gave text features {features_KD.shape} that are not finite (K, D)"
        )
    return features_KD
