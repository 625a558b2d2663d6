from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from jobs.cli.main import main


def _row(video: str, true_T: list[int], predicted_T: list[int]) -> dict[str, Any]:
    num = len(true_T)
    return {"item": video, "video": video, "labels_true": true_T, "labels_pred": predicted_T} | {
        "score": [0.5] * num,
        "mask": [True] * num,
    }


def test_report_writes_one_page_with_pictures_and_says_what_is_gone(
    make_run: Any, make_store: Any, red_then_blue: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    uri, snapshot = make_store(
        {
            "here": (str(red_then_blue), "extracted", ""),
            "gone": (str(tmp_path / "gone.mp4"), "extracted", ""),
            "slow": (str(red_then_blue), "quarantined", "decoder_timeout"),
        }
    )
    rows = [_row("here", [0, 1], [0, 0]), _row("gone", [1, 1], [1, 1]), _row("slow", [1, 1], [2, 2])]
    folder = make_run("run", ["a", "b"], rows, store={"uri": uri, "snapshot": snapshot})
    assert main(["report", str(folder), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    html = (folder / "report.html").read_text(encoding="utf-8")
    assert told["file"] == str(folder / "report.html")
    assert told["bytes"] == len(html.encode()) < 3_000_000
    assert (told["items"], told["videos"]) == (3, 3)
    assert sorted(told["videos_unreadable"]) == ["gone", "slow"]
    assert told["store_problem"] == ""
    assert html.count("data:image/webp;base64,") == 1
    assert "The medium can no longer be read. missing_file" in html
    assert "decoder_timeout: the decoder did not finish in its time, twice; it was not opened again." in html


def test_report_again_writes_the_same_bytes(make_run: Any, tmp_path: Path) -> None:
    folder = make_run("run", ["a", "b"], [_row(f"v{i}", [0, 1], [0, i % 3]) for i in range(20)])
    out = tmp_path / "deep" / "er" / "page.html"
    assert main(["report", str(folder), "--out", str(out), "--videos", "5"]) == 0
    first = out.read_bytes()
    assert main(["report", str(folder), "--out", str(out), "--videos", "5"]) == 0
    assert out.read_bytes() == first
    assert [path.name for path in out.parent.iterdir()] == ["page.html"]


def test_report_of_a_store_that_is_gone_says_so_and_succeeds(
    make_run: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = make_run("run", ["a", "b"], [_row("v", [0, 1], [0, 1])])
    assert main(["report", str(folder), "--out", str(tmp_path / "page.html")]) == 0
    captured = capsys.readouterr()
    assert captured.out.startswith(str(tmp_path / "page.html"))
    assert "store can no longer be read" in captured.err
    assert "store can no longer be read" in (tmp_path / "page.html").read_text(encoding="utf-8")


def test_report_of_no_run_fails_and_names_the_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", str(tmp_path)]) == 1
    assert f"{tmp_path} is not a run" in capsys.readouterr().err


def test_report_with_bad_arguments_ends_with_2(
    make_run: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = make_run("run", ["a"], [])
    assert main(["report", str(folder), "--videos", "-1"]) == 2
    assert main(["report", str(folder), "--out", str(tmp_path)]) == 2
    assert "--videos must be 0 or more" in capsys.readouterr().err


def test_report_replaces_pages_only(make_run: Any, capsys: pytest.CaptureFixture[str]) -> None:
    folder = make_run("run", ["a", "b"], [_row("v", [0, 1], [0, 1])])
    before = (folder / "run.json").read_bytes()
    assert main(["report", str(folder), "--out", str(folder / "run.json")]) == 2
    assert "is there and is no page" in capsys.readouterr().err
    assert (folder / "run.json").read_bytes() == before
