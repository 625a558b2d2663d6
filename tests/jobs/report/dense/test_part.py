from __future__ import annotations

import argparse
import json
import re
import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from jobs.cli.main import main
from jobs.report.commands import commands
from jobs.report.dense.scores import KINDS
from jobs.report.reported_run import read_run
from jobs.train.verb import add_arguments
from tests.jobs.report.document import Document, check_self_contained
from tests.jobs.report.made_dense import CLASSES, metrics_of, rows, run_fields, score_of

HOSTILE = '<script>alert("x")</script>\nnew line "quoted" & \u202ereversed'


def _report(folder: Path, *more: str) -> tuple[str, Document]:
    assert main(["report", str(folder), *more]) == 0
    html = (folder / "report.html").read_text(encoding="utf-8")
    check_self_contained(html)
    return html, Document(html)


def _percent(value: float) -> str:
    return f"{100 * value:.1f} %"


def test_page_shows_map_of_the_run_the_baselines_and_the_runs_compared(make_run: Any) -> None:
    made, other_made = rows(20), rows(20, seed=1)
    other = make_run("other", CLASSES, None, **run_fields(other_made))
    html, document = _report(make_run("run", CLASSES, made, **run_fields(made)), "--compare", str(other))
    table = document.table("Metric")
    mine, theirs = metrics_of(made), metrics_of(other_made)
    assert [row[0] for row in table[1:]] == [
        "Mean mAP 0.1:0.9",
        "Mean mAP 0.5:0.9",
        *(f"mAP@0.{tenth}" for tenth in range(1, 10)),
    ]
    assert table[1][1:] == [
        f"{100 * mine['average_map']:.2f} %",
        "25.00 %",
        f"{100 * theirs['average_map']:.2f} %",
        "12.50 %",
        "6.25 %",
    ]
    assert table[7][1] == f"{100 * mine['map_0.5']:.2f} %"
    assert "each class, all the time" in table[0][4]
    (bars,) = re.findall(
        r'<ul class="bars" aria-label="Mean mAP 0.1:0.9 of each system">.*?</ul>', html, flags=re.DOTALL
    )
    assert re.findall(r'<span class="name">(.*?)</span>', bars) == [
        "loco, audio and frames",
        "loco, audio and frames (other)",  # two bars of one name are told apart
        "each class, all the time",
        "each class, in the middle",
    ]
    assert f"20 items, {sum(len(row['events_true']) for row in made)} events" in document.text
    for only_of_segments in ("segments", "Confusion", "Recall"):
        assert only_of_segments not in document.text


def test_page_shows_rows_and_curves_of_seen_and_unseen_classes(make_run: Any) -> None:
    made = rows(20)
    fields = run_fields(made)
    test = fields["metrics"]["test"]
    test |= {f"{name}_{group}": value / 2 for name, value in list(test.items()) for group in ("seen", "unseen")}
    html, document = _report(make_run("run", CLASSES, made, unseen=["rain"], **fields))
    shown = [row[0] for row in document.table("Metric")[1:]]
    assert "mAP@0.5, unseen classes" in shown
    assert shown.index("Mean mAP 0.1:0.9, seen classes") > shown.index("mAP@0.9")
    assert _polylines(html, "mAP on test") == [9, 9, 9]
    assert document.table("Class")[4][0] == "rainunseen"


def _polylines(html: str, title: str) -> list[int]:
    """Points of each curve of a chart."""
    (svg,) = re.findall(rf'<svg class="chart[^>]*aria-label="{title} over[^>]*>.*?</svg>', html, flags=re.DOTALL)
    return [len(points.split()) for points in re.findall(r'<polyline class="curve [^"]*" points="([^"]*)"', svg)]


