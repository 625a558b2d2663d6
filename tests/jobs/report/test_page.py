from __future__ import annotations

import dataclasses
import re
import shlex
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from jobs.report.commands import commands
from jobs.report.page import build, render
from jobs.report.part import ReportRequest
from jobs.report.reported_run import Extraction, StoredVideo, read_run
from jobs.report.segments.part import make
from jobs.report.segments.timeline import Media, frame_strip
from pipeline.recipes import find_recipe
from tests.jobs.report.document import Document, check_self_contained

HOSTILE = '<script>alert("x")</script>\nnew line "quoted" & \u202ereversed'


@dataclasses.dataclass(frozen=True, kw_only=True)
class Shown(ReportRequest):
    """A request whose media are given instead of decoded."""

    found: Media

    def media(self, shown: Sequence[tuple[str, float]]) -> list[Media]:
        return [self.found] * len(shown)


def _page(
    folder: Path,
    *,
    num_videos: int = 0,
    media: Media | None = None,
    compared: Sequence[Path] = (),
    extraction: Extraction | None = None,
) -> tuple[str, Document]:
    run = read_run(folder)
    found = media or Media(strip_problem="it is gone", energy_problem="it is gone")
    request = Shown(
        run=run,
        split="test",
        extraction=extraction or Extraction(problem="no store here"),
        compared=[read_run(other) for other in compared],
        num_videos=num_videos,
        found=found,
    )
    again = commands(run, out=Path("page.html"), num_videos=num_videos, compared=request.compared)
    html = render(build(request, make(request), commands=again))
    check_self_contained(html)
    return html, Document(html)


def _rows(num: int, num_classes: int, num_segments: int, seed: int = 0) -> list[dict[str, Any]]:
    rng = np.random.default_rng(seed)
    rows = []
    for i in range(num):
        true_T = rng.integers(0, num_classes, num_segments)
        predicted_T = np.where(rng.random(num_segments) < 0.3, rng.integers(0, num_classes, num_segments), true_T)
        if i % 3 == 0:
            predicted_T = true_T
        rows.append(
            {
                "item": f"{i:05d}",
                "video": f"video {i}",
                "labels_true": true_T.tolist(),
                "labels_pred": predicted_T.tolist(),
                "score": rng.random(num_segments).round(3).tolist(),
                "mask": [True] * num_segments,
            }
        )
    return rows


def test_page_shows_the_metrics_of_the_run_the_baselines_and_the_runs_compared(make_run: Any) -> None:
    config = {"visual_width": 4, "audio_width": 4, "num_classes": 3, "modality": "audio"}
    other = make_run("other", ["a", "b"], None, config=config, metrics={"test": {"accuracy": 0.3125}}, seed=4)
    folder = make_run("run", ["a", "b"], _rows(5, 3, 4))
    _, document = _page(folder, compared=[other])
    heading, accuracy, loss = document.table("Metric")
    assert accuracy == ["Accuracy", "43.75 %", "50.00 %", "31.25 %", "17.80 %", "4.56 %"]
    assert loss == ["Loss", "1.5", "1.25", "–", "–", "–"]
    assert heading[1] == "linear, audio and framestest"
    assert heading[3] == "linear, audio onlyother, test"
    assert "majority" in heading[4]
    assert "always_event" in heading[5]


def test_page_says_first_in_one_sentence_what_was_measured(make_run: Any) -> None:
    config = {"visual_width": 4, "audio_width": 4, "num_classes": 3, "modality": "audio"}
    other = make_run("other", ["a", "b"], None, config=config, metrics={"test": {"accuracy": 0.3125}})
    html, document = _page(make_run("run", ["a", "b"], _rows(5, 3, 4)), compared=[other])
    told = (
        "Audio and frames together: 43.8 % of segments right; audio alone 31.2, the most frequent class 17.8 (seed 3; "
        "5 test videos)."
    )
    assert told in document.text
    assert html.index(told) < html.index("<dl")


