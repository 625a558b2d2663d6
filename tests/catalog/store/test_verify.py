"""Every promise of a store broken once, with plain Zarr behind its back; verify must name it and nothing else."""

from __future__ import annotations

import hashlib
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import icechunk
import numpy as np
import pytest
import zarr

from catalog.store.reader import open_store
from catalog.store.verify import verify
from catalog.store.writer import open_writer
from catalog.video import Video
from tests import sample_store as sample


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store without fault, to be copied."""
    path: Path = tmp_path_factory.mktemp("sound") / "s"
    _make(path)
    return path


def _make(path: Path) -> None:
    partial = sample.result(3, status="partial", reason="no_audio", features={"tiny": sample.rows(3, 2, audio=False)})
    invalid = sample.result(4, features={"tiny": sample.rows(4, 3, invalid=(1,))})
    sample.make(path, [sample.result(1), sample.quarantined(2), partial, invalid])


def _edit(path: Path, change: Callable[[zarr.Group], None]) -> None:
    session = icechunk.Repository.open(icechunk.local_filesystem_storage(str(path))).writable_session("main")
    change(zarr.open_group(session.store, mode="a"))
    session.commit("edited")


def _set(where: str, at: Any, value: Any) -> Callable[[zarr.Group], None]:
    def change(root: zarr.Group) -> None:
        array = root[where]
        assert isinstance(array, zarr.Array)
        array[at] = value

    return change


def test_verify_of_a_sound_store_finds_nothing(tmp_path: Path) -> None:
    _make(tmp_path / "s")
    store = open_store(tmp_path / "s")
    told = verify(store, wanted=store.video_ids())
    assert told.problems == []
    assert (told.videos, told.rows, told.unreferenced_rows, told.hashed) == (4, {"tiny": 8}, {"tiny": 0}, 0)


@pytest.mark.parametrize(
    ("change", "where", "video_id", "said"),
    [
        (_set("videos/status", 0, "pending"), "videos", "v1", "not done"),
        (_set("videos/reason", 1, "bored"), "videos", "v2", "quarantined needs a known reason, has 'bored'"),
        (_set("videos/reason", 0, "no_audio"), "videos", "v1", "extracted, and yet with the reason"),
        (_set("videos/sha256", 0, "abc"), "videos", "v1", "64 hexadecimal digits"),
        (_set("videos/duration_s", 0, np.inf), "videos", "v1", "seconds or NaN, has inf"),
        (_set("videos/media", 0, "[]"), "videos", "v1", "JSON object"),
        (_set("videos/duration_s", 0, 7.0), "tiny", "v1", "3 rows; its 7 s make 7"),
        (_set("features/tiny/status", 1, "partial"), "tiny", "v2", "partial with 0 feature rows"),
        (_set("features/tiny/start_s", 1, 1.5), "tiny", "v1", r"segment 1 needs \[1, 2\) s .* has \[1.5, 2\)"),
        (_set("features/tiny/visual", (1, 2), np.nan), "tiny", "v1", "visual row 1 is valid and not finite"),
        (_set("features/tiny/visual", (1, 2), np.inf), "tiny", "v1", "visual row 1 is valid and not finite"),
        (_set("features/tiny/audio", (4, 0), 0.0), "tiny", "v3", "audio row 4 is not valid and not NaN"),
        (_set("features/tiny/visual_valid", 6, True), "tiny", "v4", "visual row 6 is valid and not finite"),
    ],
)
def test_verify_names_the_broken_promise(
    sound: Path, tmp_path: Path, change: Callable[[zarr.Group], None], where: str, video_id: str, said: str
) -> None:
    shutil.copytree(sound, tmp_path / "s")
    _edit(tmp_path / "s", change)
    (problem,) = verify(open_store(tmp_path / "s")).problems
    assert (problem.where, problem.video_id) == (where, video_id)
    assert re.search(said, problem.what), problem.what


def test_verify_finds_rows_that_two_videos_share(tmp_path: Path) -> None:
    _make(tmp_path / "s")
    _edit(tmp_path / "s", _set("features/tiny/row_start", 2, 1))
    told = verify(open_store(tmp_path / "s"))
    shared = {p.video_id for p in told.problems if "another video's too" in p.what}
    assert shared == {"v1", "v3"}
    assert told.unreferenced_rows == {"tiny": 2}


def test_verify_finds_wanted_videos_without_a_row(tmp_path: Path) -> None:
    _make(tmp_path / "s")
    (problem,) = verify(open_store(tmp_path / "s"), wanted=["v1", "lost", "lost"]).problems
    assert (problem.where, problem.video_id) == ("videos", "lost")


def test_verify_finds_an_unfinished_backfill(tmp_path: Path) -> None:
    _make(tmp_path / "s")
    store = open_store(tmp_path / "s")
    with open_writer(store) as writer:
        writer.ensure_recipe(sample.recipe("later"), visual_shape=(6,), audio_shape=(4,), card={})
        writer.append([sample.result(1, names=("later",)), sample.quarantined(2)], ["later"])
        writer.commit("half")
    told = verify(store)
    assert [(p.where, p.video_id) for p in told.problems] == [("later", "v3"), ("later", "v4")]


def test_verify_takes_a_retried_store_as_sound(tmp_path: Path) -> None:
    _make(tmp_path / "s")
    store = open_store(tmp_path / "s")
    with open_writer(store) as writer:
        writer.append([sample.result(1)], ["tiny"], replace=True)
        writer.commit("retry")
    told = verify(store)
    assert told.problems == []
    assert told.unreferenced_rows == {"tiny": 3}


def test_verify_tells_lost_chunks(tmp_path: Path) -> None:
    big = sample.result(1, count=2000)
    sample.make(tmp_path / "s", [big])
    for chunk in (tmp_path / "s" / "chunks").iterdir():
        if chunk.stat().st_size > 30_000:
            chunk.unlink()
    told = verify(open_store(tmp_path / "s"))
    assert {p.what.split(" rows from")[0] for p in told.problems} == {"visual", "audio"}


def test_verify_tells_chunks_with_a_turned_bit(tmp_path: Path) -> None:
    sample.make(tmp_path / "s", [sample.result(1, count=2000)])
    for chunk in (tmp_path / "s" / "chunks").iterdir():
        if chunk.stat().st_size > 30_000:
            content = bytearray(chunk.read_bytes())
            content[5000] ^= 1
            chunk.write_bytes(content)
    told = verify(open_store(tmp_path / "s"))
    assert {p.what.split(" rows from")[0] for p in told.problems} == {"visual", "audio"}
    assert all("checksum" in p.what for p in told.problems)


def _labelled(path: Path, features_KD: np.ndarray) -> list[Path]:
    """Two vocabularies; the chunks that came with them, the smallest first."""
    store = sample.make(path, [sample.result(1)])
    before = set((path / "chunks").iterdir())
    with open_writer(store) as writer:
        names = [f"class {i} " + "x" * 600 for i in range(len(features_KD))]
        for vocabulary in ("mine", "small"):
            used = len(names) if vocabulary == "mine" else 2
            writer.write_labels("tiny", vocabulary, names[:used], features_KD[:used, : 2000 if used > 2 else 2])
        writer.commit("labels")
    return sorted(set((path / "chunks").iterdir()) - before, key=lambda chunk: chunk.stat().st_size)


@pytest.mark.parametrize("part", ["texts", "names"])
@pytest.mark.parametrize("damage", ["turned bit", "lost"])
def test_verify_tells_a_vocabulary_that_cannot_be_read(tmp_path: Path, part: str, damage: str) -> None:
    chunks = _labelled(tmp_path / "s", np.random.default_rng(0).standard_normal((40, 2000)))
    assert verify(open_store(tmp_path / "s")).problems == []
    chunk = chunks[-1 if part == "texts" else -2]
    if damage == "lost":
        chunk.unlink()
    else:
        content = bytearray(chunk.read_bytes())
        content[len(content) // 2] ^= 1
        chunk.write_bytes(content)
    (problem,) = verify(open_store(tmp_path / "s")).problems
    assert (problem.where, problem.video_id) == ("tiny", None)
    assert problem.what.startswith("vocabulary mine cannot be read: ")
    assert "`avel labels`" in problem.what
    assert "store verify" not in problem.what
    assert damage == "lost" or "checksum" in problem.what


def test_verify_tells_texts_that_are_not_finite(tmp_path: Path) -> None:
    texts = np.random.default_rng(0).standard_normal((4, 5))
    texts[1, 2] = np.nan
    _labelled(tmp_path / "s", texts)
    told = [(p.where, p.video_id, p.what) for p in verify(open_store(tmp_path / "s")).problems]
    name = "class 1 " + "x" * 600
    assert told == [("tiny", None, f"vocabulary mine: the text of {name!r} is not finite; write it again")]


def test_verify_with_media_hashes_the_files(tmp_path: Path) -> None:
    media = tmp_path / "media"
    (media / "sub").mkdir(parents=True)
    contents = {"sub/a.mp4": b"a" * 3_000_000, "b": b"b", "c": b"c", "../up": b"u"}
    (media / "sub" / "a.mp4").write_bytes(contents["sub/a.mp4"])
    (media / "b.mp4").write_bytes(b"B")
    (tmp_path / "up").write_bytes(b"u")
    results = [
        sample.result(
            i,
            video=Video(id=video_id, uri=f"/elsewhere/{Path(video_id).name}.mp4"),
            sha256=hashlib.sha256(content).hexdigest(),
            bytes=len(content),
        )
        for i, (video_id, content) in enumerate(contents.items())
    ]
    lost = sample.result(9, status="quarantined", reason="missing_file", sha256="", features={}, duration_s=np.nan)
    sample.make(tmp_path / "s", [*results, lost])
    told = verify(open_store(tmp_path / "s"), media=media)
    assert [(p.where, p.video_id) for p in told.problems] == [("media", "b"), ("media", "c"), ("media", "../up")]
    assert "another file than was extracted" in told.problems[0].what
    assert "is not in" in told.problems[1].what
    assert told.hashed == 4
