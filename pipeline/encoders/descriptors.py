"""Hand-made descriptors of frames and audio: features without any weights.

They name no object, yet distinguish colours, textures, motion, pitch and rhythm, so that the whole flow can run, be
tested and be demonstrated on a machine that has no checkpoint. Every value of a segment comes from that segment's own
window: audio beyond its edges is taken as zero, motion across them is not seen.

Frames, one vector a distinct frame, then the mean over the segment's frames (a frame seen k times counts k times):
    layout     mean Oklab colour of each cell of a 4 x 4 grid                                       48
    texture    standard deviation of the same, within each cell                                     48
    hue        16 hue bins over the frame: root of the mean squared chroma in each, so that one
               vivid thing outweighs a wide pale ground                                             16
    hues       the same in each quarter of the frame                                                64
    gradients  8 unsigned orientations x 4 quarters: square root of the mean |gradient| in each     32
    edges      the 8 orientations over the whole frame, likewise                                     8
and, of each pair of neighbouring frames of the segment,
    motion     square root of the mean |difference of lightness| of each cell, mean over the pairs  16
The quarters are few on purpose: 4 x 4 cells of gradients distinguish one video's background from another's, and a
linear head trained on 40 short videos learned the backgrounds. Orientations and hues are shared between the two nearest
bins in proportion, so small turns change little.

Audio, statistics over the STFT frames whose centre is a real sample (over all, should there be none):
    log-mel    mean and standard deviation of 64 bands, in units of 10 dB                          128
    contrast   mean and standard deviation of peak - valley in 6 octave bands, 10 dB                12
    onsets     mean, standard deviation and maximum of the rise in 4 groups of mel bands, 10 dB     12

Determinism: float32 numpy; no reduction and no matrix product spans two segments, so a value does not depend on what
else is encoded in the call.

Sources: Oklab: B. Ottosson, "A perceptual color space for image processing", 2020. Gradient histograms: Dalal and
Triggs, CVPR 2005, here with the square root of Arandjelovic and Zisserman, CVPR 2012 instead of block norms. Contrast:
Jiang et al., ICME 2002, as `librosa.feature.spectral_contrast`. Onsets: Boeck and Widmer, DAFx 2013, without their
maximum filter, as `librosa.onset.onset_strength`. The layout follows the idea of MPEG-7's colour layout, not its DCT.

Shape suffixes: S segments, P frames a segment, F distinct frames, H W pixels, G = 16 grid cells, K orientation bins,
B frequency bins, M mel bands, T STFT frames, D feature width.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from catalog.grid import GridRule
from catalog.recipe import AudioSampling, Recipe, VideoSampling
from pipeline.clips import Segments
from pipeline.encoder import EncoderSpec
from pipeline.preprocess import spectrogram

GRID = 4  # cells a side, of colours and motion
QUARTERS = 2  # cells a side, of hues and gradients
ORIENTATIONS = 8
HUES = 16
VISUAL_WIDTH = GRID * GRID * (3 + 3 + 1) + (1 + QUARTERS * QUARTERS) * (HUES + ORIENTATIONS)
MEL_BANDS = 64
CONTRAST_LOW_HZ = 200.0
CONTRAST_OCTAVES = 5  # octaves above the lowest band, which makes 6 bands in all
CONTRAST_QUANTILE = 0.02
ONSET_GROUPS = 4
AUDIO_WIDTH = 2 * MEL_BANDS + 2 * (CONTRAST_OCTAVES + 1) + 3 * ONSET_GROUPS

# Frames that go through one round of array arithmetic: 8 of 64 x 64 keep every temporary within a core's cache.
_FRAMES_A_ROUND = 8

SPEC = EncoderSpec(
    name="descriptors",
    visual_shape=(VISUAL_WIDTH,),
    audio_shape=(AUDIO_WIDTH,),
    licence="Apache-2.0",
    citation="Oklab layout, gradient histograms, log-mel statistics; see pipeline/encoders/descriptors.py",
    batch_segments=64,
    device="cpu",
)

PRESETS = (
    Recipe(
        name="descriptors-1s",
        encoder="descriptors",
        grid=GridRule(window_s=Fraction(1), hop_s=Fraction(1)),
        video=VideoSampling(frames_per_segment=8, height_px=64, width_px=64, fit="stretch", interpolation="area"),
        audio=AudioSampling(rate_hz=16000, resampler="soxr_hq"),
    ),
)


@dataclass(frozen=True, kw_only=True)
class Descriptors:
    """Both "towers": no network, only the STFT of a recipe with audio."""

    stft: spectrogram.StftRule | None

    def visual(self, segments: Sequence[Segments]) -> NDArray[np.float32]:
        """(n, 232)."""
        # `check` refuses floats.
        return np.concatenate(
            [
                describe_frames(clips.frames_FHWC.astype(np.uint8, copy=False), clips.frame_index_SP[rows])
                for clips, rows in segments
            ]
        )

    def audio(self, segments: Sequence[Segments]) -> NDArray[np.float32]:
        """(n, 152)."""
        assert self.stft is not None
        made = []
        for clips, rows in segments:
            samples_SN, real_SN = spectrogram.windows(clips)
            made.append(describe_audio(samples_SN[rows], real_SN[rows], self.stft))
        return np.concatenate(made)


def check(recipe: Recipe) -> None:
    """Refuse a recipe that asks for what descriptors do not do.

    Raises:
        ValueError: another precision, audio context, a low rate, or odd frame sizes.
    """
    if recipe.precision != "float32":
        raise ValueError(f"recipe {recipe.name}: descriptors need precision float32, got {recipe.precision}")
    if recipe.video is not None:
        sides = (recipe.video.height_px, recipe.video.width_px)
        if any(side % GRID or side < 2 * GRID for side in sides):
            raise ValueError(
                f"recipe {recipe.name}: descriptors need sides that are multiples of {GRID}, from 8, got {sides}"
            )
        if recipe.video.is_float:
            raise ValueError(
                f"recipe {recipe.name}: descriptors need a Pillow filter, got video.interpolation="
                f"{recipe.video.interpolation}"
            )
    if recipe.audio is not None:
        if recipe.audio.context_s:
            raise ValueError(f"recipe {recipe.name}: descriptors hear the window alone; set audio.context_s to 0")
        if recipe.audio.rate_hz < 16000:
            raise ValueError(
                f"recipe {recipe.name}: descriptors need audio.rate_hz of at least 16000, got {recipe.audio.rate_hz}"
            )


def load(weights: Mapping[str, Path], device: str, recipe: Recipe) -> Descriptors:
    """The descriptors for `recipe`."""
    del weights, device  # none, and always the CPU
    return Descriptors(stft=None if recipe.audio is None else _stft_rule(recipe.audio.rate_hz))


def describe_frames(frames_FHWC: NDArray[np.uint8], frame_index_SP: NDArray[np.int32]) -> NDArray[np.float32]:
    """Visual descriptors.

    Args:
        frames_FHWC: uint8 RGB; each is described once, however many segments see it.
        frame_index_SP: into `frames_FHWC`, -1 for none; every row has at least one frame.

    Returns:
        float32 (S, VISUAL_WIDTH), all finite.
    """
    used_F = np.unique(frame_index_SP[frame_index_SP >= 0])
    height, width = frames_FHWC.shape[1:3]
    still_FD = np.empty((used_F.size, VISUAL_WIDTH - GRID * GRID), np.float32)
    lightness_FHW = np.empty((used_F.size, height, width), np.float32)
    for low in range(0, used_F.size, _FRAMES_A_ROUND):
        here = slice(low, low + _FRAMES_A_ROUND)
        still_FD[here], lightness_FHW[here] = _describe_stills(frames_FHWC[used_F[here]])

    used_index_SP = np.searchsorted(used_F, frame_index_SP)
    visual_SD = np.zeros((frame_index_SP.shape[0], VISUAL_WIDTH), np.float32)
    motion: dict[tuple[int, int], NDArray[np.float32]] = {}
    for row_D, index_P, used_index_P in zip(visual_SD, frame_index_SP, used_index_SP, strict=True):
        shown = [int(used) for index, used in zip(index_P, used_index_P, strict=True) if index >= 0]
        row_D[: still_FD.shape[1]] = still_FD[shown].mean(axis=0)
        pairs = list(itertools.pairwise(shown))
        for before, after in pairs:
            if (before, after) not in motion:
                change_HW = np.abs(lightness_FHW[after] - lightness_FHW[before])
                motion[before, after] = np.sqrt(_cell_means(change_HW[None])[0])
        if pairs:
            row_D[still_FD.shape[1] :] = np.stack([motion[pair] for pair in pairs]).mean(axis=0)
    return visual_SD


def describe_audio(
    samples_SN: NDArray[np.float32], real_SN: NDArray[np.bool_], rule: spectrogram.StftRule
) -> NDArray[np.float32]:
    """Audio descriptors.

    Args:
        samples_SN: each row one window.
        real_SN: which samples are real; the others are 0.
        rule: sizes.

    Returns:
        float32 (S, AUDIO_WIDTH), all finite.
    """
    power_SBT = spectrogram.power(samples_SN, rule)
    level_SMT = spectrogram.decibels(spectrogram.mel(power_SBT, rule)) / np.float32(10)
    contrast_SKT = spectral_contrast(power_SBT, rule) / np.float32(10)
    rise_SMT = np.maximum(level_SMT[:, :, 1:] - level_SMT[:, :, :-1], np.float32(0))
    group = MEL_BANDS // ONSET_GROUPS
    rise_SGT = np.stack([rise_SMT[:, low : low + group].mean(axis=1) for low in range(0, MEL_BANDS, group)], axis=1)

    frames = level_SMT.shape[2]
    centre_T = np.minimum(np.arange(frames) * rule.hop_size, samples_SN.shape[1] - 1)
    heard_ST = real_SN[:, centre_T]
    heard_ST = heard_ST | ~heard_ST.any(axis=1, keepdims=True)
    both_ST = heard_ST[:, 1:] & heard_ST[:, :-1]
    both_ST = both_ST | ~both_ST.any(axis=1, keepdims=True)
    level_mean, level_sd = _mean_sd(level_SMT, heard_ST)
    contrast_mean, contrast_sd = _mean_sd(contrast_SKT, heard_ST)
    rise_mean, rise_sd = _mean_sd(rise_SGT, both_ST)
    rise_max = np.where(both_ST[:, None], rise_SGT, np.float32(0)).max(axis=2)
    return np.concatenate([level_mean, level_sd, contrast_mean, contrast_sd, rise_mean, rise_sd, rise_max], axis=1)


def spectral_contrast(power_SBT: NDArray[np.float32], rule: spectrogram.StftRule) -> NDArray[np.float32]:
    """Peak less valley of each octave band, in dB: float32 (S, 6, T).

    librosa's definition (mean magnitude of the loudest and the quietest 2 % of a band's bins, at least one; each band
    starts one bin early, and all but the last leave out their last bin). librosa's own function clips 80 dB below the
    loudest value of the whole array, which would tie a window to its neighbours, and its first call costs 3 s.
    """
    magnitude_SBT = np.sqrt(power_SBT)
    bin_hz = rule.rate_hz / rule.fft_size
    bin_B = np.arange(power_SBT.shape[1]) * bin_hz
    edges_hz = [0.0, *(CONTRAST_LOW_HZ * 2**octave for octave in range(CONTRAST_OCTAVES + 1))]
    contrast_SKT = np.empty((power_SBT.shape[0], CONTRAST_OCTAVES + 1, power_SBT.shape[2]), np.float32)
    for band, (low_hz, high_hz) in enumerate(itertools.pairwise(edges_hz)):
        inside = np.flatnonzero((bin_B >= low_hz) & (bin_B <= high_hz))
        first, last = int(inside[0]), int(inside[-1])
        first -= band > 0
        if band == CONTRAST_OCTAVES:
            last = bin_B.size - 1
        size = last + 1 - first
        stop = last + 1 if band == CONTRAST_OCTAVES else last
        take = max(round(CONTRAST_QUANTILE * size), 1)
        part_SBT = magnitude_SBT[:, first:stop]
        if take == 1:
            valley_ST, peak_ST = part_SBT.min(axis=1), part_SBT.max(axis=1)
        else:
            part_SBT = np.sort(part_SBT, axis=1)
            valley_ST, peak_ST = part_SBT[:, :take].mean(axis=1), part_SBT[:, -take:].mean(axis=1)
        contrast_SKT[:, band] = spectrogram.decibels(peak_ST) - spectrogram.decibels(valley_ST)
    return contrast_SKT


def _stft_rule(rate_hz: int) -> spectrogram.StftRule:
    # 32 ms frames, 10 ms hop; at 16 kHz 512 and 160 samples.
    return spectrogram.StftRule(
        rate_hz=rate_hz,
        fft_size=2 * round(rate_hz * 0.016),
        hop_size=round(rate_hz * 0.01),
        num_bands=MEL_BANDS,
        low_hz=50.0,
        high_hz=rate_hz / 2,
    )


def _mean_sd(
    values_SKT: NDArray[np.float32], mask_ST: NDArray[np.bool_]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Mean and standard deviation over the STFT frames in the mask (at least one a row), each (S, K)."""
    weight_S1T = mask_ST[:, None].astype(np.float32)
    number_S1 = weight_S1T.sum(axis=2)
    mean_SK = (values_SKT * weight_S1T).sum(axis=2) / number_S1
    spread_SKT = (values_SKT - mean_SK[:, :, None]) * weight_S1T
    return mean_SK, np.sqrt((spread_SKT * spread_SKT).sum(axis=2) / number_S1)