def test_page_of_another_head_s_run_compared_names_the_heads(make_run: Any) -> None:
    config = {"visual_width": 4, "audio_width": 4, "num_classes": 3}
    other = make_run("other", ["a", "b"], None, head="ave_clip", config=config, metrics={"test": {"accuracy": 0.5}})
    _, document = _page(make_run("run", ["a", "b"], None), compared=[other])
    assert "Linear, audio and frames together: 43.8 % of segments right; ave_clip 50.0, the most" in document.text
    assert "17.8 (seed 3)." in document.text


def test_page_of_several_seeds_shows_means_and_deviations_and_the_commands_that_make_them(
    make_run: Any, tmp_path: Path
) -> None:
    config = {"visual_width": 4, "audio_width": 4, "num_classes": 3, "modality": "visual"}
    made: list[tuple[str, tuple[float, float], dict[str, Any]]] = [
        ("runs", (0.5, 0.75), {}),
        ("others", (0.25, 0.25), {"config": config}),
    ]
    for folder, values, fields in made:
        (tmp_path / folder).mkdir()
        for seed, value in enumerate(values):
            metrics = {"test": {"accuracy": value, "loss": 2 * value}}
            make_run(f"{folder}/seed-{seed}", ["a", "b"], _rows(5, 3, 4), seed=seed, metrics=metrics, **fields)
    _, document = _page(tmp_path / "runs", compared=[tmp_path / "others"])
    _, accuracy, loss = document.table("Metric")
    assert accuracy == ["Accuracy", "62.50 ± 17.68 %", "25.00 ± 0.00 %", "17.80 %", "4.56 %"]
    assert loss == ["Loss", "1.25 ± 0.3536", "0.5 ± 0", "–", "–"]
    assert (
        "Audio and frames together: 62.5 ± 17.7 % of segments right; frames alone 25.0 ± 0.0, the most frequent class "
        "17.8 (mean ± sd of 2 seeds; 5 test videos)."
    ) in document.text
    assert "means ± sd of 2 seeds; all below this line is of seed-0." in document.text
    assert "--seed 0 --seeds 2 " in document.text
    assert f"--out {tmp_path / 'runs'} " in document.text


def test_page_says_where_a_run_compared_was_made_from_something_else(make_run: Any) -> None:
    other = make_run("other", ["a"], None, dataset={"name": "unav100", "root": "/data/unav", "media": None})
    _, document = _page(make_run("run", ["a"], []), compared=[other])
    assert "other was made with another data set: unav100, not ave." in document.text


def test_page_class_table_equals_a_slow_count(make_run: Any) -> None:
    rows = _rows(30, 4, 10)
    _, document = _page(make_run("run", ["a", "b", "c"], rows))
    pairs = [p for row in rows for p in zip(row["labels_true"], row["labels_pred"], strict=True)]
    for k, (label, shown) in enumerate(zip(["a", "b", "c", "background"], document.table("Class")[1:], strict=True)):
        hits = sum(t == p == k for t, p in pairs)
        recall = hits / sum(t == k for t, _ in pairs)
        precision = hits / sum(p == k for _, p in pairs)
        support = sum(t == k for t, _ in pairs)
        assert shown == [label, f"{100 * recall:.1f} %", f"{100 * precision:.1f} %", str(support)]


def test_page_confusions_equal_a_slow_count(make_run: Any) -> None:
    rows = _rows(30, 4, 10)
    html, document = _page(make_run("run", ["a", "b", "c"], rows))
    pairs = [p for row in rows for p in zip(row["labels_true"], row["labels_pred"], strict=True)]
    labels = ["a", "b", "c", "background"]
    counts = {
        (labels[i], labels[j]): sum(pair == (i, j) for pair in pairs) for i in range(4) for j in range(4) if i != j
    }
    shown = {(row[0], row[1]): int(row[2]) for row in document.table("True class")[1:]}
    assert shown == {pair: count for pair, count in counts.items() if count}
    assert [int(row[2]) for row in document.table("True class")[1:]] == sorted(shown.values(), reverse=True)
    share = 100 * counts["a", "b"] / sum(t == 0 for t, _ in pairs)
    assert f"a called b: {counts['a', 'b']} segments, {share:.1f} %" in html


