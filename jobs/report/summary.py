"""What a report shows, in one sentence: the metric that counts, of the run, the runs compared with and baselines."""

from __future__ import annotations

from collections.abc import Sequence

from jobs.report.metric_table import headline_metric, metric_name
from jobs.report.reported_run import ReportedRun

# As sentences have them.
_MODALITIES = {"both": "audio and frames together", "audio": "audio alone", "visual": "frames alone"}
_UNITS = {"accuracy": "% of segments right", "average_map": "% mean average precision (tIoU 0.1 to 0.9)"}
# Baselines that need no truth of the test split.
_BASELINES = {
    "majority": "the most frequent class",
    "whole_video": "every class all the time",
    "mean_length": "every class in the middle",
}


def summary(run: ReportedRun, split: str, compared: Sequence[ReportedRun], *, num_videos: int) -> str:
    """The sentence; empty where the run has no metric that counts on `split`.

    Args:
        num_videos: of the split; 0 where it is not known.
    """
    metric = headline_metric(run.numbers(split))
    if not metric:
        return ""
    shown = [run, *(other for other in compared if metric in other.numbers(split))]
    one_head = len({other.record.head for other in shown}) == 1
    names = [_name(other, with_head=not one_head) for other in shown]
    unit = _UNITS.get(metric, f"% {metric_name(metric)}")
    values = [_spell(other, split, metric) for other in shown]
    parts = [f"{name} {value}" for name, value in list(zip(names, values, strict=True))[1:]]
    # The record keeps the baselines of the test split, and of validation where there is no test split.
    if split == ("test" if "test" in run.record.metrics else "val"):
        parts += [f"{_BASELINES[k]} {100 * v:.1f}" for k, v in run.record.baselines.items() if k in _BASELINES]
    told = f"{names[0][:1].upper()}{names[0][1:]}: {values[0]} {unit}"
    spread = f"mean ± sd of {len(run.seeds)} seeds" if len(run.seeds) > 1 else f"seed {run.record.seed}"
    videos = [f"{num_videos} {split} video{'s' if num_videos > 1 else ''}"] if num_videos else []
    return f"{told}{'; ' if parts else ''}{', '.join(parts)} ({'; '.join([spread, *videos])})."


def _name(run: ReportedRun, *, with_head: bool) -> str:
    modality = _MODALITIES.get(str(run.record.config.get("modality", "")), "")
    return ", ".join(word for word in (run.record.head if with_head or not modality else "", modality) if word)


def _spell(run: ReportedRun, split: str, metric: str) -> str:
    sd = run.sds(split).get(metric)
    return f"{100 * run.numbers(split)[metric]:.1f}" + ("" if sd is None else f" ± {100 * sd:.1f}")
