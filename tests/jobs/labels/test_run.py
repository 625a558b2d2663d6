"""`avel labels` of recipes that cannot have any: refused before weights are looked for."""

from __future__ import annotations

from pathlib import Path

import pytest

from catalog.store.reader import create_store
from catalog.store.writer import open_writer
from jobs.cli.main import main
from pipeline.recipes import find_recipe


@pytest.mark.parametrize("more", [[], ["--dry-run"]])
@pytest.mark.parametrize("name", ["i3d-vggish-unav", "descriptors-1s"])
def test_labels_of_an_encoder_without_text_tower_name_those_with_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, more: list[str]
) -> None:
    (tmp_path / "mine.txt").write_text("dog\n", encoding="utf-8")
    words = ["--store", str(tmp_path / "s"), "--recipe", name, "--vocabulary", str(tmp_path / "mine.txt"), *more]
    assert main(["labels", *words]) == 2
    told = capsys.readouterr().err
    assert f"--recipe {name}: its encoder {find_recipe(name).encoder} has no text tower; those with one: " in told
    assert "audioclip" in told
    assert "imagebind" in told
    assert "weights" not in told
    assert not (tmp_path / "s").exists()


def test_labels_of_a_stored_recipe_that_was_planted_say_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from dataclasses import replace

    (tmp_path / "mine.txt").write_text("dog\n", encoding="utf-8")
    with open_writer(create_store(tmp_path / "s")) as writer:
        recipe = replace(find_recipe("descriptors-1s"), name="mine", encoder="planted")
        writer.ensure_recipe(recipe, visual_shape=(4,), audio_shape=(4,), card={})
        writer.commit("a recipe")
    words = ["--store", str(tmp_path / "s"), "--recipe", "mine", "--vocabulary", str(tmp_path / "mine.txt")]
    assert main(["labels", *words]) == 2
    assert "planted features have no encoder" in capsys.readouterr().err