def test_page_chart_has_a_curve_a_run_and_lower_numbers_stand_lower(make_run: Any) -> None:
    made = rows(20)
    others = [make_run(f"other {n}", CLASSES, None, **run_fields(rows(20, seed=n))) for n in (1, 2)]
    folder = make_run("run", CLASSES, made, **run_fields(made))
    html, document = _report(folder, "--compare", *map(str, others))
    assert _polylines(html, "mAP on test") == [9, 9, 9]
    points = re.findall(r'<polyline class="curve k-val" points="([^"]*)"', html)[0].split()
    heights = [-float(point.split(",")[1]) for point in points]
    values = [metrics_of(made)[f"map_0.{tenth}"] for tenth in range(1, 10)]
    scale = (heights[0] - heights[-1]) / (values[0] - values[-1])
    np.testing.assert_allclose(heights, [heights[0] + scale * (v - values[0]) for v in values], atol=0.3)
    labels = [attributes.get("aria-label", "") for tag, attributes in document.elements if tag == "svg"]
    assert "Mean mAP 0.1:0.9 on val over epochs 1 to 3; at the chosen epoch 2: val 20.0 %" in labels


def test_page_class_table_is_of_the_predictions_and_agrees_with_the_record(make_run: Any) -> None:
    made = rows(40)
    _, document = _report(make_run("run", CLASSES, made, **run_fields(made)))
    score = score_of(made)
    shown = document.table("Class")[1:]
    for k, label in enumerate(CLASSES):
        events = sum(event[2] == k for row in made for event in row["events_true"])
        assert shown[k] == [label, _percent(score.ap_TK[4, k]), _percent(score.ap_TK[:, k].mean()), str(events)]
    mean = np.mean([float(row[2].removesuffix(" %")) for row in shown])
    assert mean == pytest.approx(100 * metrics_of(made)["average_map"], abs=0.06)
    assert "different evaluations" not in document.text


def test_page_says_where_the_predictions_are_not_those_of_the_record(make_run: Any) -> None:
    made = rows(40)
    fields = run_fields(made)
    told = fields["metrics"]["test"]["average_map"]
    fields["metrics"]["test"] |= {"average_map": told + 0.01}
    _, document = _report(make_run("run", CLASSES, made, **fields))
    assert f"mean mAP of {_percent(told)}, the record has {_percent(told + 0.01)}" in document.text


def test_page_names_the_best_and_the_worst_of_many_classes(make_run: Any) -> None:
    labels = [f"sound {k}" for k in range(30)]
    made = rows(150, num_classes=30)
    html, _ = _report(make_run("run", labels, made, **run_fields(made, num_classes=30)))
    average_K = score_of(made).ap_TK.mean(axis=0)
    order = np.argsort(-average_K, kind="stable")
    for title, wanted in (("The best classes", order[:8]), ("The worst classes", order[::-1][:8])):
        (block,) = re.findall(rf'<ul class="bars" aria-label="{title}.*?</ul>', html, flags=re.DOTALL)
        assert re.findall(r'<span class="name">(.*?)</span>', block) == [labels[k] for k in wanted]
        assert re.findall(r'<span class="value">(.*?)</span>', block) == [_percent(average_K[k]) for k in wanted]


def test_page_table_of_errors_sums_to_the_whole(make_run: Any) -> None:
    made = rows(40)
    html, document = _report(make_run("run", CLASSES, made, **run_fields(made)))
    table = document.table("Predictions")
    assert tuple(table[0][2:]) == KINDS
    events = sum(len(row["events_true"]) for row in made)
    assert [row[0] for row in table[1:]] == ["best G", "best 3 × G", "best 10 × G"]
    assert int(table[1][1]) == events
    for row in table[1:]:
        assert sum(float(cell.removesuffix(" %")) for cell in row[2:]) == pytest.approx(100, abs=0.4)
    assert html.count('class="stack labelled"') == 3
    lengths = document.table("Length")
    assert sum(int(row[1]) for row in lengths[1:]) == events


