"""The vocabulary of a head: directions, renumbering, and what is refused."""

from __future__ import annotations

import pytest
import torch

from heads.blocks.class_texts import ClassTexts, SharedSpaceConfig
from heads.spec import HeadInput, Modality


def test_cosines_any_lengths_equal_cosine_similarity() -> None:
    torch.manual_seed(0)
    texts, x = 30 * torch.randn(5, 8), 20 * torch.randn(2, 3, 8)
    vocabulary = ClassTexts(5, 8)
    vocabulary.set(texts)
    wanted = torch.nn.functional.cosine_similarity(x[:, :, None], texts, dim=-1)
    torch.testing.assert_close(vocabulary.cosines(x), wanted, atol=1e-6, rtol=0)
    assert not vocabulary.cosines(torch.zeros(1, 1, 8)).any()


def test_trained_index_numbers_the_trained_classes_in_order() -> None:
    vocabulary = ClassTexts(5, 2)
    vocabulary.set(torch.ones(5, 2), torch.tensor([False, True, False, True, True]))
    assert vocabulary.trained_index(torch.tensor([[1, 4], [3, 1]])).tolist() == [[0, 2], [1, 0]]
    with pytest.raises(ValueError, match="hold classes 0, 2, which"):
        vocabulary.trained_index(torch.tensor([0, 1, 2, 2]))


def test_set_another_number_of_classes_replaces_the_vocabulary() -> None:
    vocabulary = ClassTexts(3, 2)
    vocabulary.set(torch.ones(7, 2))
    assert vocabulary.texts_KD.shape == (7, 2)
    assert vocabulary.trained_K.tolist() == [True] * 7
    assert set(vocabulary.state_dict()) == {"texts_KD", "trained_K"}


@pytest.mark.parametrize(
    ("texts", "trained", "told"),
    [
        (torch.ones(3, 4), None, r"must be \(K, 2\)"),
        (torch.ones(1, 2), None, "K of at least 2"),
        (torch.tensor([[1.0, 0], [0, 0], [float("nan"), 1]]), None, "rows 1, 2"),
        (torch.ones(2, 2), torch.tensor([True]), "one for each of the 2 texts"),
        (torch.ones(2, 2), torch.tensor([True, False]), "True for the background's"),
    ],
)
def test_set_wrong_texts_raises(texts: torch.Tensor, trained: torch.Tensor | None, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        ClassTexts(2, 2).set(texts, trained)


def test_require_before_set_raises() -> None:
    with pytest.raises(ValueError, match="call set_texts"):
        ClassTexts(2, 2).require()


def shared_width(visual: tuple[int, ...] | None, audio: tuple[int, ...] | None, modality: Modality) -> int:
    made = SharedSpaceConfig.for_features(
        HeadInput(visual_shape=visual, audio_shape=audio, num_classes=3, modality=modality)
    )
    assert (made.num_classes, made.modality) == (3, modality)
    return made.width


def test_shared_width_takes_the_last_axis_of_what_is_looked_at() -> None:
    assert shared_width((7, 7, 16), (16,), "both") == 16
    assert shared_width((7, 7, 16), (4,), "audio") == 4
    with pytest.raises(ValueError, match="audio 4"):
        shared_width((16,), (4,), "both")
    with pytest.raises(ValueError, match="audio none"):
        shared_width((16,), None, "both")
    with pytest.raises(ValueError, match="num_classes must be at least 2, got 1"):
        SharedSpaceConfig(width=3, num_classes=1, modality="both")
