"""The bench of fine-tuning: what knowing kinds alone gives, against dice; and the whole of it, slowly."""

from __future__ import annotations

import statistics
from pathlib import Path

import numpy as np
import pytest

from bench import finetune
from bench.finetune import Options, Outcome
from catalog.datasets import synthetic

# Of the mean of 5 differences, two-sided 95 %.
T_OF_5 = 2.776


def test_kinds_alone_is_what_dice_among_the_fitting_give(tmp_path: Path) -> None:
    dataset = synthetic.plan(synthetic.Settings(layout="ave", videos=150, seed=0), tmp_path).dataset
    items = dataset.split("test")
    classes = dict(zip(dataset.classes, synthetic.pairs("ave"), strict=True))
    pairs = [classes[event.label] for item in items for event in item.events[:1]]
    rng = np.random.default_rng(0)
    hits = {1: 0, 5: 0, 10: 0}
    rounds = 400
    for _ in range(rounds):
        for own, (seen, _) in enumerate(pairs):
            fits = np.array([any(pair == (seen, heard) for pair in classes.values()) for _, heard in pairs])
            order = np.lexsort((rng.random(len(pairs)), ~fits))
            rank = int(np.flatnonzero(order == own)[0])
            for k in hits:
                hits[k] += rank < k
    told = finetune._kinds_alone(dataset)
    for k, count in hits.items():
        # 12,000 throws: three standard errors are at most 0.014
        assert told[f"r{k}"] == pytest.approx(count / rounds / len(pairs), abs=0.014)


def test_figures_tell_every_rank_and_fail_without_gain() -> None:
    recalls = {f"{way}_r{k}": share for way in finetune._WAYS for k, share in ((1, 0.1), (5, 0.3), (10, 0.4))}
    outcome = Outcome(
        items=50,
        before=recalls,
        after=recalls | {"audio_to_image_r5": 0.15},
        chance={"r1": 0.02, "r5": 0.1, "r10": 0.2},
        kinds={"r1": 0.03, "r5": 0.15, "r10": 0.3},
        accuracy_before=(50.0, 52.0),
        accuracy_after=(49.0, 52.0),
        best_epoch=3,
        seconds={"synth": 1.0, "heads": 2.5},
    )
    told = finetune.figures(outcome, Options(head_seeds=(0, 1)))
    met = {figure.what: figure.met for figure in told}
    assert [value for name, value in met.items() if "R@5" in name] == [True, False]
    assert [value for name, value in met.items() if "R@10" in name] == [True, True]
    gain = next(figure for figure in told if "gain" in figure.what)
    assert (gain.value, gain.met) == (-0.5, False)
    assert "before 51.00 ± 1.41 %" in gain.detail
    assert told[-1].value == 3.5


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_finetuning_learns_what_belongs_together_and_helps_the_head(tmp_path: Path) -> None:
    outcome = finetune.demonstrate(tmp_path, Options())
    for k in (5, 10):
        after, before = (
            statistics.mean(numbers[f"{way}_r{k}"] for way in finetune._WAYS)
            for numbers in (outcome.after, outcome.before)
        )
        assert after > 2 * outcome.chance[f"r{k}"]
        assert after > 1.3 * outcome.kinds[f"r{k}"]
        assert after > before
    noise = T_OF_5 * statistics.stdev(outcome.gains) / len(outcome.gains) ** 0.5
    assert statistics.mean(outcome.gains) > noise