def test_page_timelines_have_a_mark_an_event_and_are_fuller_the_surer(make_run: Any) -> None:
    made = [
        {
            "item": "i",
            "video": "v",
            "duration_s": 20.0,
            "events_true": [[0, 5, 0], [10, 15, 1]],
            "events_pred": [[0, 5, 0, 0.9], [10, 16, 1, 0.6], [1, 5, 0, 0.55], [17, 19, 2, 0.1]],
        }
    ]
    html, document = _report(make_run("run", CLASSES, made, **run_fields(made)))
    marks = [attributes for _, attributes in document.elements if attributes.get("class", "").startswith("mark ")]
    # Those of 0.6 and more: there F1 is 1.
    assert [attributes["title"] for attributes in marks] == [
        "bark, 0 to 5 s, found",
        "bark, 0 to 5 s, score 0.90, right",
        "horn, 10 to 15 s, found",
        "horn, 10 to 16 s, score 0.60, right",
    ]
    assert marks[3]["style"] == "left:50.0%;width:30.0%"
    assert html.count('<i style="opacity:0.9"></i>') == html.count('<i style="opacity:0.6"></i>') == 1
    assert "2 of 2 events found, 0 false, F1 1.00" in document.text
    assert "a score of 0.600 or more" in document.text


def test_page_escapes_what_strangers_wrote(make_run: Any) -> None:
    made = rows(8)
    for n, row in enumerate(made):
        row["item"], row["video"] = f"{HOSTILE}{n}", HOSTILE
    fields = run_fields(made) | {"dataset": {"name": HOSTILE, "root": HOSTILE, "media": HOSTILE}}
    html, document = _report(make_run("run", [HOSTILE, "</style><b>", "drums", "rain"], made, **fields))
    assert "<script" not in html.lower()
    assert "</style><b>" not in html
    assert "\u202e" not in html
    assert r"<script>alert(" in document.text, "shown as text"


def test_page_without_predictions_or_metrics_or_events_still_renders(make_run: Any) -> None:
    made = rows(3)
    bare = run_fields(made) | {"metrics": {}, "history": [], "baselines": {}}
    _, document = _report(make_run("bare", CLASSES, None, **bare))
    for said in ("has no metrics yet", "no predictions of the test split", "no training history"):
        assert said in document.text
    for row in made:
        row["events_true"] = []
    _, document = _report(make_run("no events", CLASSES, made, **bare))
    assert "no predictions of the test split to count" in document.text
    _report(make_run("no items", CLASSES, [], **bare))
    _, document = _report(make_run("no videos", CLASSES, rows(3), **bare), "--videos", "0")
    assert "No video is shown" in document.text


def test_page_says_that_heads_of_segments_have_other_measures(make_run: Any) -> None:
    made = rows(5)
    segments = make_run("segments", CLASSES, None, background=None, metrics={"test": {"segment_map": 0.25}})
    dense = make_run("dense", CLASSES, made, **run_fields(made))
    _, document = _report(dense, "--compare", str(segments))
    assert "segments decides segment by segment: this run's measures do not apply to it." in document.text
    _, document = _report(segments, "--compare", str(dense))
    assert "dense finds events with times of their own: this run's measures" in document.text


def test_page_of_unav100s_size_stays_small(make_run: Any) -> None:
    labels = [f"a sound with a long name, number {k}" for k in range(100)]
    made = rows(2000, num_classes=100)
    html, document = _report(make_run("run", labels, made, **run_fields(made, num_classes=100)))
    assert len(html.encode()) < 1_000_000
    assert len(document.table("Class")) == 101


def test_page_commands_tell_settings_of_dense_training_that_train_knows(make_run: Any) -> None:
    training = {"epochs": 40, "warmup_epochs": 5, "crop_share": 0.9, "max_segments": 256, "keep": "last"}
    fields = run_fields(rows(2)) | {"training": training}
    fields["dataset"] |= {"unseen": "0.25"}
    run = read_run(make_run("run", CLASSES, None, **fields))
    lines = commands(run, out=Path("page.html"), num_videos=1, compared=[]).splitlines()
    (train,) = [shlex.split(line)[2:] for line in lines if line.startswith("avel train")]
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    told = vars(parser.parse_args(train))
    assert training == {name: told[name] for name in training}
    assert (told["head"], told["unseen"]) == ("loco", "0.25")


