"""The layout of the published UnAV-100 features: one `.npy` of (T, D) a video and stream, in one folder.

    i3d-vggish recipes      ID_rgb.npy (1024), ID_flow.npy (1024), ID_vggish.npy (128); visual is rgb then flow
    onepeace recipes        ID_one_peace_video_finetune.npy, ID_one_peace_audio.npy
    every other             ID_visual.npy, ID_audio.npy

A video without rows has no file; rows that were not computed are NaN. A file is named by the video's id in percent
encoding (`/`, new lines, a leading dot and so on; YouTube ids stay as they are, a leading "-" included, since published
loaders open them by that name); ids that would be too long for a file are named by their SHA-256. The sidecar says
which file is whose.

Source: UnAV `libs/datasets/unav100.py`, UniAV for the ONE-PEACE names (`file_ext` of their configurations).
"""

from __future__ import annotations

import contextlib
import hashlib
import math
import os
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
from numpy.typing import NDArray

from catalog.dataset import Dataset
from catalog.exchange.importing import Stated
from catalog.exchange.sidecar import SLAB_BYTES, Manifest, RowsOf, foreign_manifest, manifest_of
from catalog.grid import GridRule
from catalog.store.format import MODALITIES
from catalog.store.reader import FeatureStore

NAME = "unav-npy"

# Streams of each modality: (file ending, width; None is all that is left).
Streams = Mapping[str, tuple[tuple[str, int | None], ...]]
_PLAIN: Streams = {"visual": (("visual", None),), "audio": (("audio", None),)}
_I3D: Streams = {"visual": (("rgb", 1024), ("flow", 1024)), "audio": (("vggish", None),)}
_ONE_PEACE: Streams = {"visual": (("one_peace_video_finetune", None),), "audio": (("one_peace_audio", None),)}

# What a published row spans.
_GRIDS: Mapping[str, GridRule] = {
    "i3d": GridRule(window_s=Fraction(24, 25), hop_s=Fraction(8, 25), tail="drop"),
    "one_peace": GridRule(window_s=Fraction(1), hop_s=Fraction(1, 4), tail="drop"),
}

# Streams of one stride differ by this many rows at most, by how each rounds a video's end; published loaders cut those.
ROUNDING_ROWS = 2

_MAX_NAME = 180


def export(
    store: FeatureStore,
    recipe_name: str,
    out: Path,
    *,
    dataset: Dataset | None = None,
    fill: float = math.nan,
) -> dict[str, int]:
    """Writes the files and the sidecar into `out`, which must be empty or new.

    Args:
        dataset: only its videos, in its order; None is all.
        fill: what stands in rows that were not computed.

    Returns:
        counts: files, videos, videos of the data set that the store has not.
    """
    entry = store.recipe(recipe_name)
    out.mkdir(parents=True, exist_ok=True)
    if any(out.iterdir()):
        raise ValueError(f"{out}: needs an empty folder, since files of other videos would mix with these")
    wanted = None if dataset is None else [video.id for video in dataset.videos]
    streams = _streams(recipe_name, entry.visual_shape)
    manifest = manifest_of(
        store, recipe_name, NAME, video_ids=wanted, layout={m: [list(s) for s in streams[m]] for m in MODALITIES}
    )
    files = 0
    for modality in MODALITIES:
        if entry.shape(modality) is None:
            continue
        for ids in _slabs(manifest):
            ragged = store.read(recipe_name, modality, ids)
            for k, video_id in enumerate(ids):
                modal = ragged.video(k)
                if not modal.valid.any():
                    continue
                values = modal.values if math.isnan(fill) else modal.filled(fill)
                for ending, part in _split(values, streams[modality]):
                    np.save(out / f"{file_base(video_id)}_{ending}.npy", part, allow_pickle=False)
                    files += 1
    manifest.write(out)
    absent = 0 if wanted is None else len(wanted) - len(manifest.videos)
    return {"files": files, "videos": len(manifest.videos), "absent_videos": absent}


