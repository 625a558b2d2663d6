"""AVE-CLIP's tables 1 to 7.

The paper contradicts itself: its table 3 gives multi-window fusion alone 82.0 and the complete model 83.7, and table 5
prints 83.7 in an ablation of that fusion. Table 5 is therefore read as run within the complete model, table 4 as fusion
and fully connected layers alone (as the text says of it).

Source: Mahmud and Marculescu, WACV 2023.
"""

from __future__ import annotations

from collections.abc import Mapping

from heads.ablation.table import Row, Table, Variant
from heads.spec import Scalar

SUMMARY = "AVE-CLIP's tables 1 to 7: methods, encoders, blocks, windows, mask and refiner, run filter"
SOURCE = "Mahmud and Marculescu, AVE-CLIP, WACV 2023"

# Segments of the run filter in the complete model (table 7).
SMOOTH = 3
_ACCURACY = ("accuracy",)
# "The rest of the modules are replaced with simple fully connected layers" (section 4.3).
_FUSION_ALONE: Mapping[str, Scalar] = {"egta": "off", "refiner": "", "last": "linear"}


def _row(*labels: str, paper: float | None = None, smooth: int = 1, variant: Variant | None = None) -> Row:
    return Row(labels=labels, variant=variant, smooth=smooth, paper={} if paper is None else {"accuracy": paper})


def _ave_clip(**changes: Scalar) -> Variant:
    return Variant(head="ave_clip", changes=changes)


_METHODS = Table(
    title="methods",
    columns=("method",),
    metrics=_ACCURACY,
    reading="the uni-modal rows are AVEL's network with one modality; DAM, AVIN and RFJC are not built here; "
    "CMBS is not in the paper's table",
    rows=(
        _row("audio alone", paper=59.5, variant=Variant(head="avel", modality="audio")),
        _row("video alone", paper=55.3, variant=Variant(head="avel", modality="visual")),
        _row("AVEL", paper=74.7, variant=Variant(head="avel")),
        _row("DAM", paper=74.5),
        _row("PSP", paper=77.8, variant=Variant(head="psp")),
        _row("AVIN", paper=75.2),
        _row("RFJC", paper=76.2),
        _row("CMBS", variant=Variant(head="cmbs")),
        _row("AV-Transformer", paper=76.8, variant=Variant(head="av_transformer")),
        _row("AVE-CLIP", paper=83.7, smooth=SMOOTH, variant=_ave_clip()),
    ),
)

_ENCODERS = Table(
    title="encoders",
    columns=("features",),
    metrics=_ACCURACY,
    rows=(
        _row("AudioCLIP", paper=81.1, smooth=SMOOTH, variant=Variant(head="ave_clip", role="frozen")),
        _row("AudioCLIP, fine-tuned", paper=83.7, smooth=SMOOTH, variant=Variant(head="ave_clip", role="finetuned")),
        _row("VGG-19 and VGGish", paper=79.3, smooth=SMOOTH, variant=Variant(head="ave_clip", role="vgg")),
    ),
)

_BLOCKS = Table(
    title="blocks",
    columns=("fusion and refinement",),
    metrics=_ACCURACY,
    rows=(
        _row("PSP", paper=77.8, variant=Variant(head="psp")),
        _row("AV-Transformer", paper=76.8, variant=Variant(head="av_transformer")),
        _row("MWTF", paper=82.0, variant=_ave_clip(**_FUSION_ALONE)),
        _row("MWTF + refiner", paper=82.5, variant=_ave_clip(egta="off")),
        _row("MWTF + EGTA + refiner", paper=83.2, variant=_ave_clip()),
        _row("MWTF + EGTA + refiner + run filter", paper=83.7, smooth=SMOOTH, variant=_ave_clip()),
    ),
)

_ONE_WINDOW_PAPER = {
    "temporal": (78.1, 79.3, 81.2, 79.4),
    "feature": (78.5, 79.1, 81.6, 79.2),
    "both": (79.0, 79.8, 81.6, 79.7),
}
_ONE_WINDOW = Table(
    title="one window",
    columns=("attention", "window"),
    metrics=_ACCURACY,
    reading="fusion and fully connected layers alone, without the run filter",
    rows=tuple(
        _row(
            attention,
            f"{window} s",
            paper=paper,
            variant=_ave_clip(attention=attention, windows=window, **_FUSION_ALONE),
        )
        for attention, papers in _ONE_WINDOW_PAPER.items()
        for window, paper in zip(("2", "5", "10", "3*"), papers, strict=True)
    ),
)

_WINDOWS_PAPER: Mapping[str, tuple[float | None, float]] = {
    "10": (None, 81.6),
    "10,5": (82.4, 82.7),
    "10,3*": (82.1, 82.5),
    "5,2": (80.6, 81.2),
    "10,5,3*": (83.2, 82.8),
    "10,5,2": (82.9, 83.0),
    "10,5,3*,2": (83.7, 83.3),
}
_WINDOWS = Table(
    title="windows",
    columns=("windows", "weights"),
    metrics=_ACCURACY,
    reading="within the complete model, run filter of 3 s; one window alone has no weights to share",
    rows=tuple(
        _row(
            " + ".join(f"{window} s" for window in windows.split(",")),
            weights,
            paper=paper,
            smooth=SMOOTH,
            variant=_ave_clip(windows=windows, shared=weights == "shared"),
        )
        for windows, papers in _WINDOWS_PAPER.items()
        for weights, paper in zip(("shared", "independent"), papers, strict=True)
        if paper is not None
    ),
)

_REFINEMENT = Table(
    title="mask and refiner",
    columns=("block", "variant"),
    metrics=_ACCURACY,
    reading="within the complete model, run filter of 3 s; without supervision the mask's loss is left out",
    rows=(
        _row("EGTA", "supervised", paper=83.7, smooth=SMOOTH, variant=_ave_clip()),
        _row("EGTA", "without supervision", paper=83.1, smooth=SMOOTH, variant=_ave_clip(egta="unsupervised")),
        _row("refiner", "10 s", paper=83.7, smooth=SMOOTH, variant=_ave_clip()),
        _row("refiner", "5 s", paper=83.2, smooth=SMOOTH, variant=_ave_clip(refiner="5")),
        _row("refiner", "10 s + 5 s", paper=83.6, smooth=SMOOTH, variant=_ave_clip(refiner="10,5")),
    ),
)

_RUN_FILTER = Table(
    title="run filter",
    columns=("least run",),
    metrics=_ACCURACY,
    rows=tuple(
        _row(f"{smooth} s", paper=paper, smooth=smooth, variant=_ave_clip())
        for smooth, paper in enumerate((83.2, 83.5, 83.7, 82.9, 82.3), start=1)
    ),
)

TABLES: Mapping[str, Table] = {
    "1": _METHODS,
    "2": _ENCODERS,
    "3": _BLOCKS,
    "4": _ONE_WINDOW,
    "5": _WINDOWS,
    "6": _REFINEMENT,
    "7": _RUN_FILTER,
}
