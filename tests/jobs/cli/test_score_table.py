"""A head's numbers beside its baselines, in %."""

from __future__ import annotations

import pytest

from jobs.cli.score_table import print_scores


def cells(printed: str) -> list[list[str]]:
    return [[cell.strip() for cell in line.split("│")[1:-1]] for line in printed.splitlines() if line.startswith("│")]


def test_scores_are_percentages_with_a_row_for_each_baseline(capsys: pytest.CaptureFixture[str]) -> None:
    metrics = {"val": {"accuracy": 0.5, "items": 7.0}, "test": {"accuracy": 0.625, "segment_f1": 1.0}}
    baselines = {"val": {"majority": {"accuracy": 0.25}}, "test": {"majority": {"accuracy": 0.125}}}
    print_scores("title", "linear", metrics, baselines)
    printed = capsys.readouterr().out
    for column in ("val accuracy %", "test accuracy %", "test segment F1 %"):
        assert column in printed
    assert "items" not in printed
    assert cells(printed) == [
        ["linear", "50.00", "62.50", "100.00"],
        ["majority (commonest class of training)", "25.00", "12.50", "-"],
    ]


def test_scores_of_seen_and_unseen_classes_are_rows(capsys: pytest.CaptureFixture[str]) -> None:
    metrics: dict[str, dict[str, float | str]] = {"test": {"mean": 0.3, "mean_seen": 0.4, "mean_unseen": "none"}}
    print_scores("title", "ov_avel", metrics, {"test": {"whole_video": {"mean": 0.1}}})
    assert cells(capsys.readouterr().out) == [
        ["ov_avel", "seen", "40.00"],
        ["", "unseen", "none"],
        ["", "total", "30.00"],
        ["whole_video (each class, all the time)", "total", "10.00"],
    ]