@contextlib.contextmanager
def opened(source: Path, stated: Stated) -> Iterator[tuple[Manifest, RowsOf]]:
    """The files' videos and their rows.

    Args:
        stated: for files without our sidecar; without a data set all videos there are, by name. Streams that differ
            by up to `ROUNDING_ROWS` are cut to the shortest, as published loaders do.

    Raises:
        ValueError: no such files, another layout, pickles in them, streams of other strides than stated, or a needed
            argument is missing; says which.
    """
    manifest = Manifest.read(source, NAME)
    bases: dict[str, str]
    if manifest is None:
        manifest, streams = _foreign(source, stated)
        bases = {video["id"]: video["id"] for video in manifest.videos}
    else:
        # The names are computed from the ids, never taken from the sidecar: one made by others cannot point elsewhere.
        bases = {video["id"]: file_base(video["id"]) for video in manifest.videos}
        streams = _streams_of_layout(manifest.layout, source)
    shapes = {"visual": manifest.visual_shape, "audio": manifest.audio_shape}
    chosen = manifest

    def rows_of(index: int) -> tuple[NDArray[np.floating] | None, NDArray[np.floating] | None]:
        video = chosen.videos[index]
        taken: dict[str, NDArray[np.floating] | None] = {"visual": None, "audio": None}
        for modality in MODALITIES:
            if shapes[modality] is not None and "1" in video[f"{modality}_valid"]:
                parts = [_load(source / f"{bases[video['id']]}_{ending}.npy") for ending, _ in streams[modality]]
                shortest = min(len(part) for part in parts)
                rows = np.concatenate([part[:shortest] for part in parts], axis=1) if len(parts) > 1 else parts[0]
                taken[modality] = rows[: video["rows"]] if chosen.foreign else rows
        return taken["visual"], taken["audio"]

    yield manifest, rows_of


@dataclass(frozen=True, kw_only=True)
class Published:
    """A folder of such files, ours or others', to be compared with.

    Attributes:
        folder: where they lie.
        layout: "i3d", "one_peace" or "plain".
        grid: what a row spans: by the sidecar, else as published for the layout; None where neither has it.
        files: names in the folder, without ".npy".
    """

    folder: Path
    layout: str
    grid: GridRule | None
    files: frozenset[str]

    @property
    def streams(self) -> Mapping[str, tuple[str, ...]]:
        """Modality to the endings of its files, in the order in which they are joined."""
        return {modality: tuple(ending for ending, _ in _known()[self.layout][modality]) for modality in MODALITIES}

    def base_of(self, video_id: str) -> str | None:
        """What the names of a video's files begin with, None where it has none: its id, or that without a suffix."""
        endings = [ending for modality in MODALITIES for ending in self.streams[modality]]
        for base in (file_base(video_id), video_id, file_base(os.path.splitext(video_id)[0])):
            if any(f"{base}_{ending}" in self.files for ending in endings):
                return base
        return None

    def bases(self) -> set[str]:
        """Of all videos that have a file."""
        endings = [f"_{ending}" for modality in MODALITIES for ending in self.streams[modality]]
        return {name.removesuffix(e) for name in self.files for e in endings if name.endswith(e)}

    def read(self, base: str, ending: str) -> NDArray[np.floating] | None:
        """One stream of a video, (rows, ...) mapped from the file; None where there is no such file.

        Raises:
            ValueError: it is not a plain .npy file of floats; names the file.
        """
        name = f"{base}_{ending}"
        return _load(self.folder / f"{name}.npy") if name in self.files else None


def open_published(source: Path, *, recipe_name: str, visual_shape: tuple[int, ...] | None) -> Published:
    """The files of `source`, in the layout that they are in.

    Args:
        recipe_name, visual_shape: of the features to compare; they decide where there are files of several layouts.

    Raises:
        ValueError: no such files, or a damaged sidecar.
    """
    files = frozenset(path.name[:-4] for path in source.glob("*.npy"))
    found = [
        layout
        for layout, streams in _known().items()
        if any(name.endswith(f"_{e}") for name in files for m in MODALITIES for e, _ in streams[m])
    ]
    if not found:
        raise ValueError(f"{source}: no feature files such as ID_rgb.npy, ID_one_peace_audio.npy or ID_visual.npy")
    meant = next(name for name, streams in _known().items() if streams is _streams(recipe_name, visual_shape))
    layout = meant if meant in found else found[0]
    manifest = Manifest.read(source, NAME)
    grid = manifest.recipe.grid if manifest is not None else _GRIDS.get(layout)
    return Published(folder=source, layout=layout, grid=grid, files=files)


