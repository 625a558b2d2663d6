"""Damaged media: what becomes of each is a function of its bytes; runs over the same files give equal stores.

`AVEL_DAMAGED=300 AVEL_RUNS=10 pytest -m slow tests/pipeline/test_same_verdicts.py` for more of them.
"""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest

from catalog import dataset
from catalog.store.reader import open_store
from pipeline.extract import ExtractOptions, extract
from pipeline.recipes import find_recipe
from tests import small_videos as small

RECIPE = "descriptors-1s"
# Of several containers, codecs and edit lists.
SOURCES = (
    *("good_h264_aac.mp4", "editlist_trim.mp4", "editlist_tail_trim.mp4", "fragmented.mp4", "negative_cts.mp4"),
    *("h264_opus.mkv", "vp9_opus.webm", "h264_aac.ts", "mpeg4_mp3.avi", "sorenson.flv"),
)


def damage(source: Path, seed: int) -> bytes:
    """The file with a few of its bytes changed, or cut short."""
    rng, content = random.Random(seed), bytearray(source.read_bytes())
    for _ in range(rng.choice((1, 3, 10, 40))):
        content[rng.randrange(len(content))] = rng.randrange(256)
    return bytes(content[: rng.randrange(len(content) // 2, len(content))] if rng.random() < 0.2 else content)


@pytest.mark.slow
@pytest.mark.timeout(0)
def test_damaged_media_extracted_again_and_again_give_equal_stores(shared: Path, tmp_path: Path) -> None:
    files, runs = int(os.environ.get("AVEL_DAMAGED", "30")), int(os.environ.get("AVEL_RUNS", "3"))
    media = tmp_path / "media"
    media.mkdir()
    for seed in range(files):
        name = SOURCES[seed % len(SOURCES)]
        (media / f"{seed:04d}-{name}").write_bytes(damage(shared / "data" / "malformed" / name, seed))
    videos = dataset.load("folder", str(media)).videos
    stores = []
    for run in range(runs):
        summary = extract(videos, [find_recipe(RECIPE)], tmp_path / f"{run}", ExtractOptions(workers=2))
        assert sum(summary.store_statuses.values()) == files
        assert summary.store_statuses["pending"] == 0
        stores.append(small.arrays(tmp_path / f"{run}"))
    for other in stores[1:]:
        assert small.differences(stores[0], other) == []
    statuses = set(open_store(tmp_path / "0").videos().status)
    assert {"extracted", "quarantined"} <= statuses, "damage of both kinds"
