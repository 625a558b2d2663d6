"""Workers on a node that does not see the driver's files."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.weights.asset import Asset
from pipeline.weights.folder import MissingWeights, identity
from pipeline.weights.node import weights_at_hand

NET = Asset(name="net", filename="net.pt", url=None, licence="MIT")
WORDS = Asset(name="words", filename="words.txt", url=None, licence="MIT", use="text")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """This node's weights folder."""
    place = tmp_path / "node"
    place.mkdir()
    monkeypatch.setenv("AVEL_WEIGHTS", str(place))
    return place


def test_a_path_that_is_seen_is_used(folder: Path, tmp_path: Path) -> None:
    shared = tmp_path / "net.pt"
    shared.write_bytes(b"tensors")
    assert weights_at_hand([NET], {"net": shared}, identity="whatever") == {"net": shared}


def test_the_nodes_own_copy_is_used_where_it_is_the_same(folder: Path, tmp_path: Path) -> None:
    (folder / "net.pt").write_bytes(b"tensors")
    told = identity([NET], {"net": folder / "net.pt"})
    found = weights_at_hand([NET, WORDS], {"net": tmp_path / "elsewhere/net.pt"}, identity=told)
    assert found == {"net": folder / "net.pt"}


def test_another_copy_is_refused(folder: Path, tmp_path: Path) -> None:
    (folder / "net.pt").write_bytes(b"other tensors")
    with pytest.raises(ValueError, match=r"does not see .*elsewhere.net\.pt.*needs abc, got [0-9a-f]{64}"):
        weights_at_hand([NET], {"net": tmp_path / "elsewhere/net.pt"}, identity="abc")


def test_what_is_nowhere_and_not_offered_is_missing(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(MissingWeights, match=r"net\.pt"):
        weights_at_hand([NET], {"net": tmp_path / "elsewhere/net.pt"}, identity="abc")