# sRGB code value to linear light, IEC 61966-2-1.
_CODE = np.arange(256) / 255
_LINEAR = np.where(_CODE <= 0.04045, _CODE / 12.92, ((_CODE + 0.055) / 1.055) ** 2.4).astype(np.float32)
_TO_CONE = np.array(
    [
        [0.4122214708, 0.5363325363, 0.0514459929],
        [0.2119034982, 0.6806995451, 0.1073969566],
        [0.0883024619, 0.2817188376, 0.6299787005],
    ],
    np.float32,
)
_TO_OKLAB = np.array(
    [
        [0.2104542553, 0.7936177850, -0.0040720468],
        [1.9779984951, -2.4285922050, 0.4505937099],
        [0.0259040371, 0.7827717662, -0.8086757660],
    ],
    np.float32,
)


def oklab(frames_FHWC: NDArray[np.uint8]) -> NDArray[np.float32]:
    """sRGB to Oklab: float32 (3, F, H, W), lightness in [0, 1] and two opponent axes within about +-0.4."""
    linear = [_LINEAR[frames_FHWC[..., channel]] for channel in range(3)]
    cone = [np.cbrt(row[0] * linear[0] + row[1] * linear[1] + row[2] * linear[2]) for row in _TO_CONE]
    return np.stack([row[0] * cone[0] + row[1] * cone[1] + row[2] * cone[2] for row in _TO_OKLAB])


