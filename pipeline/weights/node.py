"""Checkpoints on the machine that encodes: from the shared folder, or fetched once for the node."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from pipeline.weights import folder as weights
from pipeline.weights.asset import Asset


def weights_at_hand(assets: Sequence[Asset], paths: Mapping[str, Path], *, identity: str | None) -> dict[str, Path]:
    """Where this node has the files that the driver named.

    A path that exists here (a shared folder) is used as it is. Another is looked for in this node's weights folder, and
    fetched there where its publisher offers it: one process fetches, the others of the node wait for it.

    Args:
        paths: asset name -> path on the driver.
        identity: the recipe's `weights_sha256`; what came from elsewhere than `paths` must have it.

    Raises:
        MissingWeights: a file is neither here nor to be fetched.
        ValueError: what is here is not what the driver has.
    """
    by_name = {asset.name: asset for asset in assets}
    folder = weights.weights_folder()
    found = {name: path if path.exists() else weights.fetch(by_name[name], folder) for name, path in paths.items()}
    elsewhere = [name for name, path in found.items() if path != paths[name]]
    if elsewhere and (got := weights.identity(assets, found)) != identity:
        told = ", ".join(f"{paths[name]} (here {found[name]})" for name in elsewhere)
        raise ValueError(
            f"this node does not see {told}, and its own weights are others: needs {identity}, got {got}; "
            "put the files where every node sees them ($AVEL_WEIGHTS on a shared disk)"
        )
    return found
