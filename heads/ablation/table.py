"""Tables of ablations by file name: `heads/ablation/papers/NAME.py` has those of one paper (or of planted features).

Each file has `SUMMARY` (one line), `SOURCE` (the paper) and `TABLES` (number or name -> `Table`). A row says which head
it trains, what of the head's published config it changes, and what the paper printed, which was measured on other
features. What differs only in the run filter is trained once; so is what several tables share.
"""

from __future__ import annotations

import types
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol, cast

from catalog.fingerprint import fingerprint
from catalog.plugins import Plugins
from heads.registry import names as head_names
from heads.spec import MODALITIES, Modality, Scalar

PAPERS = Plugins(package="heads.ablation.papers", noun="paper with tables")
# A metric beside those of a run's record: `heads.ablation.cross_similarity.mean_of_std` of its encoders.
MEAN_OF_STD = "mean_of_std"


@dataclass(frozen=True, kw_only=True)
class Variant:
    """What is trained for a row.

    Attributes:
        head: file name in `heads/models`.
        changes: fields of its config that are not the published ones.
        modality: which features it sees.
        role: of the features, where a table compares several recipes ("" the table's one recipe).
        train_share: per cent of the training items, by the data set's own reduced lists.
    """

    head: str
    changes: Mapping[str, Scalar] = field(default_factory=dict)
    modality: Modality = "both"
    role: str = ""
    train_share: int = 100

    def __post_init__(self) -> None:
        if self.head not in head_names() or self.modality not in MODALITIES:
            raise ValueError(f"a variant needs a head and a modality that there are, got {self}")
        object.__setattr__(self, "changes", types.MappingProxyType(dict(self.changes)))

    def key(self) -> str:
        """A folder's name: the head, and a hash of all that distinguishes this variant from the head's others."""
        distinct = {
            "changes": dict(self.changes),
            "modality": self.modality,
            "role": self.role,
            "train_share": self.train_share,
        }
        return f"{self.head}-{fingerprint(distinct)[:12]}"


@dataclass(frozen=True, kw_only=True)
class Row:
    """A row of a table.

    Attributes:
        labels: one for each of the table's columns.
        variant: what is trained; None for a method that is not built here.
        paper: metric -> the printed number, in per cent; without those the paper does not print.
        remembered: the printed numbers were not at hand and are from memory?
        smooth: least run of the run filter, in segments; 1 leaves it out.
        lead: points of per cent by which the table's reference row should lead this one; None where nothing is claimed.
    """

    labels: tuple[str, ...]
    variant: Variant | None
    paper: Mapping[str, float] = field(default_factory=dict)
    smooth: int = 1
    lead: float | None = None
    remembered: bool = False


@dataclass(frozen=True, kw_only=True)
class Table:
    """A table of a paper.

    Attributes:
        title: what it shows.
        columns: names of the rows' labels.
        metrics: of a run's test split, as its record names them; the first one is drawn. `MEAN_OF_STD` is measured
            beside them, and similarities are drawn.
        rows: in the paper's order.
        reading: how the table is read where the paper leaves it open; "" where it does not.
        reference: number of the row that the others are compared with; None where none is.
        cost_segments: parameters and FLOP of one item of so many segments are given beside the metrics; None: not.
    """

    title: str
    columns: tuple[str, ...]
    metrics: tuple[str, ...]
    rows: tuple[Row, ...]
    reading: str = ""
    reference: int | None = None
    cost_segments: int | None = None

    def __post_init__(self) -> None:
        for row in self.rows:
            if row.lead is not None and self.reference is None:
                raise ValueError(f"table {self.title!r}: {row.labels} is led by no row")
            if len(row.labels) != len(self.columns) or not set(row.paper) <= set(self.metrics):
                raise ValueError(f"table {self.title!r}: row {row.labels} does not fit {self.columns}, {self.metrics}")
            if row.remembered and not row.paper:
                raise ValueError(f"table {self.title!r}: row {row.labels} remembers no number")
            if row.smooth > 1 and self.metrics != ("accuracy",):
                raise ValueError(f"table {self.title!r}: behind the run filter there is AVE's accuracy alone")

    def roles(self) -> tuple[str, ...]:
        """The roles of features that its rows ask for, in order; ("",) where one recipe does."""
        return tuple(dict.fromkeys(row.variant.role for row in self.rows if row.variant is not None))


class Tables(Protocol):
    """What a file of `heads/ablation/papers` offers."""

    SUMMARY: str
    SOURCE: str
    TABLES: Mapping[str, Table]


def names() -> tuple[str, ...]:
    """The papers there are, sorted."""
    return PAPERS.names()


def plugin(name: str) -> Tables:
    """The tables of a paper; `ave-clip` and `ave_clip` are one.

    Raises:
        ValueError: there is no such file.
    """
    return cast(Tables, PAPERS.load(name.replace("-", "_")))
