"""What an encoder declares, and how it is found: by the name of a real plug-in file."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.encoder import EncoderSpec, declaration, encoder_names
from pipeline.recipes import presets
from pipeline.weights.asset import Asset
from tests.pipeline.planted_encoders import write

TINY = Asset(name="tiny", filename="tiny.pt", url=None, licence="none")


def test_encoders_are_found_by_file_name(plugins: Path) -> None:
    write(plugins, "fake_found")
    (plugins / "_private.py").write_text("raise RuntimeError", encoding="utf-8")
    assert "fake_found" in encoder_names()
    assert "descriptors" in encoder_names()
    assert "_private" not in encoder_names()
    assert list(presets()) == sorted(presets())
    assert presets()["fake_found-1s"].settings == {"depth": 1}


def test_spec_of_another_name_raises(plugins: Path) -> None:
    write(plugins, "fake_named")
    (plugins / "fake_named.py").rename(plugins / "fake_renamed.py")
    with pytest.raises(ValueError, match="encoder fake_renamed calls itself 'fake_named'"):
        declaration("fake_renamed")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"name": "Big Name"}, "file's"),
        ({"visual_shape": None, "audio_shape": None}, "or both"),
        ({"visual_shape": ()}, "sizes of at least 1"),
        ({"batch_segments": 0}, "batch_segments"),
        ({"device": "tpu"}, "device"),
        ({"assets": (TINY, TINY)}, "two assets have one name: tiny, tiny"),
    ],
)
def test_spec_that_cannot_be_raises(change: dict[str, object], message: str) -> None:
    fields: dict[str, object] = {
        "name": "fine",
        "visual_shape": (2,),
        "audio_shape": None,
        "licence": "none",
        "citation": "none",
        "batch_segments": 1,
        "device": "cpu",
    }
    EncoderSpec(**fields)  # type: ignore[arg-type]  # checked at run time, which is what is tested
    with pytest.raises(ValueError, match=message):
        EncoderSpec(**(fields | change))  # type: ignore[arg-type]  # as above
