"""Heads of class texts through the verbs: train, evaluate, report on planted texts; predict on real media."""

from __future__ import annotations

import html as escapes
import json
import re
import shlex
import shutil
from collections.abc import Mapping
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from catalog.dataset import Dataset, Item
from catalog.datasets import ave, ovavebench
from catalog.event import Event
from catalog.store.reader import open_store
from catalog.store.writer import open_writer
from catalog.video import Video
from heads.runs.folder import read_record, read_run
from jobs.cli.main import main
from tests.heads import planted_texts as planted
from tests.jobs.predict import test_run as media

NAMES = (*planted.CLASSES, "other")
MEASURES = [m + g for g in ("", "_seen", "_unseen") for m in ("accuracy", "segment_f1", "event_f1", "mean")]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """OV-AVEBench's files in `ov`, a store in `store` (vocabularies mine, short), runs `ft` and `free`."""
    folder = tmp_path_factory.mktemp("open")
    data = planted.dataset()
    ovavebench.write(data, folder / "ov")
    planted.store(folder / "store", data, {"mine": NAMES, "short": NAMES[1:]}, noise=2.2)
    more = ["--epochs", "4", "--lr", "1e-3", "--batch", "4"]
    assert main([*words(folder, "ov_avel", folder / "ft"), "--vocabulary", "mine", *more, "--json"]) == 0
    assert main([*words(folder, "ov_avel_free", folder / "free"), "--json"]) == 0
    return folder


def words(folder: Path, head: str, out: Path) -> list[str]:
    places = ["--store", str(folder / "store"), "--dataset", "ovavebench", "--root", str(folder / "ov")]
    return ["train", *places, "--head", head, "--out", str(out)]


def told(capsys: pytest.CaptureFixture[str], *arguments: str, status: int = 0) -> Any:
    capsys.readouterr()
    assert main([*arguments, "--json"]) == status
    return json.loads(capsys.readouterr().out)


def test_train_records_vocabulary_texts_unseen_classes_and_all_measures(place: Path) -> None:
    for name in ("ft", "free"):
        run = read_run(place / name)
        record = run.record
        assert record.texts == {"vocabulary": "mine", "prompt": "{}", "background": "other"}
        assert record.unseen == planted.UNSEEN
        assert run.head.get_buffer("texts.texts_KD").shape == (7, planted.WIDTH)
        for split in ("val", "test"):
            assert [key for key in record.metrics[split] if key in MEASURES] == MEASURES
            numbers = record.metrics[split]
            three = [numbers[f"{m}_unseen"] for m in ("accuracy", "segment_f1", "event_f1")]
            assert numbers["mean_unseen"] == pytest.approx(sum(three) / 3)
        assert set(record.baselines) == {"majority", "always_event", "class_known"}
    assert [row["epoch"] for row in read_record(place / "ft").history] == [1, 2, 3, 4]
    assert "val_mean" in read_record(place / "ft").history[0]
    assert read_record(place / "free").history == ()
    assert read_record(place / "free").training["epochs"] == 0


