"""Clips in, features out: loads a recipe's encoder, cuts its batches, and checks what it takes and gives.

The batches follow from the clips given and from nothing else: segments in order, cut at every multiple of the encoder's
`batch_segments`.

Shape suffixes: S segments, P frames a segment, N audio samples.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from catalog.grid import sample_at
from catalog.recipe import Recipe
from catalog.store.modal import Features, Modal
from pipeline.clips import Clips
from pipeline.encoder import EncoderSpec, Towers, assets_of, encoder_module, encoder_spec
from pipeline.preprocess import spectrogram
from pipeline.recipes import check_settings, feature_shapes


@dataclass(frozen=True, kw_only=True)
class Encoder:
    """A loaded encoder: frozen, on its device, ready for clips of its recipe.

    Attributes:
        spec: what it declares.
        recipe: what it was loaded for.
        towers: what its `load` gave.
        visual_shape, audio_shape: of one segment's feature under this recipe and these weights.
    """

    spec: EncoderSpec
    recipe: Recipe
    towers: Towers
    visual_shape: tuple[int, ...] | None
    audio_shape: tuple[int, ...] | None

    def encode(self, clips: Sequence[Clips]) -> list[Features]:
        """The features of `clips`; see `encode_clips`."""
        return encode_clips(clips, self)


def load_encoder(recipe: Recipe, weights: Mapping[str, Path] | None = None, device: str = "cpu") -> Encoder:
    """Loads the recipe's encoder.

    Args:
        recipe: a preset, or a changed one.
        weights: asset name -> file; see `pipeline.weights.folder.resolve`. None for an encoder that needs none.
        device: "cpu", "cuda" or "cuda:N".

    Raises:
        ValueError: no such encoder, settings unknown to it, or weights missing, not wanted or damaged.
    """
    check_settings(recipe)
    given = _wanted_weights(recipe, weights or {})
    visual_shape, audio_shape = feature_shapes(recipe, given)
    return Encoder(
        spec=encoder_spec(recipe.encoder),
        recipe=recipe,
        towers=encoder_module(recipe.encoder).load(given, device, recipe),
        visual_shape=visual_shape,
        audio_shape=audio_shape,
    )


def check_weights(recipe: Recipe, weights: Mapping[str, Path]) -> None:
    """Refuses files of another network than the recipe's encoder, by names and shapes.

    Of a folder of the transformers library the configuration is read: its model type, and what it says of widths.

    Args:
        weights: asset name -> file, as `pipeline.weights.folder.resolve` gives them.

    Raises:
        BadCheckpoint: a file is damaged or of another network, a folder of another model type.
        ValueError: of other sizes than the recipe says, or an asset is not given.
        OSError: it cannot be read.
    """
    feature_shapes(recipe, weights)
    assets = assets_of(recipe)
    if not assets or any(asset.is_folder for asset in assets):
        return
    from pipeline.networks.checkpoint import shapes_only  # torch

    # What an encoder makes of its numbers while it loads cannot be made here, and is no fault of the file: torch says
    # NotImplementedError or RuntimeError. Faults of the file are ValueErrors.
    with shapes_only(), contextlib.suppress(NotImplementedError, RuntimeError):
        encoder_module(recipe.encoder).load(GivenWeights(recipe, weights), "meta", recipe)


class GivenWeights(dict[str, Path]):
    """Asset name -> file, for an encoder; a missing one is an error that names it.

    Only the encoder knows which assets a recipe needs: a tower that is left out needs none.
    """

    def __init__(self, recipe: Recipe, weights: Mapping[str, Path]) -> None:
        super().__init__(weights)
        self._recipe = recipe

    def __missing__(self, name: str) -> Path:
        recipe = self._recipe
        asset = next((asset for asset in assets_of(recipe) if asset.name == name), None)
        if asset is None:
            raise KeyError(name)
        raise ValueError(
            f"recipe {recipe.name}: encoder {recipe.encoder} needs its asset {name} ({asset.filename}) too, "
            f"{', '.join(self) or 'none'} given; give it as {name}=PATH, see `avel weights show {recipe.encoder}`"
        )


def _wanted_weights(recipe: Recipe, weights: Mapping[str, Path]) -> Mapping[str, Path]:
    spec = encoder_spec(recipe.encoder)
    if spec.needs_weights and not weights:
        raise ValueError(
            f"recipe {recipe.name}: encoder {recipe.encoder} needs its checkpoint; "
            f"see `avel weights show {recipe.encoder}`"
        )
    known = {asset.name for asset in assets_of(recipe)}
    for name in weights:
        if name not in known:
            wanted = f"takes {', '.join(sorted(known))}" if known else "has no weights; leave them out"
            raise ValueError(f"recipe {recipe.name}: no weights {name!r} are wanted: encoder {recipe.encoder} {wanted}")
    return GivenWeights(recipe, weights)


def encode_clips(clips: Sequence[Clips], encoder: Encoder) -> list[Features]:
    """The features of `clips`, one `Features` for each, in order.

    Args:
        clips: of any videos; every segment of one recipe.
        encoder: for that recipe.

    Returns:
        float32 (or narrower) arrays (S, *shape); a row is NaN exactly where its modality is not valid.

    Raises:
        ValueError: clips of another rate or frame count than the recipe's.
        RuntimeError: the encoder broke its contract (shape, dtype, NaN); a bug in the plug-in.
    """
    for item in clips:
        _check_clips(item, encoder.recipe)
    parts: list[list[Features]] = [[] for _ in clips]
    for batch in batches(clips, encoder.spec.batch_segments, encoder.recipe):
        pieces = [piece for _, piece in batch]
        visual = _encode_tower(encoder, "visual", pieces)
        audio = _encode_tower(encoder, "audio", pieces)
        for (owner, _), seen, heard in zip(batch, visual, audio, strict=True):
            parts[owner].append(Features(visual=seen, audio=heard))
    return [Features.join(part) for part in parts]


def _encode_tower(
    encoder: Encoder, modality: Literal["visual", "audio"], pieces: Sequence[Clips]
) -> Sequence[Modal | None]:
    """One modality of each piece; None without such a tower."""
    is_visual = modality == "visual"
    shape = encoder.visual_shape if is_visual else encoder.audio_shape
    if shape is None:
        return [None] * len(pieces)
    valid = [(_seen if is_visual else _heard)(item, encoder.recipe) for item in pieces]
    segments = [(item, np.flatnonzero(valid_S)) for item, valid_S in zip(pieces, valid, strict=True) if valid_S.any()]
    total = sum(rows.size for _, rows in segments)
    made = np.empty((0, *shape), np.float32)
    if segments:
        made = encoder.towers.visual(segments) if is_visual else encoder.towers.audio(segments)
        try:
            Modal(values=np.asarray(made), valid=np.ones(total, np.bool_)).check(total, shape)
        except ValueError as error:
            where = f"encoder {encoder.spec.name}, {segments[0][0].video_id}: {modality}"
            raise RuntimeError(f"{where} {error}") from error
    results = []
    for valid_S, own in zip(valid, np.split(made, np.cumsum([valid_S.sum() for valid_S in valid])[:-1]), strict=True):
        values = np.full((valid_S.size, *shape), np.nan, made.dtype)
        values[valid_S] = own
        results.append(Modal(values=values, valid=valid_S))
    return results


def _seen(clips: Clips, recipe: Recipe) -> NDArray[np.bool_]:
    """Segments with at least one frame of their own."""
    assert recipe.video is not None
    return np.asarray((clips.frame_index_SP[:, : recipe.video.frames_per_segment] >= 0).any(axis=1))


def _heard(clips: Clips, recipe: Recipe) -> NDArray[np.bool_]:
    """Segments with enough audio."""
    assert recipe.audio is not None
    if not clips.samples_N.size:
        return np.zeros(clips.count, np.bool_)
    return spectrogram.coverage(clips, recipe.audio.min_coverage)


def batches(clips: Sequence[Clips], batch_segments: int, recipe: Recipe) -> Iterator[list[tuple[int, Clips]]]:
    """Lists of (index into `clips`, piece) that hold `batch_segments` segments each, the last one the rest."""
    context_s = recipe.audio.context_s if recipe.audio is not None else Fraction(0)
    batch: list[tuple[int, Clips]] = []
    free = batch_segments
    for owner, item in enumerate(clips):
        done = 0
        while done < item.count:
            take = min(free, item.count - done)
            batch.append((owner, item if take == item.count else piece(item, done, take, context_s)))
            done += take
            free -= take
            if free == 0:
                yield batch
                batch, free = [], batch_segments
    if batch:
        yield batch


def piece(clips: Clips, skip: int, count: int, context_s: Fraction) -> Clips:
    """Segments `skip .. skip + count - 1` of `clips`, with the frames they point at and the samples they hear."""
    index_SP = clips.frame_index_SP[skip : skip + count]
    shown = index_SP[index_SP >= 0]
    low, high = (int(shown.min()), int(shown.max()) + 1) if shown.size else (0, 0)
    moved_SP = np.where(index_SP >= 0, index_SP - np.int32(low), np.int32(-1)).astype(np.int32)
    cut = replace(clips, first=clips.first + skip, frames_FHWC=clips.frames_FHWC[low:high], frame_index_SP=moved_SP)
    if clips.rate_hz == 0 or clips.samples_N.size == 0:
        return cut
    first, last = clips.first + skip, clips.first + skip + count - 1
    start = sample_at(clips.grid.start_s(first) - context_s, clips.rate_hz)
    stop = sample_at(clips.grid.end_s(last) + context_s, clips.rate_hz)
    low, high = (min(max(at - clips.samples_start, 0), clips.samples_N.size) for at in (start, stop))
    return replace(
        cut,
        samples_N=clips.samples_N[low:high],
        sample_valid_N=clips.sample_valid_N[low:high],
        samples_start=clips.samples_start + low,
    )


def _check_clips(clips: Clips, recipe: Recipe) -> None:
    frames = recipe.video.slots if recipe.video is not None else 0
    if clips.frame_index_SP.shape[1] != frames:
        raise ValueError(
            f"{clips.video_id}: recipe {recipe.name} takes {frames} frames a segment, "
            f"the clips have {clips.frame_index_SP.shape[1]}"
        )
    rate_hz = recipe.audio.rate_hz if recipe.audio is not None else 0
    if clips.rate_hz != rate_hz and clips.samples_N.size:
        raise ValueError(f"{clips.video_id}: recipe {recipe.name} takes {rate_hz} Hz, the clips have {clips.rate_hz}")
    index_SP = clips.frame_index_SP
    if index_SP.size and not -1 <= int(index_SP.min()) <= int(index_SP.max()) < clips.frames_FHWC.shape[0]:
        raise ValueError(f"{clips.video_id}: a frame index lies outside the {clips.frames_FHWC.shape[0]} frames given")
