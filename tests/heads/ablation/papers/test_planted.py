"""What is claimed of heads on planted features."""

from __future__ import annotations

from heads.ablation import table


def test_unav100_claims_what_was_planted_and_nothing_of_lcc() -> None:
    one = table.plugin("planted").TABLES["unav100"]
    assert one.reference == 0
    assert one.metrics[0] == "average_map"
    leads = {row.labels[0]: row.lead for row in one.rows}
    assert leads == {
        "whole": None,
        "without LCC": None,
        "fixed windows": None,
        "fixed windows, without LCC": None,
        "global attention": 3.0,
        "global attention, without LCC": 3.0,
        "audio alone": 5.0,
        "video alone": 5.0,
    }
    assert len({row.variant.key() for row in one.rows if row.variant is not None}) == len(one.rows)