def test_train_without_training_prints_a_table_with_seen_unseen_and_total(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    assert main(words(place, "ov_avel_free", tmp_path / "run")) == 0
    out = capsys.readouterr().out
    assert "not trained" in out
    metrics = read_record(tmp_path / "run").metrics["test"]
    for group in ("_seen", "_unseen", ""):
        row = " *│ ".join(f"{100 * metrics[m + group]:.2f}" for m in ("accuracy", "segment_f1", "event_f1", "mean"))
        assert re.search(rf"{group[1:] or 'total'} +│ +{row}".replace("*│ ", "*│ +"), out), (group, out)


@pytest.mark.parametrize(
    ("head", "more", "message"),
    [
        (
            "ov_avel",
            ["--vocabulary", "short"],
            "vocabulary short: class 'barking' is missing; make it with `avel labels",
        ),
        ("ov_avel", ["--vocabulary", "nosuch"], "no vocabulary 'nosuch'; it has mine, short"),
        ("linear", ["--vocabulary", "mine"], "head linear does not choose among class texts"),
    ],
)
def test_train_vocabulary_that_does_not_do_is_a_bad_argument(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], head: str, more: list[str], message: str
) -> None:
    capsys.readouterr()
    assert main([*words(place, head, tmp_path / "run"), *more]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_evaluate_tells_the_halves_and_the_filter_and_leaves_the_run_as_it_was(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = (place / "ft" / "run.json").read_text(), (place / "ft" / "predictions_test.json").read_text()
    found = told(capsys, "evaluate", str(place / "ft"), "--smooth", "2")
    assert found["metrics"] == read_record(place / "ft").metrics["test"]
    assert found["smoothed"]["minimum"] == 2
    assert list(found["smoothed"]["metrics"]) == MEASURES
    assert found["smoothed"]["metrics"]["mean"] != found["metrics"]["mean"]
    one = told(capsys, "evaluate", str(place / "ft"), "--smooth", "1")["smoothed"]["metrics"]
    assert one == {name: found["metrics"][name] for name in MEASURES}
    halves = found["confusion_seen_unseen"]
    whole = np.array(halves["seen"]) + np.array(halves["unseen"])
    np.testing.assert_array_equal(whole, found["confusion"])
    # The groups, one by one.
    unseen = [k for k, name in enumerate(planted.CLASSES) if name in planted.UNSEEN]
    wrong = sum(whole[k, j] for k in unseen for j in range(6) if j not in unseen)
    assert halves["groups"]["unseen"]["other_seen"] == wrong
    assert sum(sum(row.values()) for row in halves["groups"].values()) == 160
    assert ((place / "ft" / "run.json").read_text(), (place / "ft" / "predictions_test.json").read_text()) == before
    capsys.readouterr()
    assert main(["evaluate", str(place / "ft"), "--smooth", "2"]) == 0
    out = capsys.readouterr().out
    assert "smoothed, 2" in out
    assert "other_unseen" in out
    assert main(["evaluate", str(place / "ft"), "--smooth", "0"]) == 2


def test_report_shows_halves_and_both_sides_of_the_filter(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = tmp_path / "page.html"
    arguments = ["report", str(place / "ft"), "--out", str(page), "--videos", "6", "--smooth", "2"]
    assert main(arguments) == 0
    html = page.read_text(encoding="utf-8")
    record = read_record(place / "ft")
    after = told(capsys, "evaluate", str(place / "ft"), "--smooth", "2")["smoothed"]["metrics"]
    for name, shown in (("mean", "Mean of the three"), ("event_f1_unseen", "Event F1, unseen classes")):
        row = html[html.index(f'<th scope="row">{shown}</th>') :]
        assert f"{100 * record.metrics['test'][name]:.2f} %" in row[: row.index("</tr>")]
        assert f"{100 * after[name]:.2f} %" in row[: row.index("</tr>")]
    assert "8 videos of seen classes" in html
    assert "8 videos of unseen classes" in html
    assert "another unseen class" in html
    assert html.count(">Filtered</div>") == 6
    (train,) = [line for line in html.splitlines() if line.startswith(("<pre>avel train", "avel train"))]
    assert "--head ov_avel --vocabulary mine" in train
    assert "--recipe shared-1s --dataset ovavebench --root" in html
    assert "--name mine --prompt '{}'" in html.replace("&#39;", "'")
    assert "--smooth 2" in html
    # Without the filter nothing of it is there.
    assert main(arguments[:-2]) == 0
    assert "Filtered" not in page.read_text(encoding="utf-8")


def test_run_of_the_commands_in_the_report_gives_the_checkpoint_again(place: Path, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    settings = ["--vocabulary", "mine", "--epochs", "3", "--optimiser", "adamw", "--clip-norm", "0.5", "--ema", "0.5"]
    changes = ["--set", "num_layers=2", "--set", "other=false", "--set", "fusion=arithmetic"]
    assert main([*words(place, "ov_avel", tmp_path / "run"), *settings, *changes, "--json"]) == 0
    assert main(["report", str(tmp_path / "run"), "--out", str(page), "--videos", "0"]) == 0
    lines = escapes.unescape(page.read_text(encoding="utf-8")).replace("<pre>", "\n").splitlines()
    (line,) = [line for line in lines if line.startswith("avel train")]
    command = shlex.split(line)[1:]
    command[command.index("--out") + 1] = str(tmp_path / "again")
    assert main([*command, "--json"]) == 0
    again, first = ((tmp_path / name / "model.safetensors").read_bytes() for name in ("again", "run"))
    assert again == first
    assert read_record(tmp_path / "again").config == read_record(tmp_path / "run").config
    assert read_record(tmp_path / "run").config["fusion"] == "arithmetic"


@pytest.mark.slow
def test_train_share_reads_the_data_sets_own_list_and_evaluate_does_too(
    shared: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = shared / "data" / "annotations" / "ovavel"
    data = ovavebench.load(root, train_list="0.25")
    kept = [item for name in ("val", "test", "train") for item in data.split(name)[:4]]
    few = Dataset(
        name="few",
        classes=data.classes,
        items=tuple(kept),
        videos=tuple(data.by_id[item.video_id] for item in kept),
        num_segments=10,
        background="other",
    )
    planted.store(tmp_path / "store", few, {"all": (*data.classes, "other")})
    # The list of all videos is not there, so whoever does not read the reduced one fails.
    (tmp_path / "ov").mkdir()
    for name in (ovavebench.RELEASED, ovavebench.CATEGORIES, "ovave_trainratio0.25_meta.csv.gz"):
        shutil.copy(root / name, tmp_path / "ov")
    places = ["--store", str(tmp_path / "store"), "--dataset", "ovavebench", "--root", str(tmp_path / "ov")]
    run = tmp_path / "run"
    share_of = ["--train-share", "25", "--epochs", "1", "--head", "ov_avel"]
    found = told(capsys, "train", *places, *share_of, "--out", str(run))
    record = read_record(run)
    assert record.training["train_items"] == 3308
    assert record.dataset["train_list"] == "0.25"
    assert record.metrics["test"]["items"] == 5820
    assert len(record.unseen) == 21
    again = told(capsys, "evaluate", str(run))
    assert again["metrics"] == found["metrics"]["test"]
    assert again["baselines"] == found["baselines"]["test"]
    state = read_run(run).head.get_buffer("texts.trained_K")
    assert int(state.sum()) == 47


def test_train_share_of_a_data_set_without_lists_is_a_bad_argument(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    places = ["--store", str(place / "store"), "--dataset", "ave", "--root", str(tmp_path)]
    assert main(["train", *places, "--train-share", "50", "--out", str(tmp_path / "run")]) == 2
    assert "--train-share: ave has no reduced training lists" in capsys.readouterr().err


@pytest.fixture(scope="module")
def coloured(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Silent videos, red or green while the event lasts; a store whose texts are the mean pictures of these colours.

    Vocabularies: mine (the classes and `other`), sky (blue alone), skies (blue, `other`, with another prompt).
    """
    folder = tmp_path_factory.mktemp("coloured")
    (folder / "videos").mkdir()
    items: list[Item] = []
    videos: list[Video] = []
    for k, label in enumerate(media.CLASSES):
        for (start, end), split in zip(media.EVENTS_S[1:], ("train", "val", "test"), strict=True):
            name = f"v{len(items)}"
            event = Event(start_s=Fraction(start), end_s=Fraction(end), label=label)
            items.append(Item(id=f"{len(items):05d}", video_id=name, split=split, events=(event,), category=label))
            videos.append(Video(id=name, uri=str(folder / "videos" / f"{name}.mp4")))
            paint(folder / "videos" / f"{name}.mp4", k, (start, end))
    data = Dataset(
        name="ave",
        classes=media.CLASSES,
        items=tuple(items),
        videos=tuple(videos),
        num_segments=10,
        background="background",
    )
    ave.write(data, folder)
    paint(folder / "blue.mp4", 2, (2, 6))
    extract = ["extract", "--recipe", "descriptors-1s", "--executor", "local", "--json"]
    places = ["--store", str(folder / "store"), "--dataset", "ave", "--root", str(folder)]
    assert main([*extract, *places]) == 0
    assert main([*extract, "--store", str(folder / "blue"), str(folder / "blue.mp4")]) == 0
    texts = texts_of(folder, items)
    with open_writer(open_store(folder / "store")) as writer:
        for name, names, prompt in (
            ("mine", ("other", *reversed(media.CLASSES)), "{}"),
            ("sky", ("sky",), "{}"),
            ("skies", ("sky", "other"), "a photo of {}"),
        ):
            writer.write_labels("descriptors-1s", name, names, np.stack([texts[n] for n in names]), prompt=prompt)
        writer.commit("texts")
    for head in ("ov_avel", "ov_avel_free"):
        more = ["--head", head, "--modality", "visual", "--out", str(folder / head), "--json"]
        assert main(["train", *places, *more]) == 0
    return folder


def paint(path: Path, colour: int, event_s: tuple[int, int]) -> None:
    media.make_video(path, colour, lambda t: event_s[0] <= t < event_s[1], sound=False)


def texts_of(folder: Path, items: list[Item]) -> Mapping[str, Any]:
    read = open_store(folder / "store").read("descriptors-1s", "visual", [item.video_id for item in items])
    rows = {"other": [read.values[0]]}  # no event begins at 0
    for i, item in enumerate(items):
        first = int(read.offsets[i] + item.events[0].start_s)
        rows.setdefault(item.events[0].label, []).append(read.values[first + 1])
    blue = open_store(folder / "blue")
    rows["sky"] = [blue.read("descriptors-1s", "visual", list(blue.videos().ids)).values[3]]
    return {name: np.mean(part, axis=0) for name, part in rows.items()}


def test_predict_new_classes_need_only_their_texts(coloured: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run, blue = str(coloured / "ov_avel_free"), str(coloured / "blue.mp4")
    found = told(capsys, "predict", run, blue, "--vocabulary", "sky")
    assert (found["classes"], found["vocabulary"]) == (["sky"], "sky")
    (video,) = found["videos"]
    assert [(e["class"], e["start_s"], e["end_s"]) for e in video["events"]] == [("sky", 2.0, 6.0)]
    # The run's own classes know no blue.
    own = told(capsys, "predict", run, blue)
    assert (own["classes"], own["vocabulary"]) == (list(media.CLASSES), "mine")
    assert not {e["class"] for e in own["videos"][0]["events"]} & {"sky"}
    red = told(capsys, "predict", run, str(coloured / "videos" / "v2.mp4"))
    assert [(e["class"], e["start_s"], e["end_s"]) for e in red["videos"][0]["events"]] == [("Bark", 4.0, 9.0)]


def test_predict_vocabulary_of_another_store_and_prompt(coloured: Path, capsys: pytest.CaptureFixture[str]) -> None:
    blue = str(coloured / "blue.mp4")
    words_of = ["--vocabulary", "skies", "--labels", str(coloured / "store")]
    capsys.readouterr()
    assert main(["predict", str(coloured / "ov_avel_free"), blue, *words_of]) == 0
    out, err = capsys.readouterr()
    assert "sky" in out
    assert "was made with prompt 'a photo of {}', the head was trained with '{}'" in err
    trained = told(capsys, "predict", str(coloured / "ov_avel"), blue, *words_of)
    assert trained["classes"] == ["sky"]
    assert {e["class"] for e in trained["videos"][0]["events"]} <= {"sky"}


def test_predict_run_filter_takes_short_events_away(
    coloured: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    media.make_video(tmp_path / "two.mp4", 0, lambda t: 1 <= t < 2 or 4 <= t < 9, sound=False)
    run = str(coloured / "ov_avel_free")
    before = told(capsys, "predict", run, str(tmp_path / "two.mp4"))
    after = told(capsys, "predict", run, str(tmp_path / "two.mp4"), "--smooth", "2")
    spans = [[(e["start_s"], e["end_s"]) for e in found["videos"][0]["events"]] for found in (before, after)]
    # Seconds 0, 1 and 9 are runs of one; which label wins there is told by tests/heads/evaluation/test_run_filter.py.
    assert spans[0] == [(1.0, 2.0), (4.0, 9.0)]
    assert after["smooth"] == 2
    assert all(end - start >= 2 for start, end in spans[1])
    assert spans[1] != spans[0]


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--vocabulary", "nosuch"], "has no labels 'nosuch'; it has: mine, skies, sky"),
        (["--labels", "x"], "--labels goes with --vocabulary"),
        (["--smooth", "0"], "--smooth must be at least 1"),
    ],
)
def test_predict_bad_arguments_of_texts_exit_2(
    coloured: Path, capsys: pytest.CaptureFixture[str], more: list[str], message: str
) -> None:
    capsys.readouterr()
    assert main(["predict", str(coloured / "ov_avel_free"), str(coloured / "blue.mp4"), *more]) == 2
    assert message in capsys.readouterr().err
