"""What `--weights` says: `ASSET=PATH`, or `PATH` alone where it is clear what it is.

`PATH` is a file: one with a published name is that asset, another the encoder's one checkpoint. Or it is a folder: it
holds files by their published names, or is itself the one asset that is a folder. `ASSET=` counts only where an asset
has that name, so a path may hold `=`. Files given so are not checked against what their publisher states: they may be
fine-tuned ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pipeline.weights.asset import Asset


def given_files(assets: Sequence[Asset], text: str, recipe_name: str) -> dict[str, Path]:
    """The files that one text of `--weights` names, by asset.

    Raises:
        ValueError: there is no such file, or it is not clear which asset it is.
    """
    by_name = {asset.name: asset for asset in assets}
    name, equals, rest = text.partition("=")
    if equals and name in by_name:
        path = Path(rest).expanduser()
        _check_kind(by_name[name], path)
        return {name: path}
    path = Path(text).expanduser()
    where = f"--weights {text}: recipe {recipe_name}"
    if not path.exists():
        raise ValueError(f"{where}: no such file or folder")
    needed = [asset for asset in assets if asset.use == "features"]
    if not path.is_dir():
        published = [asset for asset in assets if asset.filename == path.name and not asset.is_folder]
        files = [asset for asset in needed if not asset.is_folder]
        meant = published or files
        if len(meant) != 1:
            raise ValueError(f"{where} needs ASSET=PATH, with one of {', '.join(by_name)}")
        _check_kind(meant[0], path)
        return {meant[0].name: path}
    inside = {asset.name: path / asset.filename for asset in assets if (path / asset.filename).exists()}
    if not inside and len(needed) == 1 and needed[0].is_folder:
        return {needed[0].name: path}
    if not inside:
        names = ", ".join(asset.filename for asset in assets)
        raise ValueError(f"{where}: the folder holds none of its files ({names}); name another file by ASSET=PATH")
    for name, file in inside.items():
        _check_kind(by_name[name], file)
    return inside


def _check_kind(asset: Asset, path: Path) -> None:
    wanted = "folder" if asset.is_folder else "file"
    if not (path.is_dir() if asset.is_folder else path.is_file()):
        got = "got something else" if path.exists() else "there is none"
        raise ValueError(f"--weights {asset.name}={path}: needs a {wanted}, {got}")
