"""Finding presets, and refusing recipes that no encoder makes."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.recipes import check_settings, find_recipe, presets
from tests.pipeline.planted_encoders import write


def test_two_presets_of_one_name_raise(plugins: Path) -> None:
    write(plugins, "fake_first", preset="same")
    write(plugins, "fake_second", preset="same")
    with pytest.raises(ValueError, match="two encoders have a preset called same: fake_first, fake_second"):
        presets()


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"revision": "9"}, "encoder descriptors makes revision 1 here, got 9; a revision is no setting"),
        ({"grid.hop_s": "1e-9"}, r"grid.hop_s=1e-09 makes 3.6e\+12 segments an hour; at most 360,000 are made"),
        ({"grid.hop_s": "0.0099"}, "at most 360,000 are made, a hop of 0.01 s"),
        ({"grid.window_s": "3601"}, "grid.window_s=3601 is beyond an hour"),
    ],
)
def test_recipe_that_cannot_be_made_is_refused_before_anything_is_loaded(change: dict[str, str], told: str) -> None:
    recipe = find_recipe("descriptors-1s")
    check_settings(recipe.changed({"grid.hop_s": "0.01", "grid.window_s": "3600"}))
    with pytest.raises(ValueError, match=told):
        check_settings(recipe.changed(change))


def test_find_recipe_unknown_lists_the_known() -> None:
    with pytest.raises(ValueError, match=r"no recipe is called 'nothing'; there are .*descriptors-1s"):
        find_recipe("nothing")