def test_page_shows_counts_by_status_and_reason(make_run: Any) -> None:
    extraction = Extraction(
        statuses={"pending": 0, "extracted": 1200, "partial": 3, "quarantined": 4},
        reasons=(("quarantined", "missing_file", 4), ("partial", "no_audio", 3)),
        duration_s=12070.0,
    )
    _, document = _page(make_run("run", ["a"], []), extraction=extraction)
    assert "1,207 videos, 3.4 h" in document.text
    assert "extracted 1,200" in document.text
    assert document.table("Reason")[1:] == [
        ["missing_file", "nothing lies at the path or URL", "quarantined", "4"],
        ["no_audio", "frames only: the audio features are missing", "partial", "3"],
    ]


def test_page_marks_the_chosen_epoch(make_run: Any) -> None:
    html, document = _page(make_run("run", ["a"], []))
    assert "The weights of epoch 2 were kept" in document.text
    labels = [attributes.get("aria-label", "") for tag, attributes in document.elements if tag == "svg"]
    assert "Loss over epochs 1 to 3; at the chosen epoch 2: train 1, val 1.25" in labels
    assert "Accuracy on val over epochs 1 to 3; at the chosen epoch 2: val 50.0 %" in labels
    assert html.count('class="chosen"') == 4  # two charts, and the sample in each key


def test_page_shows_what_the_head_tells_of_itself_by_epoch(make_run: Any) -> None:
    history = [{"epoch": n, "train_loss": 1.0, "learning_rate": 1e-3, "val_loss": 1.0, "sigma": n / 2} for n in (1, 2)]
    _, document = _page(make_run("run", ["a"], None, history=history))
    labels = [attributes.get("aria-label", "") for tag, attributes in document.elements if tag == "svg"]
    told = [label for label in labels if " over epochs " in label]
    assert [label.split(" over ")[0] for label in told] == ["Loss", "sigma"]
    assert told[1].endswith("at the chosen epoch 2: after the steps 1")


def test_page_escapes_what_strangers_wrote(make_run: Any) -> None:
    rows = _rows(4, 3, 4)
    for n, row in enumerate(rows):
        row["video"], row["item"] = HOSTILE, f"{HOSTILE}{n}"
    folder = make_run(
        "run",
        [HOSTILE, "</style><b>", "background"][:2],
        rows,
        store={"uri": HOSTILE, "snapshot": HOSTILE},
        dataset={"name": HOSTILE, "root": HOSTILE, "media": HOSTILE},
        versions={HOSTILE: HOSTILE},
        created=HOSTILE,
        training={HOSTILE: HOSTILE, "modality": HOSTILE},
    )
    video = StoredVideo(uri=HOSTILE, duration_s=4.0, status="partial", reason=HOSTILE)
    extraction = Extraction(reasons=(("partial", HOSTILE, 1),), statuses={HOSTILE: 1}, videos={HOSTILE: video})
    media = Media(strip_problem=HOSTILE, energy_problem=HOSTILE + "!")
    html, document = _page(folder, num_videos=4, media=media, extraction=extraction)
    assert "<script" not in html.lower()
    assert "</style><b>" not in html
    assert "\u202e" not in html
    assert r"<script>alert(" in document.text, "shown as text"
    assert r"</script>\nnew line" in document.text, "a new line is made visible"
    # The same through the other message: a store that cannot be read.
    html, _ = _page(folder, num_videos=4, extraction=Extraction(problem=HOSTILE))
    assert "<script" not in html.lower()


def test_page_commands_quote_what_strangers_wrote(make_run: Any) -> None:
    run = read_run(make_run("run", ["a"], [], dataset={"name": "ave", "root": "/data/a b; rm -rf /", "media": None}))
    first, *_ = commands(run, out=Path("page.html"), num_videos=1, compared=[]).splitlines()
    assert "--root '/data/a b; rm -rf /'" in first


