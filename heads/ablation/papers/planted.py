"""What each part of a head gains on planted features: the signal that it is for has been put there.

For stores of `avel synth-features`. The leads asked for are those that the protocols were tuned for, with small
prototypes of the heads; that a gap can be planted says nothing about real media.
"""

from __future__ import annotations

from collections.abc import Mapping

from heads.ablation.table import Row, Table, Variant
from heads.spec import Scalar

SUMMARY = "planted features: the whole head against itself without each part"
SOURCE = "stores of avel synth-features"


def _ave_clip(label: str, lead: float | None = None, **changes: Scalar) -> Row:
    return Row(labels=(label,), lead=lead, variant=Variant(head="ave_clip", changes=changes))


def _ov_avel(label: str, lead: float | None = None, **changes: Scalar) -> Row:
    return Row(labels=(label,), lead=lead, variant=Variant(head="ov_avel", changes=changes))


def _loco(label: str, lead: float | None = None, **changes: Scalar) -> Row:
    return Row(labels=(label,), lead=lead, variant=Variant(head="loco", changes=changes))


_AVE = Table(
    title="AVE-CLIP on planted-ave",
    columns=("variant",),
    metrics=("accuracy",),
    reference=0,
    reading="confusable classes differ by modality, one position of four shows the event, more seconds are erased in "
    "the test split; no stronger reason for long windows is planted",
    rows=(
        _ave_clip("whole"),
        Row(labels=("audio alone",), lead=15.0, variant=Variant(head="ave_clip", modality="audio")),
        Row(labels=("video alone",), lead=30.0, variant=Variant(head="ave_clip", modality="visual")),
        _ave_clip("without AGVA (mean over positions)", 6.0, agva="off"),
        _ave_clip("window 10 alone", 0.5, windows="10"),
        _ave_clip("window 2 alone", windows="2"),
        _ave_clip("without EGTA", 0.5, egta="off"),
        _ave_clip("without residual", residual=False),
    ),
)

_OV = Table(
    title="OV-AVEL on planted-ovavebench",
    columns=("variant",),
    metrics=("mean", "mean_seen", "mean_unseen", "accuracy", "segment_f1", "event_f1"),
    reference=0,
    reading="only one modality is on in most of the background, and between the towers and the texts lies a gap",
    rows=(
        _ov_avel("temporal, geometric mean"),
        Row(labels=("training-free",), lead=4.0, variant=Variant(head="ov_avel_free", changes={"published": True})),
        _ov_avel("arithmetic mean", 4.0, fusion="arithmetic"),
        _ov_avel("linear", 10.0, layer="linear"),
        _ov_avel("linear, arithmetic mean", layer="linear", fusion="arithmetic"),
        _ov_avel("without other", 15.0, other=False),
    ),
)

_UNAV = Table(
    title="LoCo on planted-unav100",
    columns=("variant",),
    metrics=("average_map", "average_map_strict", "map_0.5", "map_0.7", "map_0.9"),
    reference=0,
    reading="an event is where audio and frames meet; what is only heard or only seen has a partner of its class at "
    "another time, which attention to the whole video finds. Of LCC and of moved windows nothing is claimed",
    rows=(
        _loco("whole"),
        _loco("without LCC", lcc="off"),
        _loco("fixed windows", cross="fixed"),
        _loco("fixed windows, without LCC", lcc="off", cross="fixed"),
        _loco("global attention", 3.0, cross="global"),
        _loco("global attention, without LCC", 3.0, lcc="off", cross="global"),
        Row(labels=("audio alone",), lead=5.0, variant=Variant(head="loco", modality="audio")),
        Row(labels=("video alone",), lead=5.0, variant=Variant(head="loco", modality="visual")),
    ),
)

TABLES: Mapping[str, Table] = {"ave": _AVE, "ovavebench": _OV, "unav100": _UNAV}
