"""The arrays of a store as the format states them, by plain Zarr; and that each kind of damage is refused by name."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import zarr
from numpy.typing import NDArray

from catalog.errors import StoreError
from catalog.store.format import (
    ChunkSizes,
    array_of,
    check_outcomes,
    check_recipe,
    check_root,
    group_of,
    make_recipe,
    make_root,
    read_shape,
)
from tests import sample_store as sample

# As the normative text has them.
VIDEOS = {
    **dict.fromkeys(("id", "uri", "sha256", "status", "reason", "detail", "media"), "T"),
    "duration_s": "float64",
    "bytes": "int64",
    "attempts": "int32",
    "unit": "int32",
}
OUTCOMES = {
    **dict.fromkeys(("status", "reason", "detail"), "T"),
    "row_start": "int64",
    "row_count": "int32",
    "attempts": "int32",
}
ROWS = {"start_s": "float64", "end_s": "float64", "visual_valid": "bool", "audio_valid": "bool"}


def made(*, num_videos: int = 3, chunks: ChunkSizes | None = None, **recipe: Any) -> zarr.Group:
    """A hierarchy with one recipe "tiny": vectors of 6 and maps of 2 x 4 numbers."""
    more: dict[str, Any] = {} if chunks is None else {"chunks": chunks}
    root = zarr.group(zarr.storage.MemoryStore())
    make_root(root, created_by="test", **more)
    for _, column in group(root, "videos").arrays():
        column.resize((num_videos,))
    make_recipe(
        group(root, "features"),
        sample.recipe(**recipe),
        visual_shape=(6,),
        audio_shape=(2, 4),
        card={"licence": "none"},
        num_videos=num_videos,
        **more,
    )
    return root


def group(root: zarr.Group, path: str) -> zarr.Group:
    return group_of(root, path, needed_by="test")


def kinds(of: zarr.Group) -> dict[str, str]:
    found = {name: array.dtype for name, array in of.arrays() if array.ndim == 1}
    return {name: "T" if dtype.kind == "T" else str(dtype) for name, dtype in found.items()}


def codecs(array: zarr.Array[Any]) -> list[str]:
    return [type(codec).__name__ for codec in array.compressors]


def test_layout_is_what_the_format_states() -> None:
    root = made()
    tiny = group(root, "features/tiny")
    assert dict(root.attrs) == {"avel_format": 1, "created_by": "test"}
    assert sorted(name for name, _ in root.groups()) == ["features", "labels", "videos"]
    assert kinds(group(root, "videos")) == VIDEOS
    assert kinds(tiny) == OUTCOMES | ROWS
    assert tiny.attrs["visual_shape"] == [6]
    assert tiny.attrs["audio_shape"] == [2, 4]
    assert tiny.attrs["fingerprint"] == sample.recipe().fingerprint()
    for name, shape in (("visual", (0, 6)), ("audio", (0, 2, 4))):
        array = array_of(tiny, name, needed_by="test")
        assert (array.shape, array.dtype) == (shape, np.dtype(np.float32))
        assert math.isnan(array.fill_value)


def test_layout_outcomes_are_pending_without_rows() -> None:
    tiny = group(made(num_videos=4), "features/tiny")
    columns: dict[str, Any] = {
        name: np.asarray(array_of(tiny, name, needed_by="test")[...]).tolist() for name in OUTCOMES
    }
    assert columns == {
        "row_start": [-1] * 4,
        "row_count": [0] * 4,
        "status": ["pending"] * 4,
        "reason": [""] * 4,
        "detail": [""] * 4,
        "attempts": [0] * 4,
    }


def test_layout_every_chunk_ends_with_its_checksum_and_vectors_are_stored_plain() -> None:
    root = made()
    tiny = group(root, "features/tiny")
    assert codecs(array_of(tiny, "visual", needed_by="test")) == ["Crc32cCodec"]
    assert codecs(array_of(tiny, "audio", needed_by="test")) == ["BloscCodec", "Crc32cCodec"]
    for of in (tiny, group(root, "videos")):
        assert {codecs(column)[-1] for _, column in of.arrays()} == {"Crc32cCodec"}


@pytest.mark.parametrize(
    ("storage", "chunks", "lengths"),
    [
        ("float32", ChunkSizes(feature_bytes=100, videos=5, rows=7), (4, 3, 5, 7)),
        ("float16", ChunkSizes(feature_bytes=100, videos=5, rows=7), (8, 6, 5, 7)),
        ("float32", ChunkSizes(feature_bytes=1), (1, 1, 4096, 16384)),
        ("float32", None, (2**20 // 24, 2**20 // 32, 4096, 16384)),
    ],
)
def test_layout_chunks_have_the_sizes_asked_for(
    storage: str, chunks: ChunkSizes | None, lengths: tuple[int, ...]
) -> None:
    root = made(chunks=chunks, storage=storage)
    tiny = group(root, "features/tiny")
    names = ("visual", "audio", "status", "start_s")
    assert tuple(array_of(tiny, name, needed_by="test").chunks[0] for name in names) == lengths
    assert array_of(group(root, "videos"), "id", needed_by="test").chunks == (lengths[2],)


def test_check_of_an_undamaged_hierarchy_gives_what_was_laid_out() -> None:
    root = made(num_videos=3)
    assert check_root(root, "s") == 3
    entry = check_recipe(group(root, "features/tiny"), "tiny", num_videos=3, uri="s")
    assert (entry.recipe, entry.rows, entry.card) == (sample.recipe(), 0, {"licence": "none"})
    assert (entry.shape("visual"), entry.shape("audio")) == ((6,), (2, 4))


@pytest.mark.parametrize(
    ("stored", "message"),
    [
        (None, "s: an Icechunk repository, but not an avel store"),
        ("1", "avel_format must be a whole number, got '1'"),
        (True, "avel_format must be a whole number"),
        (0, "avel_format must be a whole number"),
        (2, "format 2, this avel reads up to 1"),
    ],
)
def test_check_root_of_another_format_is_refused(stored: object, message: str) -> None:
    root = made()
    if stored is None:
        del root.attrs["avel_format"]
    else:
        root.attrs["avel_format"] = stored  # type: ignore[assignment]  # wrong on purpose
    with pytest.raises(StoreError, match=message):
        check_root(root, "s")


def remade(of: zarr.Group, name: str, dtype: str, shape: tuple[int, ...]) -> None:
    del of[name]
    of.create_array(name, shape=shape, dtype=dtype)


def edited(**attributes: Any) -> Callable[[zarr.Group], object]:
    return lambda tiny: tiny.attrs.update(attributes)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda videos: videos.__delitem__("unit"), "no array videos/unit"),
        (lambda videos: remade(videos, "unit", "float64", (3,)), r"videos/unit: damaged: needs one dimension of int32"),
        (lambda videos: remade(videos, "unit", "int32", (3, 1)), r"needs one dimension of int32, has int32 \(3, 1\)"),
        (lambda videos: remade(videos, "id", "int32", (3,)), "videos/id: damaged: needs one dimension of text"),
        (lambda videos: remade(videos, "unit", "int32", (4,)), "videos/unit: damaged: needs 3 entries"),
    ],
)
def test_check_root_names_a_damaged_column(damage: Callable[[zarr.Group], object], message: str) -> None:
    root = made()
    damage(group(root, "videos"))
    with pytest.raises(StoreError, match=message):
        check_root(root, "s")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (edited(recipe=1), "damaged attributes: recipe must be JSON text, got 1"),
        (edited(recipe="{}"), "damaged attributes"),
        (edited(recipe=sample.recipe("other").to_json()), "name or fingerprint"),
        (edited(recipe=sample.recipe(revision=9).to_json()), "name or fingerprint"),
        (edited(fingerprint="0" * 64), "name or fingerprint"),
        (edited(visual_shape=[6, 0]), "damaged attributes: a feature's shape"),
        (edited(card=[]), r"damaged attributes: card must be an object, got \[\]"),
        (edited(visual_shape=None), "an array visual that the attributes"),
        (edited(visual_shape=[7]), r"features/tiny/visual: damaged: needs float32 \(0, 7\), has float32 \(0, 6\)"),
        (lambda tiny: remade(tiny, "visual", "float64", (0, 6)), r"needs float32 \(0, 6\), has float64 \(0, 6\)"),
        (lambda tiny: remade(tiny, "visual", "float32", (1, 6)), r"needs float32 \(0, 6\), has float32 \(1, 6\)"),
        (lambda tiny: tiny.__delitem__("audio"), "no array features/tiny/audio"),
        (lambda tiny: remade(tiny, "end_s", "float64", (1,)), "features/tiny/end_s: damaged: needs 0 entries"),
        (lambda tiny: remade(tiny, "status", "int8", (3,)), "features/tiny/status: damaged"),
        (lambda tiny: remade(tiny, "row_count", "int32", (2,)), "features/tiny/row_count: damaged: needs 3 entries"),
    ],
)
def test_check_recipe_names_what_is_damaged(damage: Callable[[zarr.Group], object], message: str) -> None:
    tiny = group(made(), "features/tiny")
    damage(tiny)
    with pytest.raises(StoreError, match=message):
        check_recipe(tiny, "tiny", num_videos=3, uri="s")


def test_group_and_array_are_not_taken_for_each_other() -> None:
    root = made()
    with pytest.raises(StoreError, match="where: the store is damaged or not an avel store: no group videos/id"):
        group_of(root, "videos/id", needed_by="where")
    with pytest.raises(StoreError, match=r"where: .*no array /?features"):
        array_of(root, "features", needed_by="where")


def test_check_outcomes_takes_exactly_the_rows_there_are() -> None:
    """Against the rule said video by video, over all small offsets and counts."""
    for start in range(-3, 5):
        for count in range(-2, 5):
            sound = (start == -1 and count == 0) or (start >= 0 and count >= 0 and start + count <= 3)
            starts: NDArray[np.int64] = np.array([0, start])
            counts = np.array([1, count], np.int32)
            if sound:
                check_outcomes(starts, counts, ["extracted", "pending"], rows=3, where="here")
            else:
                with pytest.raises(StoreError, match=r"here: damaged: (row offsets|a video's rows)"):
                    check_outcomes(starts, counts, ["extracted", "pending"], rows=3, where="here")
    with pytest.raises(StoreError, match="here: damaged: unknown status 'lost'"):
        check_outcomes(np.array([0]), np.array([1]), ["lost"], rows=1, where="here")


@pytest.mark.parametrize("value", [[], [0], [-1], [1.0], [True], ["1"], "6", 6, {"6": 6}, [[6]]])
def test_read_shape_refuses_what_is_none(value: object) -> None:
    with pytest.raises(ValueError, match="a feature's shape must be a list of numbers above 0"):
        read_shape(value)


def test_read_shape_gives_a_tuple_or_none() -> None:
    assert read_shape([7, 7, 512]) == (7, 7, 512)
    assert read_shape(None) is None