def test_page_commands_name_the_preset_and_each_changed_setting(make_run: Any) -> None:
    preset = find_recipe("descriptors-1s")
    changed = dataclasses.replace(
        preset,
        name="my-half",
        grid=dataclasses.replace(preset.grid, hop_s=Fraction(1, 2)),
        audio=dataclasses.replace(preset.audio, rate_hz=22050) if preset.audio else None,
    )
    for i, recipe in enumerate((preset, changed)):
        run = read_run(make_run(f"run {i}", ["a"], [], recipe=recipe))
        extract, *_ = commands(run, out=Path("page.html"), num_videos=1, compared=[]).splitlines()
        words = shlex.split(extract)
        told = {word: words[j + 1] for j, word in enumerate(words) if word in ("--recipe", "--as")}
        changes = dict(words[j + 1].split("=", 1) for j, word in enumerate(words) if word == "--set")
        made = dataclasses.replace(find_recipe(told["--recipe"]).changed(changes), name=told.get("--as", preset.name))
        assert made == recipe


def test_page_timelines_say_where_the_medium_is_gone(make_run: Any) -> None:
    _, document = _page(make_run("run", ["a", "b"], _rows(6, 3, 5)), num_videos=4)
    assert document.text.count("it is gone") == 4
    assert not [tag for tag, _ in document.elements if tag == "img"]
    assert "With mistakes" in document.text
    assert "Right throughout" in document.text


def test_page_without_test_predictions_still_renders(make_run: Any) -> None:
    folder = make_run("run", ["a"], None, metrics={}, baselines={}, history=[], training={})
    _, document = _page(folder, num_videos=12)
    for said in ("has no metrics yet", "no predictions of the test split", "no training history", "no store here"):
        assert said in document.text


def test_page_of_zero_items_and_zero_videos_still_renders(make_run: Any) -> None:
    _, document = _page(make_run("run", ["a"], []), num_videos=0)
    assert "No video is shown" in document.text


def test_page_of_100_classes_and_of_long_multi_event_videos_stays_small(make_run: Any) -> None:
    rng = np.random.default_rng(0)
    noise = [rng.integers(0, 256, (90, 160, 3), dtype=np.uint8) for _ in range(10)]  # the worst picture there is
    media = Media(strip=frame_strip(noise), energy="M0,50 1,50Z")
    labels = [f"a sound with a long name, number {k}" for k in range(100)]
    one, document = _page(make_run("one", labels, _rows(300, 101, 60)), num_videos=12, media=media)
    assert len(one.encode()) < 3_000_000
    assert len(document.table("Class")) == 102

    held_TK = rng.random((2, 60, 100)) < 0.05
    row = {
        "video": "v",
        "labels_true": [np.flatnonzero(t).tolist() for t in held_TK[0]],
        "labels_pred": [np.flatnonzero(t).tolist() for t in held_TK[1]],
        "score": [[0.5] * int(t.sum()) for t in held_TK[1]],
        "mask": [True] * 60,
    }
    metrics = {"test": {"segment_map": 0.25, "segment_micro_f1": 0.5}}
    folder = make_run(
        "many",
        labels,
        [row | {"item": f"i{n}"} for n in range(12)],
        background=None,
        metrics=metrics,
        baselines={"majority": 0.0625},
    )
    many, document = _page(folder, num_videos=12, media=media)
    assert len(many.encode()) < 3_000_000
    assert document.table("Metric")[1] == ["Segment mAP", "25.00 %", "6.25 %"]
    assert "may have several classes at once" in document.text
    support = int(12 * held_TK[0][:, 7].sum())
    assert document.table("Class")[8][3] == str(support)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_page_text_colours_have_contrast(scheme: str) -> None:
    import jobs.report.page

    css = (Path(jobs.report.page.__file__).parents[1] / "pages" / "page.css").read_text()
    blocks = re.findall(r":root \{(.*?)\}", css, flags=re.DOTALL)
    colours = dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6})", blocks[scheme == "dark"]))

    def luminance(hex_colour: str) -> float:
        parts = [int(hex_colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    def contrast(a: str, b: str) -> float:
        light, dark = sorted((luminance(colours[a]), luminance(colours[b])), reverse=True)
        return (light + 0.05) / (dark + 0.05)

    # WCAG AA for text of this size.
    for ink in ("ink", "soft", "accent", "wrong", "good"):
        for ground in ("paper", "card") if ink in ("accent", "wrong", "good") else ("paper", "card", "wash"):
            assert contrast(ink, ground) >= 4.5, (ink, ground)
    for k in range(10):
        assert contrast("ink", f"c{k}") >= 4.5, k
    assert contrast("accent-ink", "accent") >= 4.5