def _describe_stills(frames_FHWC: NDArray[np.uint8]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """All but motion: (F, VISUAL_WIDTH - 16), and the lightness (F, H, W)."""
    frames = frames_FHWC.shape[0]
    lab_CFHW = oklab(frames_FHWC)
    means_CFG = np.stack([_cell_means(plane_FHW) for plane_FHW in lab_CFHW])
    squares_CFG = np.stack([_cell_means(plane_FHW * plane_FHW) for plane_FHW in lab_CFHW])
    spread_CFG = np.sqrt(np.maximum(squares_CFG - means_CFG * means_CFG, np.float32(0)))
    lightness_FHW, a_FHW, b_FHW = lab_CFHW

    chroma_FHW = np.sqrt(a_FHW * a_FHW + b_FHW * b_FHW)
    hues_FGK = _histogram(a_FHW * chroma_FHW, b_FHW * chroma_FHW, turn=2 * np.pi, bins=HUES, grid=QUARTERS)
    across_FHW = np.zeros_like(lightness_FHW)
    across_FHW[:, :, 1:-1] = lightness_FHW[:, :, 2:] - lightness_FHW[:, :, :-2]
    down_FHW = np.zeros_like(lightness_FHW)
    down_FHW[:, 1:-1] = lightness_FHW[:, 2:] - lightness_FHW[:, :-2]
    gradients_FGK = _histogram(across_FHW, down_FHW, turn=np.pi, bins=ORIENTATIONS, grid=QUARTERS)
    still_FD = np.concatenate(
        [
            means_CFG.transpose(1, 2, 0).reshape(frames, -1),
            spread_CFG.transpose(1, 2, 0).reshape(frames, -1),
            np.sqrt(hues_FGK.mean(axis=1)),
            np.sqrt(hues_FGK.reshape(frames, -1)),
            np.sqrt(gradients_FGK.reshape(frames, -1)),
            np.sqrt(gradients_FGK.mean(axis=1)),
        ],
        axis=1,
    )
    return still_FD, lightness_FHW


def _cell_means(plane_FHW: NDArray[np.float32]) -> NDArray[np.float32]:
    """(F, 16) means of the cells, row by row."""
    frames, height, width = plane_FHW.shape
    cells = plane_FHW.reshape(frames, GRID, height // GRID, GRID, width // GRID)
    # Columns first, then rows: numpy may order a sum over two axes at once by the number of frames.
    sums = cells.sum(axis=4).sum(axis=2)
    return np.asarray(sums.reshape(frames, GRID * GRID) / np.float32((height // GRID) * (width // GRID)), np.float32)


def _histogram(
    x_FHW: NDArray[np.float32], y_FHW: NDArray[np.float32], *, turn: float, bins: int, grid: int
) -> NDArray[np.float32]:
    """Length of the vectors (x, y) by direction, (F, grid * grid, bins): the mean over a cell's pixels.

    Directions repeat after `turn` radians; a vector is shared between the two nearest bin centres.
    """
    frames, height, width = x_FHW.shape
    length_FHW = np.sqrt(x_FHW * x_FHW + y_FHW * y_FHW)
    position_FHW = np.arctan2(y_FHW, x_FHW) * np.float32(bins / turn)
    low_FHW = np.floor(position_FHW)
    upper_FHW = (position_FHW - low_FHW) * length_FHW
    bin_FHW = low_FHW.astype(np.int64)
    row_H1 = (np.arange(height) * grid // height)[:, None]
    column_W = np.arange(width) * grid // width
    base_FHW = ((np.arange(frames)[:, None, None] * grid + row_H1) * grid + column_W) * bins
    size = frames * grid * grid * bins
    sums = np.bincount((base_FHW + bin_FHW % bins).ravel(), (length_FHW - upper_FHW).ravel(), size)
    sums += np.bincount((base_FHW + (bin_FHW + 1) % bins).ravel(), upper_FHW.ravel(), size)
    pixels = (height // grid) * (width // grid)
    return np.asarray((np.maximum(sums, 0) / pixels).reshape(frames, grid * grid, bins), np.float32)
