"""The bench of encoders: its counts against sums by hand, its errors against made ones, a row for every tower."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from bench import encoders, random_weights
from bench.encoder_report import Report, markdown, measurements
from bench.encoders import Options
from catalog.recipe import Recipe
from jobs.cli import main as cli
from pipeline.encode import load_encoder
from pipeline.encoder import encoder_names, encoder_spec
from pipeline.recipes import find_recipe

# All of them are slow.
FEW = ("audioclip",)


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Report:
    return made(tmp_path_factory.mktemp("small"), FEW)


def made(folder: Path, names: tuple[str, ...]) -> Report:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    report = encoders.report(folder, Options(encoders=names, small=True, segments=3, seconds=0.1))
    torch.set_num_threads(threads)
    return report


def tower(name: str, which: str) -> Recipe:
    return dict(encoders._towers(name))[which]


def counted(recipe: Recipe, which: str, folder: Path, segments: int = 1) -> float:
    """GFLOP a segment of a tower of published size."""
    weights = random_weights.write(recipe.encoder, which, folder)
    clips = encoders._clips(recipe, encoders._videos(segments, folder))
    encoder = load_encoder(recipe, weights)
    return encoders._flop(encoder, encoders._first(clips, segments))[0] / 1e9 / segments


@pytest.mark.slow
def test_report_has_a_row_for_every_tower_and_precision(small: Report) -> None:
    check_rows(small, FEW)


@pytest.mark.slow
def test_report_is_of_all_encoders_where_none_is_named(tmp_path: Path) -> None:
    check_rows(made(tmp_path, ()), encoder_names())


def check_rows(small: Report, names: tuple[str, ...]) -> None:
    specs = [encoder_spec(name) for name in names]
    wanted = {
        (spec.name, which, precision)
        for spec in specs
        if spec.needs_weights
        for which, shape in (("visual", spec.visual_shape), ("audio", spec.audio_shape))
        if shape is not None
        for precision in ("float32", "bfloat16")
    }
    assert [(row.encoder, row.tower, row.precision) for row in small.rows] == sorted(
        wanted, key=lambda row: (row[0], -ord(row[1][0]), -ord(row[2][0]))
    )
    for row in small.rows:
        if row.skipped:
            assert row.encoder not in random_weights.encoders()
            continue
        assert row.segments >= 1
        assert row.gflop_per_segment > 0
        assert (row.min_cosine is None) == (row.precision == "float32")
        if row.min_cosine is not None:
            assert row.mean_cosine is not None
            assert 0.99 < row.min_cosine <= row.mean_cosine <= 1
            # Rounded to 8 bits, so not equal.
            assert row.max_abs_error is not None
            assert row.max_abs_error > 0


@pytest.mark.slow
def test_page_has_a_line_for_every_row(small: Report) -> None:
    lines = [line for line in markdown(small).splitlines() if line.startswith("| ")]
    assert len(lines) == 1 + len(small.rows)
    assert {line.count("|") for line in lines} == {13}


@pytest.mark.slow
def test_rows_that_were_run_become_figures_with_a_limit_on_rounding(small: Report) -> None:
    figures = measurements(small)
    run = [row for row in small.rows if not row.skipped]
    assert sum(figure.unit == "segments/s" for figure in figures) == len(run)
    assert sum(figure.met is not None for figure in figures) == sum(row.precision != "float32" for row in run)


@pytest.mark.slow
def test_flop_of_a_convolutional_net_are_those_counted_by_hand(tmp_path: Path) -> None:
    side, hand = 224, 0
    channels = 3
    for outer in (64, 64, 0, 128, 128, 0, 256, 256, 256, 256, 0, *(512, 512, 512, 512, 0) * 2):
        if outer:
            hand += 2 * side * side * outer * 9 * channels
            channels = outer
        else:
            side //= 2
    recipe = tower("vgg19_vggish", "visual").changed({"video.frames_per_segment": "1"})
    assert counted(recipe, "visual", tmp_path) == pytest.approx(hand / 1e9, rel=1e-9)


# GFLOP of one sample, as the goldens of the published networks were costed.
@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "which", "changes", "gflop"),
    [
        ("audioclip", "visual", {"video.frames_per_segment": "1"}, 12.2),
        ("audioclip", "audio", {}, 5.9),
        ("vgg19_vggish", "audio", {}, 1.7),
        ("imagebind", "audio", {}, 39),
    ],
)
def test_flop_are_near_the_published_networks_costs(
    tmp_path: Path, name: str, which: str, changes: dict[str, str], gflop: float
) -> None:
    assert counted(tower(name, which).changed(changes), which, tmp_path) == pytest.approx(gflop, rel=0.1)


def test_flop_of_attention_are_two_products() -> None:
    q, k, v = torch.zeros(2, 3, 5, 8), torch.zeros(2, 3, 7, 8), torch.zeros(2, 3, 7, 8)
    scores, mixed = 2 * 2 * 3 * 5 * 7 * 8, 2 * 2 * 3 * 5 * 7 * 8
    assert encoders._attention_flop(q.shape, k.shape, v.shape) == scores + mixed


def test_errors_of_known_features() -> None:
    want = np.array([[3.0, 4.0], [1.0, 0.0]])
    got = np.array([[3.0, 4.0], [1.0, 1.0]])
    errors = encoders._errors(got, want)
    assert errors["min_cosine"] == pytest.approx(0.5**0.5)
    assert errors["mean_cosine"] == pytest.approx((1 + 0.5**0.5) / 2)
    assert errors["max_abs_error"] == 1
    # Distances from the mean (2, 2) are (1, 2) twice.
    assert errors["error_to_spread"] == pytest.approx((1 / 4) ** 0.5 / (10 / 4) ** 0.5)


def test_weights_are_the_same_in_every_run(tmp_path: Path) -> None:
    files = []
    for place in ("a", "b"):
        (tmp_path / place).mkdir()
        files.append(random_weights.write("audioclip", "audio", tmp_path / place, small=True)["audioclip"])
    first, second = (torch.load(file, weights_only=True) for file in files)
    assert all(torch.equal(first[key], second[key]) for key in first)


@pytest.mark.parametrize(("which", "count"), [("visual", 3), ("audio", 2)])
def test_networks_are_found_in_the_parts_of_a_net_too(tmp_path: Path, which: str, count: int) -> None:
    encoder = load_encoder(tower("pe_av", which), random_weights.write("pe_av", which, tmp_path, small=True))
    assert len(encoders._networks(encoder)) == count


def test_options_name_encoders_that_have_weights() -> None:
    with pytest.raises(ValueError, match="no encoder with weights is called 'descriptors'"):
        Options(encoders=("descriptors",))
    assert find_recipe("descriptors-1s").encoder in encoder_names()


@pytest.mark.slow
def test_command_writes_the_page_and_one_json_object(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["bench", "encoders", "--encoder", "audioclip", "--small", "--segments", "1", "--seconds", "0.1"]
    page = tmp_path / "towers.md"
    assert cli.main([*words, "--json", "--out", str(page), "--folder", str(tmp_path)]) == cli.OK
    told = json.loads(capsys.readouterr().out)
    assert [row["tower"] for row in told["encoders"]["rows"]] == ["visual", "visual", "audio", "audio"]
    assert page.read_text(encoding="utf-8").startswith("# Encoders of published size\n")


@pytest.mark.parametrize("words", [["--encoder", "audioclip"], ["--out", "page.md"], ["--compile"]])
def test_command_refuses_options_of_encoders_for_another_bench(
    words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["bench", "resume", *words]) == cli.BAD_ARGUMENTS
    assert "goes with the bench `encoders`" in capsys.readouterr().err
