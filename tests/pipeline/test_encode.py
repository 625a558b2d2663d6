"""Cutting batches, loading encoders and catching one that breaks its contract: with real plug-in files."""

from __future__ import annotations

import sys
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from bench import random_weights
from catalog.grid import SegmentGrid
from catalog.store.modal import Features
from pipeline.clips import Clips
from pipeline.encode import encode_clips, load_encoder
from pipeline.encode_labels import encode_labels
from pipeline.recipes import find_recipe
from tests.pipeline.encoders.small_audioclip import SMALL, write_small
from tests.pipeline.planted_encoders import clear, write


def make_clips(count: int, *, video_id: str = "v") -> Clips:
    """Segment i of 1 s each 1/2 s sees frames i and i + 1 (value = number); sample n has the value n."""
    frames = np.zeros((count + 1, 8, 8, 3), np.uint8)
    frames += np.arange(count + 1, dtype=np.uint8)[:, None, None, None]
    grid = SegmentGrid(window_s=Fraction(1), hop_s=Fraction(1, 2), count=count)
    samples_N = np.arange(-100, 500 * count + 600, dtype=np.float32)
    return Clips(
        video_id=video_id,
        grid=grid,
        first=0,
        frames_FHWC=frames,
        frame_index_SP=np.stack([np.arange(count), np.arange(count) + 1], axis=1).astype(np.int32),
        samples_N=samples_N,
        sample_valid_N=np.ones(samples_N.size, np.bool_),
        samples_start=-100,
        rate_hz=1000,
    )


def test_encode_batches_are_cut_at_every_fourth_segment(plugins: Path) -> None:
    write(plugins, "fake_batches")
    made = load_encoder(find_recipe("fake_batches-1s")).encode([make_clips(n) for n in (3, 6, 1)])
    seen = [item.visual for item in made if item.visual is not None]
    assert [len(modal.valid) for modal in seen] == [3, 6, 1]
    rows = np.concatenate([modal.values for modal in seen])
    np.testing.assert_array_equal(rows[:, 1], [0, 1, 2, 3, 0, 1, 2, 3, 0, 1])
    np.testing.assert_array_equal(rows[:, 2], [4, 4, 4, 4, 4, 4, 4, 4, 2, 2])


def test_encode_cut_clips_keep_their_frames_and_context(plugins: Path) -> None:
    write(plugins, "fake_pieces")
    (made,) = load_encoder(find_recipe("fake_pieces-1s")).encode([make_clips(9)])
    assert made.visual is not None
    assert made.audio is not None
    np.testing.assert_array_equal(made.visual.values[:, 0], np.arange(9) + 0.5)
    np.testing.assert_array_equal(made.audio.values[:, 0], np.arange(9) * 500 - 100)
    np.testing.assert_array_equal(made.audio.values[:, 1], np.arange(9) * 500 + 1099)


@pytest.mark.parametrize(
    ("tower", "result", "message"),
    [
        ("visual", "out[:-1]", r"visual needs floats \(2, 3\), got float32 \(1, 3\)"),
        ("visual", "out[:, :2]", r"visual needs floats \(2, 3\), got float32 \(2, 2\)"),
        ("visual", "out.astype(int)", "visual needs floats .* got int64"),
        ("audio", "None", r"audio needs floats \(2, 2\), got object \(\)"),
        ("audio", "out * np.nan", "audio row 0 is valid and not finite"),
    ],
)
def test_encode_result_against_the_contract_raises(plugins: Path, tower: str, result: str, message: str) -> None:
    write(plugins, "fake_broken", **{tower: result})  # type: ignore[arg-type]  # of the two texts alone
    encoder = load_encoder(find_recipe("fake_broken-1s"))
    with pytest.raises(RuntimeError, match=message):
        encoder.encode([make_clips(2)])
    clear()
    del sys.modules["pipeline.encoders.fake_broken"]


