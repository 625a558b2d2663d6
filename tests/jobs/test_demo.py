"""`avel demo`: what it refuses, when a lead is clear, and (slow) all of it for segments."""

from __future__ import annotations

import json
import re
import statistics
from collections import Counter
from pathlib import Path

import pytest

from catalog.datasets import synthetic
from heads.runs.seeds import Spread
from jobs.cli.main import main
from jobs.demo import SEGMENTS, is_clear, lead_over


@pytest.mark.parametrize("dense", [[], ["--dense"]])
@pytest.mark.parametrize(("videos", "without"), [(1, "val, test"), (3, "val"), (4, "val")])
def test_demo_of_fewer_videos_than_give_every_split_one_is_refused_at_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], dense: list[str], videos: int, without: str
) -> None:
    assert main(["demo", *dense, "--videos", str(videos), "--out", str(tmp_path / "out")]) == 2
    assert f"--videos {videos}: no video is left for {without}; at least 5 are needed" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_demo_of_no_videos_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["demo", "--videos", "0", "--out", str(tmp_path / "out")]) == 2
    assert "0" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("layout", ["ave", "unav100"])
def test_five_videos_give_every_split_one(tmp_path: Path, layout: str) -> None:
    made = synthetic.plan(synthetic.Settings(layout=layout, videos=5, seed=0), tmp_path).dataset
    assert [len(made.split(name)) for name in ("train", "val", "test")] == [3, 1, 1]


def test_videos_of_the_demo_give_each_class_ten_to_train_on_two_to_validate_on_and_three_to_test_on(
    tmp_path: Path,
) -> None:
    settings = synthetic.Settings(layout=SEGMENTS.layout, videos=SEGMENTS.videos, seed=0)
    made = synthetic.plan(settings, tmp_path).dataset
    for split, count in (("train", 10), ("val", 2), ("test", 3)):
        assert Counter(item.category for item in made.split(split)) == dict.fromkeys(made.classes, count)


def test_lead_is_the_difference_seed_by_seed_and_a_baseline_is_the_same_for_all_seeds() -> None:
    both, audio, majority = Spread(values=(80.0, 70.0, 75.0)), Spread(values=(60.0, 55.0, 50.0)), Spread(values=(30.0,))
    lead = lead_over(both, audio)
    assert lead.values == (20.0, 15.0, 25.0)
    assert (lead.mean, lead.sd) == (20.0, 5.0)
    assert lead_over(both, majority).values == (50.0, 40.0, 45.0)


@pytest.mark.parametrize(
    ("values", "clear"),
    [
        ((20.0, 15.0, 25.0), True),  # 20 is 4 sd
        ((5.0, 10.0, 15.0), False),  # 10 is 2 sd, and more is needed
        ((5.1, 10.1, 15.1), True),
        ((4.9, 4.9, 4.9), False),  # points
        ((5.0,), True),  # one seed has no sd
        ((4.9,), False),
        ((-20.0, -20.0), False),
    ],
)
def test_clear_lead_is_five_points_and_more_than_two_standard_deviations(
    values: tuple[float, ...], clear: bool
) -> None:
    assert is_clear(Spread(values=values)) is clear


@pytest.mark.slow
def test_demo_shows_that_both_modalities_lead_each_alone_and_the_majority_by_more_than_two_deviations(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["demo", "--out", str(tmp_path), "--executor", "local", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    both = found["values"]["both"]
    assert len(both) == 5
    (majority,) = found["values"]["majority"]
    for name, others in (
        ("audio", found["values"]["audio"]),
        ("visual", found["values"]["visual"]),
        ("majority", [majority] * 5),
    ):
        leads = [a - b for a, b in zip(both, others, strict=True)]
        assert statistics.mean(leads) > 2 * statistics.stdev(leads)
        assert found["leads"][name] == pytest.approx({"mean": statistics.mean(leads), "sd": statistics.stdev(leads)})
    (told,) = re.findall(r'<p class="lede">(Audio and frames together: .*?)</p>', Path(found["report"]).read_text())
    shown = {
        name: f"{statistics.mean(v):.1f} ± {statistics.stdev(v):.1f}" for name, v in found["values"].items() if v[1:]
    }
    assert told == (
        f"Audio and frames together: {shown['both']} % of segments right; audio alone {shown['audio']}, frames alone "
        f"{shown['visual']}, the most frequent class {majority:.1f} (mean ± sd of 5 seeds; 18 test videos)."
    )