def test_page_commands_say_none_where_the_published_value_was_switched_off(make_run: Any) -> None:
    fields = run_fields(rows(2)) | {"training": {"ema": None, "clip_norm": 0.5, "max_segments": None}}
    run = read_run(make_run("run", CLASSES, None, **fields))
    line = next(
        line
        for line in commands(run, out=Path("page.html"), num_videos=1, compared=[]).splitlines()
        if " train " in line
    )
    assert "--ema none" in line
    assert "--max-segments none" in line
    assert "--clip-norm 0.5" in line


def test_report_shows_pictures_of_the_whole_video_and_says_what_is_gone(
    make_run: Any, make_store: Any, red_then_blue: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    uri, snapshot = make_store(
        {"video 0": (str(red_then_blue), "extracted", ""), "video 1": (str(tmp_path / "gone.mp4"), "extracted", "")}
    )
    made = rows(2, duration_s=2.0)
    folder = make_run("run", CLASSES, made, store={"uri": uri, "snapshot": snapshot}, **run_fields(made))
    assert main(["report", str(folder), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["items"], told["videos"], told["videos_unreadable"]) == (2, 2, ["video 1"])
    html = (folder / "report.html").read_text(encoding="utf-8")
    assert html.count("data:image/webp;base64,") == 1
    assert "The medium can no longer be read. missing_file" in html


def test_report_refuses_the_run_filter_and_names_a_damaged_row(
    make_run: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    made = rows(2)
    fields = run_fields(made)
    folder = make_run("run", CLASSES, made, **fields)
    assert main(["report", str(folder), "--smooth", "3"]) == 2
    made[1]["events_pred"][0][3] = 2
    (folder / "predictions_test.json").write_text(json.dumps(made))
    assert main(["report", str(folder)]) == 1
    assert "predictions_test.json[1].events_pred[0]: needs a score in 0 .. 1, got 2" in capsys.readouterr().err


def test_report_of_a_trained_head_agrees_with_its_record(tmp_path: Path) -> None:
    """Planted features, a head of events trained for one epoch, and its page."""
    rng = np.random.default_rng(0)
    database: dict[str, Any] = {}
    for n in range(16):
        events = []
        for k in rng.permutation(3)[:2].tolist():
            start = float(rng.uniform(0, 30))
            events.append({"segment": [start, start + float(rng.uniform(5, 25))], "label": CLASSES[k], "label_id": k})
        subset = ("train", "train", "validation", "test")[n % 4]
        database[f"video{n}"] = {"duration": 60.0, "annotations": events, "subset": subset}
    (tmp_path / "annotations").mkdir()
    text = json.dumps({"version": "unav100", "database": database})
    (tmp_path / "annotations" / "unav100_annotations.json").write_text(text)
    root, store, folder = tmp_path / "annotations", tmp_path / "store", tmp_path / "run"
    assert main(["synth-features", "unav100", "--root", str(root), "--store", str(store)]) == 0
    words = ["--dataset", "unav100", "--root", str(root), "--store", str(store), "--out", str(folder)]
    assert main(["train", *words, "--head", "action_former", "--set", "width=16", "--epochs", "1"]) == 0
    html, document = _report(folder)
    record = read_run(folder).record
    numbers = record.metrics["test"]
    assert "different evaluations" not in document.text
    shown = [float(row[2].removesuffix(" %")) for row in document.table("Class")[1:]]
    assert np.mean(shown) == pytest.approx(100 * numbers["average_map"], abs=0.06)
    assert document.table("Metric")[1][1] == f"{100 * numbers['average_map']:.2f} %"
    assert _polylines(html, "mAP on test") == [9]
    assert html.count('class="card timeline"') == 4