def test_encode_segments_without_frames_or_audio_reach_no_tower_and_are_nan(plugins: Path) -> None:
    write(plugins, "fake_holes")
    clips = make_clips(5)
    clips.frame_index_SP[[0, 3]] = -1
    clips.sample_valid_N[: 100 + 901] = False  # of the first window of 1000 samples less than a tenth is left
    nothing = replace(clips, frame_index_SP=np.full_like(clips.frame_index_SP, -1))
    made, none = load_encoder(find_recipe("fake_holes-1s")).encode([clips, nothing])
    assert made.visual is not None
    assert made.audio is not None
    assert made.visual.valid.tolist() == [False, True, True, False, True]
    assert made.audio.valid.tolist() == [False, True, True, True, True]
    # By the tower: value of the frames, position in its call, segments of its call (batches are of 4 segments).
    np.testing.assert_array_equal(made.visual.values[[1, 2, 4]], [[1.5, 0, 2], [2.5, 1, 2], [4.5, 0, 1]])
    np.testing.assert_array_equal(made.audio.values[1:, 0], np.arange(1, 5) * 500 - 100)
    for _, modal in made.modalities():
        np.testing.assert_array_equal(np.isnan(modal.values).all(axis=1), ~modal.valid)
    assert none.visual is not None
    assert np.isnan(none.visual.values).all()
    assert not none.visual.valid.any()


def test_encode_clips_of_another_recipe_raises(plugins: Path) -> None:
    write(plugins, "fake_other")
    recipe = find_recipe("fake_other-1s")
    with pytest.raises(ValueError, match="takes 3 frames a segment, the clips have 2"):
        encode_clips([make_clips(2)], load_encoder(recipe.changed({"video.frames_per_segment": "3"})))
    with pytest.raises(ValueError, match="takes 2000 Hz, the clips have 1000"):
        encode_clips([make_clips(2)], load_encoder(recipe.changed({"audio.rate_hz": "2000"})))


def test_encode_frame_index_outside_raises(plugins: Path) -> None:
    write(plugins, "fake_index")
    clips = make_clips(2)
    clips.frame_index_SP[1, 1] = 3
    with pytest.raises(ValueError, match="outside the 3 frames"):
        load_encoder(find_recipe("fake_index-1s")).encode([clips])


def test_load_encoder_weights_missing_or_unwanted_raise(plugins: Path) -> None:
    write(plugins, "fake_heavy", needs_weights=True)
    with pytest.raises(ValueError, match="fake_heavy needs its checkpoint"):
        load_encoder(find_recipe("fake_heavy-1s"))
    with pytest.raises(ValueError, match="has no weights"):
        load_encoder(find_recipe("descriptors-1s"), {"x": plugins / "x.safetensors"})


def test_load_encoder_one_of_two_weights_names_the_other(tmp_path: Path) -> None:
    recipe = find_recipe("vgg19-vggish-1s")
    path = random_weights.write("vgg19_vggish", "audio", tmp_path)
    told = r"vgg19_vggish needs its asset vgg19 \(.*\) too, vggish given; give it as vgg19=PATH, see `avel weights show"
    with pytest.raises(ValueError, match=told):
        load_encoder(recipe, path)
    load_encoder(replace(recipe, video=None), path)  # a tower that is left out needs none
    with pytest.raises(ValueError, match=r"audioclip needs its asset bpe .* too, audioclip given"):
        encode_labels(
            ["dog"], find_recipe("audioclip-1s").changed(SMALL), {"audioclip": write_small(tmp_path / "a.pt")}
        )


def test_load_encoder_known_and_unknown_settings(plugins: Path) -> None:
    write(plugins, "fake_knobs")
    recipe = find_recipe("fake_knobs-1s")
    assert load_encoder(recipe.changed({"settings.depth": "2"})).recipe.settings == {"depth": 2}
    with pytest.raises(ValueError, match="fake_knobs has no setting 'dept'; it has depth"):
        load_encoder(recipe.changed({"settings.dept": "2"}))


def test_encoder_of_one_tower_gives_one(plugins: Path) -> None:
    recipe = find_recipe("descriptors-1s")
    deaf = load_encoder(
        type(recipe)(name="deaf", encoder="descriptors", grid=recipe.grid, video=recipe.video, audio=None)
    )
    assert deaf.audio_shape is None
    clips = Clips(
        video_id="v",
        grid=SegmentGrid(window_s=Fraction(1), hop_s=Fraction(1), count=1),
        first=0,
        frames_FHWC=np.zeros((1, 64, 64, 3), np.uint8),
        frame_index_SP=np.zeros((1, 8), np.int32),
        samples_N=np.zeros(0, np.float32),
        sample_valid_N=np.zeros(0, np.bool_),
        samples_start=0,
        rate_hz=0,
    )
    (made,) = deaf.encode([clips])
    assert isinstance(made, Features)
    assert made.audio is None
    assert made.visual is not None
    assert made.visual.valid.all()
