"""LoCo's tables: which rows are one run, and which numbers may stand beside them."""

from __future__ import annotations

import pytest

from heads.ablation import table
from heads.ablation.table import MEAN_OF_STD, Variant

TABLES = table.plugin("loco").TABLES
COLUMNS = ("map_0.5", "map_0.6", "map_0.7", "map_0.8", "map_0.9", "average_map")


@pytest.mark.parametrize("name", ["1", "2a", "2b", "2c", "2d", "3"])
def test_tables_have_the_papers_columns_and_the_whole_head(name: str) -> None:
    one = TABLES[name]
    assert set(one.metrics) == set(COLUMNS)
    assert one.metrics[0] == "average_map"
    assert Variant(head="loco") in [row.variant for row in one.rows]


def test_no_number_is_loco_s_and_all_others_are_told_from_memory() -> None:
    printed = {row.labels: row for one in TABLES.values() for row in one.rows if row.paper}
    assert all(row.remembered for row in printed.values())
    assert {labels[0] for labels in printed} == {"VSGN", "TadTR", "ActionFormer", "UnAV", "UniAV(STF)", "CCNet"}
    for row in printed.values():
        falling = [row.paper[name] for name in COLUMNS[:-1]]
        assert falling == sorted(falling, reverse=True)
        # The average is of tIoU 0.1 to 0.9, so above that of 0.5 to 0.9.
        assert row.paper["average_map"] > sum(falling) / 5


def test_rows_that_tables_share_are_one_run() -> None:
    def key(name: str, label: str) -> str:
        (variant,) = [row.variant for row in TABLES[name].rows if ", ".join(row.labels) == label]
        assert variant is not None
        return variant.key()

    assert key("2c", "global") == key("2d", "full") == key("3", "base + GB + LCC")
    assert key("2a", "-, -") == key("3", "base") != key("3", "base + GB")
    assert key("2a", "-, yes") == key("lcc", "without LCC") == key("3", "base + CDP")
    assert key("1", "LoCo, ONE-PEACE") == key("2b", "learned Gaussian") == key("2d", "8") == key("lcc", "with LCC")
    assert key("1", "UnAV, ONE-PEACE") == key("3", "UnAV") != key("1", "UnAV, I3D-VGGish")
    variants = {row.variant.key() for one in TABLES.values() for row in one.rows if row.variant is not None}
    assert len(variants) == 20


def test_features_of_one_recipe_do_for_all_but_the_rows_of_i3d() -> None:
    assert TABLES["1"].roles() == ("i3d", "")
    assert all(one.roles() == ("",) for name, one in TABLES.items() if name != "1")


def test_costs_and_similarity_are_asked_for_where_the_paper_tells_them() -> None:
    assert {name: one.cost_segments for name, one in TABLES.items() if one.cost_segments} == {"3": 256}
    assert [name for name, one in TABLES.items() if MEAN_OF_STD in one.metrics] == ["lcc"]