def file_base(video_id: str) -> str:
    """The part of a file's name that says whose it is: no separators, not hidden, not too long, one for each id."""
    base = quote(video_id, safe="")
    if base.startswith((".", "long%")):
        base = f"%{ord(base[0]):02X}{base[1:]}"
    if len(base) > _MAX_NAME:
        base = f"long%{hashlib.sha256(video_id.encode()).hexdigest()}"
    return base


def _streams(recipe_name: str, visual_shape: tuple[int, ...] | None) -> Streams:
    if recipe_name.startswith("i3d-vggish") and visual_shape == (2048,):
        return _I3D
    return _ONE_PEACE if recipe_name.startswith("onepeace") else _PLAIN


def _streams_of_layout(layout: Mapping[str, Any], source: Path) -> Streams:
    for streams in (_PLAIN, _I3D, _ONE_PEACE):
        if {m: [list(s) for s in streams[m]] for m in MODALITIES} == dict(layout):
            return streams
    raise ValueError(f"{source}: the sidecar's layout names files that this format does not have: {dict(layout)}")


def _split(values: NDArray[Any], streams: tuple[tuple[str, int | None], ...]) -> list[tuple[str, NDArray[Any]]]:
    parts, at = [], 0
    for ending, width in streams:
        end = values.shape[1] if width is None else at + width
        parts.append((ending, np.ascontiguousarray(values if len(streams) == 1 else values[:, at:end])))
        at = end
    return parts


def _slabs(manifest: Manifest) -> list[list[str]]:
    """The videos with rows, in groups of bounded size."""
    slabs: list[list[str]] = []
    held = SLAB_BYTES
    for video in manifest.videos:
        size = video["rows"] * manifest.row_bytes
        if size == 0:
            continue
        if held + size > SLAB_BYTES:
            slabs.append([])
            held = 0
        slabs[-1].append(video["id"])
        held += size
    return slabs


def _load(path: Path) -> NDArray[np.floating]:
    _need_file(path)
    try:
        # A shape whose size overflows must not become a small one.
        with np.errstate(over="raise"):
            values = np.lib.format.open_memmap(path, mode="r")
    except Exception as error:  # on a malformed header numpy makes OverflowError, tokenize.TokenError, ...
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise ValueError(f"{path}: cannot be read as a plain .npy file: {lines[0]}") from error
    if values.ndim < 2 or values.dtype.kind != "f" or 0 in values.shape:
        raise ValueError(f"{path}: needs floats (segments, width), has {values.dtype} of shape {values.shape}")
    return values


def _need_file(path: Path) -> None:
    """Before it is opened: to open a pipe is to wait for whoever writes into it."""
    try:
        mode = path.stat().st_mode
    except OSError as error:
        found = "a link to nothing" if path.is_symlink() else "nothing"
        raise ValueError(f"{path}: needs a regular file, has {found} ({error.strerror})") from error
    if not stat.S_ISREG(mode):
        kinds = {stat.S_IFDIR: "a folder", stat.S_IFIFO: "a named pipe", stat.S_IFSOCK: "a socket"}
        raise ValueError(f"{path}: needs a regular file, has {kinds.get(stat.S_IFMT(mode), 'a device')}")


