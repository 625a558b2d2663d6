"""Tables of ablations: what makes two variants one run, and tables that cannot be."""

from __future__ import annotations

from typing import Any

import pytest

from heads.ablation import table
from heads.ablation.table import Row, Table, Variant
from heads.registry import configure, read_config
from heads.spec import HeadInput


def test_variant_key_is_equal_for_equal_variants_and_tells_all_others_apart() -> None:
    one = Variant(head="ave_clip", changes={"windows": "5", "width": 16})
    assert one.key() == Variant(head="ave_clip", changes={"width": 16, "windows": "5"}).key()
    assert one.key().startswith("ave_clip-")
    different = [
        one,
        Variant(head="psp"),
        Variant(head="ave_clip"),
        Variant(head="ave_clip", changes={"windows": "5"}),
        Variant(head="ave_clip", changes={"windows": "5", "width": 32}),
        Variant(head="ave_clip", modality="audio"),
        Variant(head="ave_clip", role="frozen"),
        Variant(head="ave_clip", train_share=50),
    ]
    assert len({variant.key() for variant in different}) == len(different)


def test_variant_changes_are_its_own_and_cannot_be_altered() -> None:
    changes = {"width": 16}
    variant = Variant(head="ave_clip", changes=changes)
    changes["width"] = 32
    assert dict(variant.changes) == {"width": 16}
    with pytest.raises(TypeError):
        variant.changes["width"] = 32  # type: ignore[index]  # that it cannot be is the test


@pytest.mark.parametrize("wrong", [{"head": "nosuch"}, {"head": "linear", "modality": "smell"}])
def test_variant_of_nothing_there_is_raises(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="a head and a modality that there are"):
        Variant(**wrong)


@pytest.mark.parametrize(
    ("row", "metrics", "told"),
    [
        ({"labels": ("a", "b")}, ("accuracy",), "does not fit"),
        ({"paper": {"mean": 1.0}}, ("accuracy",), "does not fit"),
        ({"lead": 3.0}, ("accuracy",), "is led by no row"),
        ({"remembered": True}, ("accuracy",), "remembers no number"),
        ({"smooth": 3}, ("mean",), "AVE's accuracy alone"),
        ({"smooth": 3}, ("accuracy", "mean"), "AVE's accuracy alone"),
    ],
)
def test_table_whose_rows_do_not_fit_raises(row: dict[str, Any], metrics: tuple[str, ...], told: str) -> None:
    fields: dict[str, Any] = {"labels": ("a",), "variant": None} | row
    with pytest.raises(ValueError, match=told):
        Table(title="t", columns=("which",), metrics=metrics, rows=(Row(**fields),))


def test_table_roles_are_those_of_its_variants_in_order() -> None:
    rows = tuple(
        Row(labels=(str(i),), variant=None if role is None else Variant(head="linear", role=role))
        for i, role in enumerate(("vgg", None, "", "vgg"))
    )
    assert Table(title="t", columns=("which",), metrics=("accuracy",), rows=rows).roles() == ("vgg", "")


@pytest.mark.parametrize("name", table.names())
def test_every_papers_tables_change_fields_that_their_heads_have(name: str) -> None:
    paper = table.plugin(name.replace("_", "-"))
    assert paper.SUMMARY
    assert paper.SOURCE
    for key, one in paper.TABLES.items():
        for row in one.rows:
            if row.variant is not None:
                config = configure(
                    row.variant.head,
                    HeadInput(visual_shape=(8,), audio_shape=(8,), num_classes=3, modality=row.variant.modality),
                )
                changed = read_config(row.variant.head, vars(config) | dict(row.variant.changes))
                assert changed.modality == row.variant.modality, (key, row.labels)


def test_plugin_unknown_paper_raises() -> None:
    with pytest.raises(ValueError, match="no paper with tables 'nosuch'; there are ave_clip, loco, ov_avel, planted"):
        table.plugin("nosuch")
