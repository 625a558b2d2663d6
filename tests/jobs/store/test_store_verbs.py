"""`avel store ...` as a person runs it: exit statuses, one JSON object, and tables that show what the store holds."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import icechunk
import numpy as np
import pytest
import zarr

from catalog.store.reader import open_store
from catalog.store.writer import open_writer
from catalog.video import Video
from jobs.cli import main as cli
from tests import sample_store as sample


@pytest.fixture
def store(tmp_path: Path) -> Path:
    partial = sample.result(3, status="partial", reason="no_audio", features={"tiny": sample.rows(3, 2, audio=False)})
    sample.make(tmp_path / "s", [sample.result(1), sample.quarantined(2), partial])
    return tmp_path / "s"


def _json(capsys: pytest.CaptureFixture[str], *words: str | Path, status: int = 0) -> dict[str, Any]:
    assert cli.main(["store", *map(str, words), "--json"]) == status
    value = json.loads(capsys.readouterr().out)
    assert isinstance(value, dict)
    return value


def test_inspect_json_tells_counts_and_recipes(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    told = _json(capsys, "inspect", store, "--statistics")
    assert told["snapshot"] == open_store(store).snapshot_id
    assert told["videos"] == {
        "total": 3,
        "status": {"extracted": 1, "partial": 1, "quarantined": 1},
        "reasons": {"no_audio": 1, "not_media": 1},
        "duration_s": 3.0 + 2.0,
        "media_bytes": 101 + 102 + 103,
    }
    recipe = told["recipes"]["tiny"]
    assert recipe["settings"] == json.loads(sample.recipe().to_json())
    assert recipe["fingerprint"] == sample.recipe().fingerprint()
    assert (recipe["rows"], recipe["visual_valid_rows"], recipe["audio_valid_rows"]) == (5, 5, 3)
    assert recipe["feature_bytes"] == 5 * (6 + 4) * 4
    assert recipe["status"] == {"extracted": 1, "partial": 1, "quarantined": 1}
    assert told["stored_bytes"] > 0
    audio = told["statistics"]["tiny"]["audio"]
    assert audio["nan_share"] == pytest.approx(2 / 5)
    assert audio["mean"] == pytest.approx(sample.rows(1, 3).audio.values.mean(dtype="f8"))


def test_inspect_shows_tables(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["store", "inspect", str(store)]) == 0
    assert "card.licence" not in capsys.readouterr().out
    assert cli.main(["store", "inspect", str(store), "--statistics", "--settings"]) == 0
    shown = capsys.readouterr().out
    for text in (
        "quarantined",
        "not_media",
        "no demuxer knows it",
        "grid.hop_s",
        "card.licence",
        "3 videos",
        "norm std",
    ):
        assert text in shown


def test_inspect_of_an_empty_store_works(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from catalog.store.reader import create_store

    create_store(tmp_path / "s")
    assert _json(capsys, "inspect", tmp_path / "s")["videos"]["total"] == 0
    assert cli.main(["store", "inspect", str(tmp_path / "s")]) == 0


def test_verify_exit_status_and_list(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    told = _json(capsys, "verify", store)
    assert (told["ok"], told["problems"], told["rows"]) == (True, [], {"tiny": 5})
    assert cli.main(["store", "verify", str(store)]) == 0
    assert "sound; 3 videos, 5 rows of tiny" in capsys.readouterr().out

    session = icechunk.Repository.open(icechunk.local_filesystem_storage(str(store))).writable_session("main")
    visual = zarr.open_group(session.store, mode="a")["features/tiny/visual"]
    assert isinstance(visual, zarr.Array)
    visual[1, 0] = np.inf
    session.commit("damage")
    capsys.readouterr()  # icechunk's own warning, from this test's use of it

    told = _json(capsys, "verify", store, status=1)
    assert not told["ok"]
    assert told["problems"] == [{"where": "tiny", "video_id": "v1", "what": "visual row 1 is valid and not finite"}]
    assert cli.main(["store", "verify", str(store)]) == 1
    assert "visual row 1 is valid and not finite" in capsys.readouterr().out


def test_verify_media_hashes_files_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "media").mkdir()
    (tmp_path / "media" / "a.mp4").write_bytes(b"first")
    digest = hashlib.sha256(b"first").hexdigest()
    video = Video(id="a", uri="/there/a.mp4")
    sample.make(tmp_path / "s", [sample.result(1, video=video, sha256=digest, bytes=5)])
    assert _json(capsys, "verify", tmp_path / "s", "--media", tmp_path / "media")["hashed"] == 1
    (tmp_path / "media" / "a.mp4").write_bytes(b"other")
    told = _json(capsys, "verify", tmp_path / "s", "--media", tmp_path / "media", status=1)
    assert [problem["where"] for problem in told["problems"]] == ["media"]


@pytest.mark.parametrize("name", ["ave-h5", "unav-npy", "zarr"])
def test_export_and_import_round_trip(
    store: Path, tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    told = _json(capsys, "export", store, tmp_path / "out", "--format", name)
    assert told["recipe"] == "tiny"
    told = _json(capsys, "import", tmp_path / "out", tmp_path / "back", "--format", name)
    assert told["rows"] == {"tiny": 5}
    one, other = open_store(store), open_store(tmp_path / "back")
    assert one.recipes() == other.recipes()
    for modality in ("visual", "audio"):
        np.testing.assert_array_equal(one.read("tiny", modality).values, other.read("tiny", modality).values)
    assert one.videos().status == other.videos().status


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["export", "S", "out", "--format", "csv"], "no format 'csv'; there are ave-h5, unav-npy, zarr"),
        (["export", "S", "out", "--format", "zarr", "--recipe", "x"], "has the recipes tiny"),
        (["export", "S", "out", "--format", "zarr", "--dataset", "ave"], "--dataset ave needs --root DIR"),
        (["import", "nowhere", "S", "--format", "zarr"], "SOURCE needs a folder"),
        (
            ["import", "S", "B", "--format", "unav-npy", "--window", "x", "--hop", "1"],
            "seconds must be a finite number",
        ),
        (["import", "S", "B", "--format", "unav-npy", "--window", "1"], "--window and --hop go together"),
        (["verify", "S", "--media", "nowhere"], "--media needs a folder"),
        (["verify", "S", "--dataset", "none", "--root", "."], "no data set 'none'"),
    ],
)
def test_bad_arguments_exit_2(
    store: Path, words: list[str], said: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(store.parent)
    assert cli.main(["store", *("s" if word == "S" else word for word in words)]) == 2
    assert said in capsys.readouterr().err
    assert sorted(p.name for p in store.parent.iterdir()) == ["s"]


def test_log_tag_and_diff_tell_the_history(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first = _json(capsys, "tag", store, "v1")["snapshot"]
    opened = open_store(store)
    with open_writer(opened) as writer:
        writer.append([sample.result(2, attempts=2)], ["tiny"], replace=True)
        writer.append([sample.result(7)], ["tiny"])
        second = writer.commit("retry and one more")

    commits = _json(capsys, "log", store)["commits"]
    assert [(c["snapshot"], c["tags"]) for c in commits[:2]] == [(second, []), (first, ["v1"])]
    assert commits[0]["message"] == "retry and one more"

    told = _json(capsys, "diff", store, "v1")
    assert (told["before"], told["after"]) == (first, second)
    assert (told["added"], told["changed"], told["removed"]) == (["v7"], ["v2"], [])
    assert told["recipes"] == {"tiny": {"rows_before": 5, "rows_after": 12, "done": ["v7"], "retried": ["v2"]}}
    same = _json(capsys, "diff", store, "v1", first)
    assert (same["added"], same["changed"], same["recipes"]) == ([], [], {})

    assert cli.main(["store", "log", str(store)]) == 0
    assert cli.main(["store", "diff", str(store), "v1"]) == 0
    shown = capsys.readouterr().out
    assert "retry and one more" in shown
    assert "1 videos added, 1 changed, 0 removed" in shown
    assert cli.main(["store", "tag", str(store), "v1"]) == 1
    assert "tags never move" in capsys.readouterr().err
