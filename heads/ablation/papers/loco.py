"""LoCo's tables 1, 2a to 2d and 3, and what its section 4.5 says of LCC.

The text of the paper that is at hand has its tables without their numbers, so no row has a number of LoCo's: those of
other methods are from memory and marked so. What the text says in words: LoCo leads UniAV (fine-tuned for the one
task) by 1.7 points of average mAP and by 3.4 at tIoU 0.9; CDP leads the fixed window by 2.2 at 0.9; the learned
Gaussian leads the other objectives, and windows of any size lead attention to all.

Source: the LoCo paper (locality-aware cross-modal correspondence learning for dense audio-visual events localization).
"""

from __future__ import annotations

from collections.abc import Mapping

from heads.ablation.table import MEAN_OF_STD, Row, Table, Variant
from heads.spec import Scalar

SUMMARY = "LoCo's tables 1, 2a to 2d and 3: methods, blocks, objectives of LCC, attention, windows, cost; similarity"
SOURCE = "the LoCo paper: locality-aware cross-modal correspondence learning for dense audio-visual events localization"

# Of the paper's columns the average is of tIoU 0.1 to 0.9.
_METRICS = ("average_map", "map_0.5", "map_0.6", "map_0.7", "map_0.8", "map_0.9")
_I3D = "I3D-VGGish"
_ONE_PEACE = "ONE-PEACE"
# Segments of an item in table 3: the longest that the paper's heads are shown.
_COST_SEGMENTS = 256


def _loco(**changes: Scalar) -> Variant:
    return Variant(head="loco", changes=changes)


def _row(*labels: str, variant: Variant | None = None, remembered: tuple[float, ...] = ()) -> Row:
    """A row; `remembered` has the paper's columns, tIoU 0.5 to 0.9 and the average."""
    paper = dict(zip((*_METRICS[1:], _METRICS[0]), remembered, strict=True)) if remembered else {}
    return Row(labels=labels, variant=variant, paper=paper, remembered=bool(paper))


def _i3d(head: str) -> Variant:
    return Variant(head=head, role="i3d")


_METHODS = Table(
    title="methods",
    columns=("method", "features"),
    metrics=_METRICS,
    reading="the methods' numbers are from memory; CCNet is not in the paper's table; in the paper LoCo leads "
    "UniAV(STF) on ONE-PEACE by 1.7, and by 3.4 at 0.9; rows of ONE-PEACE take the recipe that is given without a role",
    rows=(
        _row("VSGN", _I3D, remembered=(24.5, 20.2, 15.9, 11.4, 6.8, 24.1)),
        _row("TadTR", _I3D, remembered=(30.4, 27.1, 23.3, 19.4, 14.3, 29.4)),
        _row("ActionFormer", _I3D, variant=_i3d("action_former"), remembered=(43.5, 39.4, 33.4, 27.3, 17.9, 42.2)),
        _row("TriDet", _I3D, variant=_i3d("tri_det")),
        _row("UnAV", _I3D, variant=_i3d("unav"), remembered=(50.6, 45.8, 39.8, 32.4, 21.1, 47.8)),
        _row("LoCo", _I3D, variant=_i3d("loco")),
        _row("ActionFormer", _ONE_PEACE, variant=Variant(head="action_former")),
        _row("TriDet", _ONE_PEACE, variant=Variant(head="tri_det")),
        _row("UnAV", _ONE_PEACE, variant=Variant(head="unav")),
        _row("UniAV(STF)", _ONE_PEACE, remembered=(54.8, 49.4, 43.2, 35.3, 22.5, 51.7)),
        _row("CCNet", _ONE_PEACE, remembered=(57.3, 52.2, 46.2, 38.1, 25.6, 54.1)),
        _row("LoCo", _ONE_PEACE, variant=_loco()),
    ),
)

_BLOCKS = Table(
    title="blocks",
    columns=("LCC", "CDP"),
    metrics=_METRICS,
    reading="without CDP each stream asks itself in windows, and the modalities meet in the decoder alone",
    rows=(
        _row("-", "-", variant=_loco(lcc="off", cross="off")),
        _row("yes", "-", variant=_loco(cross="off")),
        _row("-", "yes", variant=_loco(lcc="off")),
        _row("yes", "yes", variant=_loco()),
    ),
)

_OBJECTIVES = Table(
    title="objective of LCC",
    columns=("objective",),
    metrics=_METRICS,
    reading="the fixed Gaussian keeps the standard deviation that the learned one starts with",
    rows=(
        _row("diagonal matrix", variant=_loco(lcc="diagonal")),
        _row("softened target", variant=_loco(lcc="softened")),
        _row("fixed Gaussian", variant=_loco(lcc="fixed")),
        _row("learned Gaussian", variant=_loco()),
    ),
)

_ATTENTION = Table(
    title="attention between the modalities",
    columns=("attention",),
    metrics=_METRICS,
    reading="with LCC; in the paper CDP leads the fixed window by 2.2 at 0.9",
    rows=(
        _row("global", variant=_loco(cross="global")),
        _row("fixed", variant=_loco(cross="fixed")),
        _row("CDP", variant=_loco()),
    ),
)

_WINDOWS = Table(
    title="base window",
    columns=("window",),
    metrics=_METRICS,
    reading="the paper's four sizes are not known: 4 to 32 points of a level are tried, 8 is the head's own; full is "
    "global attention",
    rows=(
        _row("4", variant=_loco(window=4)),
        _row("8", variant=_loco()),
        _row("16", variant=_loco(window=16)),
        _row("32", variant=_loco(window=32)),
        _row("full", variant=_loco(cross="global")),
    ),
)

_SIMILARITY = Table(
    title="mean of std",
    columns=("encoders",),
    metrics=("average_map", "map_0.9", MEAN_OF_STD),
    reading="mean over the test videos of the standard deviation of their cosines of audio and frames behind the "
    "encoders (section 4.5), in hundredths; in the paper it rises with LCC",
    rows=(
        _row("without LCC", variant=_loco(lcc="off")),
        _row("with LCC", variant=_loco()),
    ),
)

_COSTS = Table(
    title="parameters and FLOP",
    columns=("method",),
    metrics=_METRICS,
    cost_segments=_COST_SEGMENTS,
    reading=f"of a forward pass of one item of {_COST_SEGMENTS} segments, 2 FLOP a multiply-add, without NMS; GB is "
    "global attention between the modalities, of which the base has none",
    rows=(
        _row("UnAV", variant=Variant(head="unav")),
        _row("UniAV(STF)"),
        _row("base", variant=_loco(lcc="off", cross="off")),
        _row("base + GB", variant=_loco(lcc="off", cross="global")),
        _row("base + CDP", variant=_loco(lcc="off")),
        _row("base + GB + LCC", variant=_loco(cross="global")),
        _row("base + CDP + LCC", variant=_loco()),
    ),
)

TABLES: Mapping[str, Table] = {
    "1": _METHODS,
    "2a": _BLOCKS,
    "2b": _OBJECTIVES,
    "2c": _ATTENTION,
    "2d": _WINDOWS,
    "3": _COSTS,
    "lcc": _SIMILARITY,
}
