"""A store's features against published ones, video by video: `avel store verify --against`.

What can be compared without the publisher's checkpoints is compared first: how many rows a video has, how wide they
are, and what they span. Where that agrees, the values are: other weights, another decoder and a file that was encoded
anew show there. (video_features re-encodes a file before it reads frames at 25 a second, so even with UnAV-100's own
weights the values of another extraction are near its own, not equal.)
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from catalog.exchange.formats.unav_npy import Published, open_published
from catalog.grid import GridRule, SegmentGrid
from catalog.store.format import MODALITIES
from catalog.store.ragged import Ragged
from catalog.store.reader import FeatureStore

# From the best to the worst; a comparison has the worst that applies.
Verdict = Literal["equal", "other values", "other times", "other shape", "unreadable"]
VERDICTS: tuple[Verdict, ...] = ("equal", "other values", "other times", "other shape", "unreadable")

_TIME_TOLERANCE_S = 1e-6
_VIDEOS_AT_ONCE = 32


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """When values count as equal, and how far counts may be apart.

    Attributes:
        tolerance: largest difference of a stream's values, over its largest published value.
        cosine: where given, rows are equal instead where each has at least this cosine with the published one.
        rows_apart: how many rows more either may have at a video's end.
    """

    tolerance: float = 1e-3
    cosine: float | None = None
    rows_apart: int = 0

    def __post_init__(self) -> None:
        if not self.tolerance >= 0 or self.rows_apart < 0:
            raise ValueError(f"an agreement needs a tolerance and rows_apart of 0 or more, got {self}")
        if self.cosine is not None and not -1 <= self.cosine <= 1:
            raise ValueError(f"a cosine lies in [-1, 1], got {self.cosine}")


@dataclass(frozen=True, kw_only=True)
class Compared:
    """One stream ("rgb", "vggish") of one video, here and published.

    Attributes:
        video_id, stream: of what.
        rows, published_rows: T. width, published_width: D.
        one_sided_rows: rows, of those that both have, that are computed on one side alone (NaN on the other).
        times_off_s: by how much a row's beginning or end is off the published grid; None where that is not known.
        max_abs: largest difference. max_relative: that over the largest published value.
        mean_cosine, least_cosine: of rows. All four None where the widths differ or no row is on both sides.
        verdict: what differs.
        problem: why the file cannot be read, where it cannot; its rows and width are 0 then.
    """

    video_id: str
    stream: str
    rows: int
    published_rows: int
    width: int
    published_width: int
    one_sided_rows: int
    times_off_s: float | None
    max_abs: float | None
    max_relative: float | None
    mean_cosine: float | None
    least_cosine: float | None
    verdict: Verdict
    problem: str = ""


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """All that was compared.

    Attributes:
        layout: of the published files.
        compared: one entry for each file of a video that the store has; it may have no rows of it.
        only_here: videos of the store of which no file is there.
        only_there: videos with files that the store has not.
        missing_there: files that are not there of streams that the store has rows of, those of `only_here` included.
    """

    layout: str
    compared: tuple[Compared, ...]
    only_here: int
    only_there: int
    missing_there: int

    @property
    def verdict(self) -> Verdict:
        """The worst of all that are there."""
        return max((item.verdict for item in self.compared), key=VERDICTS.index)


def compare(
    store: FeatureStore,
    recipe_name: str,
    source: Path,
    *,
    agreement: Agreement | None = None,
    grid: GridRule | None = None,
    progress: Callable[[str], None] = lambda _: None,
) -> Comparison:
    """Compares a recipe's features with the `.npy` files of a folder.

    Args:
        source: see `catalog.exchange.formats.unav_npy`; nothing in it is unpickled.
        agreement: what counts as equal.
        grid: what a published row spans, where the layout's usual one is not meant.
        progress: called with each video's id.

    Raises:
        ValueError: no such recipe or files, or no video in common.
    """
    entry = store.recipe(recipe_name)
    published = open_published(source, recipe_name=recipe_name, visual_shape=entry.visual_shape)
    bases = {video_id: published.base_of(video_id) for video_id in store.video_ids()}
    shared = {video_id: base for video_id, base in bases.items() if base is not None}
    if not shared:
        some = ", ".join(sorted(published.bases())[:3])
        raise ValueError(f"{source}: none of its files is of a video of {store.uri}; it has those of {some}")
    # A stream that the recipe leaves out (i3d_vggish's settings are named like the streams) is not missed.
    streams = {
        modality: [s for s in published.streams[modality] if entry.recipe.settings.get(s) is not False]
        for modality in MODALITIES
        if entry.shape(modality) is not None
    }
    compared: list[Compared] = []
    agreement, grid = agreement or Agreement(), grid or published.grid
    ids = list(shared)
    for low in range(0, len(ids), _VIDEOS_AT_ONCE):
        some_ids = ids[low : low + _VIDEOS_AT_ONCE]
        held = {modality: store.read(recipe_name, modality, some_ids) for modality in streams}
        for k, video_id in enumerate(some_ids):
            for modality, ragged in held.items():
                compared += _of_video(published, shared[video_id], streams[modality], ragged, k, agreement, grid)
            progress(video_id)
    if not compared:
        raise ValueError(f"{source}: no file of {', '.join(ids[:3])} is of a modality that recipe {recipe_name} has")
    return Comparison(
        layout=published.layout,
        compared=tuple(compared),
        only_here=len(bases) - len(shared),
        only_there=len(published.bases() - set(shared.values())),
        missing_there=sum(
            _missing(store, recipe_name, modality, published, list(bases.values()), endings)
            for modality, endings in streams.items()
        ),
    )


def _missing(
    store: FeatureStore,
    recipe_name: str,
    modality: str,
    published: Published,
    bases: list[str | None],
    endings: list[str],
) -> int:
    """How many files of a modality the videos with a computed row of it lack; `bases` of all videos, in store order."""
    outcomes = store.outcomes(recipe_name)
    computed = np.concatenate([np.zeros(1, np.int64), np.cumsum(store.row_column(recipe_name, f"{modality}_valid"))])
    starts = np.maximum(outcomes.row_start, 0)
    due = computed[starts + outcomes.row_count] > computed[starts]
    wanted = [base for base, is_due in zip(bases, due.tolist(), strict=True) if is_due]
    return sum(base is None or f"{base}_{ending}" not in published.files for base in wanted for ending in endings)


def _of_video(
    published: Published,
    base: str,
    streams: list[str],
    ragged: Ragged,
    k: int,
    agreement: Agreement,
    grid: GridRule | None,
) -> Iterator[Compared]:
    there: dict[str, NDArray[np.floating] | None] = {}
    problems: dict[str, str] = {}
    for stream in streams:
        try:
            there[stream] = published.read(base, stream)
        except ValueError as error:
            there[stream], problems[stream] = None, str(error)
    rows, modal = ragged.rows_of(k), ragged.video(k)
    valid, values = modal.valid, modal.values
    values = values.reshape(len(values), math.prod(values.shape[1:]))
    # Without a single row of this modality there is none of the video, as in the published files.
    count = len(valid) if valid.any() else 0
    widths = [math.prod(array.shape[1:]) for array in there.values() if array is not None]
    if len(widths) < len(there) or sum(widths) != values.shape[1]:
        # The files do not say where a stream begins here: equal shares, as both of I3D's are 1024.
        widths = [values.shape[1] // len(there)] * len(there)
    ends = np.cumsum(widths)
    for (stream, array), width, end in zip(there.items(), widths, ends.tolist(), strict=True):
        if stream in problems:
            yield Compared(
                video_id=ragged.video_ids[k],
                stream=stream,
                rows=count,
                published_rows=0,
                width=width,
                published_width=0,
                one_sided_rows=0,
                times_off_s=None,
                max_abs=None,
                max_relative=None,
                mean_cosine=None,
                least_cosine=None,
                verdict="unreadable",
                problem=problems[stream],
            )
        elif array is not None:
            yield _of_stream(
                values[:count, end - width : end],
                valid[:count],
                np.asarray(array).reshape(len(array), math.prod(array.shape[1:])),
                video_id=ragged.video_ids[k],
                stream=stream,
                times_off_s=_times_off_s(ragged, rows, min(count, len(array)), grid),
                agreement=agreement,
            )


def _of_stream(
    here: NDArray[np.floating],
    valid: NDArray[np.bool_],
    there: NDArray[np.floating],
    *,
    video_id: str,
    stream: str,
    times_off_s: float | None,
    agreement: Agreement,
) -> Compared:
    common = min(len(here), len(there))
    computed = np.isfinite(there[:common]).all(axis=1)
    one_sided = int((computed != valid[:common]).sum())
    both = computed & valid[:common]
    differences: tuple[float | None, float | None, float | None, float | None] = (None, None, None, None)
    if here.shape[1] == there.shape[1] and both.any():
        differences = _differences(here[:common][both].astype(np.float64), there[:common][both].astype(np.float64))
    max_abs, max_relative, mean_cosine, least_cosine = differences
    verdict: Verdict = "equal"
    if here.shape[1] != there.shape[1] or abs(len(here) - len(there)) > agreement.rows_apart or one_sided:
        verdict = "other shape"
    elif times_off_s is not None and times_off_s > _TIME_TOLERANCE_S:
        verdict = "other times"
    elif max_relative is not None and least_cosine is not None:
        near = max_relative <= agreement.tolerance if agreement.cosine is None else least_cosine >= agreement.cosine
        verdict = "equal" if near else "other values"
    return Compared(
        video_id=video_id,
        stream=stream,
        rows=len(here),
        published_rows=len(there),
        width=here.shape[1],
        published_width=there.shape[1],
        one_sided_rows=one_sided,
        times_off_s=times_off_s,
        max_abs=max_abs,
        max_relative=max_relative,
        mean_cosine=mean_cosine,
        least_cosine=least_cosine,
        verdict=verdict,
    )


def _differences(here: NDArray[np.float64], there: NDArray[np.float64]) -> tuple[float, float, float, float]:
    """Largest difference, that over the largest value of `there`, mean and least cosine of rows."""
    largest = float(np.abs(there).max())
    apart = float(np.abs(here - there).max())
    norms = np.linalg.norm(here, axis=1) * np.linalg.norm(there, axis=1)
    # VGGish gives rows of zeros to silence: two of them are alike, one has no direction to share.
    alike = np.where((here == there).all(axis=1), 1.0, 0.0)
    cosines = np.divide((here * there).sum(axis=1), norms, out=alike, where=norms > 0)
    relative = apart / largest if largest > 0 else (0.0 if apart == 0 else float(np.finfo(np.float64).max))
    return apart, relative, float(cosines.mean()), float(cosines.min())


def _times_off_s(ragged: Ragged, rows: slice, common: int, grid: GridRule | None) -> float | None:
    if grid is None or common == 0:
        return None
    due = SegmentGrid(window_s=grid.window_s, hop_s=grid.hop_s, count=common)
    begin = slice(rows.start, rows.start + common)
    starts_off, ends_off = ragged.start_s[begin] - due.starts_s(), ragged.end_s[begin] - due.ends_s()
    return float(max(np.abs(starts_off).max(), np.abs(ends_off).max()))