def _foreign(source: Path, stated: Stated) -> tuple[Manifest, Streams]:
    if stated.grid is None:
        raise ValueError(
            f"{source}: no sidecar says what one row spans; give --window and --hop "
            "(UnAV-100: 24/25 and 8/25 for I3D and VGGish, 1 and 1/4 for ONE-PEACE)"
        )
    files = {path.name[:-4] for path in source.glob("*.npy")}
    endings = {s: [ending for m in MODALITIES for ending, _ in streams[m]] for s, streams in _known().items()}
    streams = next((_known()[s] for s in endings if any(f.endswith(f"_{e}") for f in files for e in endings[s])), None)
    if streams is None:
        raise ValueError(f"{source}: no feature files such as ID_rgb.npy, ID_one_peace_audio.npy or ID_visual.npy")
    ids: list[str] = sorted(
        {f[: -len(e) - 1] for f in files for m in MODALITIES for e, _ in streams[m] if f.endswith(f"_{e}")}
    )
    if stated.dataset is not None:
        named, wanted = set(ids), [video.id for video in stated.dataset.videos]
        ids = [video_id for video_id in wanted if video_id in named]
        if not ids:
            raise ValueError(
                f"{source}: no video of {stated.dataset.name} has a file here: there are {min(named)}_... and so on, "
                f"wanted are {wanted[0] if wanted else 'none'} and so on"
            )
    shapes: dict[str, tuple[int, ...] | None] = {"visual": None, "audio": None}
    rows, dtypes, strides = [], set(), _Strides(source, stated)
    for video_id in ids:
        lengths: dict[str, int] = {}
        for modality in MODALITIES:
            paths = [source / f"{video_id}_{ending}.npy" for ending, _ in streams[modality]]
            if not all(path.name[:-4] in files for path in paths):
                continue
            parts = [_load(path) for path in paths]
            strides.add(video_id, {path.name: len(part) for path, part in zip(paths, parts, strict=True)})
            lengths[modality] = min(len(part) for part in parts)
            width = sum(part.shape[1] for part in parts)
            shape = parts[0].shape[1:] if len(parts) == 1 else (width,)
            dtypes |= {part.dtype for part in parts}
            if shapes[modality] not in (None, shape):
                raise ValueError(f"{paths[0]}: features of shape {shape}, those of other videos {shapes[modality]}")
            shapes[modality] = shape
        if lengths:
            rows.append((video_id, min(lengths.values()), "visual" in lengths, "audio" in lengths))
    if not rows:
        raise ValueError(f"{source}: no video has all files of a modality")
    strides.check()
    manifest = foreign_manifest(
        NAME,
        name=stated.name,
        grid=stated.grid,
        visual_shape=shapes["visual"],
        audio_shape=shapes["audio"],
        storage="float16" if dtypes == {np.dtype(np.float16)} else "float32",
        origin=str(source),
        rows=rows,
    )
    return manifest, streams


class _Strides:
    """Whether all streams of the videos have the stride that was stated.

    Args:
        source: the files' folder, for messages.
        stated: the grid, and the data set with the annotated durations.
    """

    def __init__(self, source: Path, stated: Stated) -> None:
        assert stated.grid is not None
        self._source, self._grid = source, stated.grid
        videos = () if stated.dataset is None else stated.dataset.videos
        self._annotated_s = {v.id: v.duration_s for v in videos if v.duration_s is not None}
        self._rows: dict[str, dict[str, int]] = {}

    def add(self, video_id: str, rows: Mapping[str, int]) -> None:
        """The rows of files of a video."""
        self._rows.setdefault(video_id, {}).update(rows)

    def check(self) -> None:
        """ValueError where the streams of a video differ, or most videos' rows do not span their annotated seconds.

        Row i of one stream would not be of the time of row i of the other.
        """
        apart = [i for i, rows in self._rows.items() if max(rows.values()) - min(rows.values()) > ROUNDING_ROWS]
        if apart:
            raise ValueError(
                f"{self._source}: the streams of {len(apart):,} of {len(self._rows):,} videos have different strides, "
                f"so that row i of one is not of the time of row i of the other: {self._told(apart[0])}. Up to "
                f"{ROUNDING_ROWS} rows of difference are cut, as published loaders do; make the streams with one stride"
            )
        known = [i for i in self._rows if i in self._annotated_s]
        wrong = [i for i in known if self._off(i)]
        if len(wrong) > len(known) / 2:
            raise ValueError(
                f"{self._source}: the rows of {len(wrong):,} of {len(known):,} videos do not span their annotated "
                f"seconds: {self._told(wrong[0])}. Give the --window and --hop with which the features were made"
            )

    def _off(self, video_id: str) -> bool:
        """Whether a video's rows miss its annotated seconds by more than a tenth and more than rounding."""
        wanted = self._grid.grid(self._annotated_s[video_id]).count
        apart = abs(min(self._rows[video_id].values()) - wanted)
        return apart > ROUNDING_ROWS and apart > wanted / 10

    def _told(self, video_id: str) -> str:
        rows = ", ".join(f"{name} has {count:,} rows" for name, count in self._rows[video_id].items())
        stated = f"with rows of {self._grid.window_s} s every {self._grid.hop_s} s"
        annotated_s = self._annotated_s.get(video_id)
        if annotated_s is None:
            return f"{rows}, stated {stated}"
        wanted = self._grid.grid(annotated_s).count
        return f"{rows}; its annotated {float(annotated_s):g} s make {wanted:,} {stated}"


def _known() -> dict[str, Streams]:
    return {"one_peace": _ONE_PEACE, "i3d": _I3D, "plain": _PLAIN}
