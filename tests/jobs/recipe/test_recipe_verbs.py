"""`avel recipe list` and `avel recipe show`, through the command line."""

from __future__ import annotations

import json

import pytest

from catalog.recipe import Recipe
from jobs.cli.main import main
from pipeline.recipes import find_recipe


def test_list_json_has_every_preset(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["recipe", "list", "--json"]) == 0
    rows = {row["recipe"]: row for row in json.loads(capsys.readouterr().out)["recipes"]}
    assert rows["descriptors-1s"]["visual_shape"] == [232]
    assert rows["descriptors-1s"]["audio_shape"] == [152]
    assert rows["descriptors-1s"]["fingerprint"] == find_recipe("descriptors-1s").fingerprint()


def test_list_is_a_table_for_people(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["recipe", "list"]) == 0
    assert "descriptors-1s" in capsys.readouterr().out


def test_show_json_reads_back_as_the_recipe(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["recipe", "show", "descriptors-1s", "--set", "grid.hop_s=1/2", "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    expected = find_recipe("descriptors-1s").changed({"grid.hop_s": "1/2"})
    assert Recipe.from_json(json.dumps(answer["recipe"])) == expected
    assert answer["fingerprint"] == expected.fingerprint() != find_recipe("descriptors-1s").fingerprint()
    assert answer["changed"] == ["grid.hop_s"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["no-such"], "no recipe is called 'no-such'"),
        (["descriptors-1s", "--set", "grid.hop"], "--set needs FIELD=VALUE"),
        (["descriptors-1s", "--set", "grid.hop=1"], "no setting 'grid.hop'"),
        (["descriptors-1s", "--set", "settings.bins=1"], "no setting 'bins'"),
    ],
)
def test_show_wrong_arguments_exit_2(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["recipe", "show", *arguments]) == 2
    assert message in capsys.readouterr().err


def test_show_is_a_table_that_marks_changes(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["recipe", "show", "descriptors-1s", "--set", "video.phase=0"]) == 0
    (line,) = [line for line in capsys.readouterr().out.splitlines() if "video.phase" in line]
    assert "preset: 1/2" in line
