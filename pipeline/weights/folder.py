"""Checkpoints and vocabularies: what each encoder needs, where it comes from, where it lies and what its hash is.

Each encoder's `SPEC.assets` names its files; together they are the manifest. Files lie under their published names in
the weights folder: $AVEL_WEIGHTS, else `avel/weights` in the user's cache. What is taken from there is checked against
what its publisher states; a file named on the command line is used as it is, for it may be a fine-tuned one, and its
hash becomes part of the recipe either way. Nothing is ever fetched without being asked for.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal
from urllib.parse import quote

from catalog.errors import AvelError
from catalog.fingerprint import fingerprint
from pipeline.weights import index as weights_index
from pipeline.weights.asset import Asset
from pipeline.weights.download import OnProgress, download
from pipeline.weights.index import Digests
from pipeline.weights.option import given_files

# A base URL that stands in for every publisher, for teams without the internet: MIRROR/FILENAME.
MIRROR = "AVEL_WEIGHTS_MIRROR"
FOLDER = "AVEL_WEIGHTS"

State = Literal["missing", "partial", "present", "verified", "differs"]


class MissingWeights(AvelError, ValueError):
    """A checkpoint that is nowhere here; the message says how to get it.

    Attributes:
        assets: those missing.
    """

    def __init__(self, message: str, assets: tuple[Asset, ...]) -> None:
        super().__init__(message)
        self.assets = assets


def weights_folder() -> Path:
    """Where checkpoints lie: $AVEL_WEIGHTS, else `avel/weights` in $XDG_CACHE_HOME, else in ~/.cache.

    Raises:
        ValueError: a file is there, or where a folder above it should be.
    """
    named, cache = os.environ.get(FOLDER), os.environ.get("XDG_CACHE_HOME", "")
    # The specification: a relative path there is invalid and to be ignored.
    base = Path(cache) if os.path.isabs(cache) else Path(os.path.expanduser("~")) / ".cache"
    folder = Path(named).expanduser() if named else base / "avel" / "weights"
    there = next((path for path in (folder, *folder.parents) if path.exists()), folder)
    if there.exists() and not there.is_dir():
        raise ValueError(f"the weights folder {folder}: {there} is not a folder; set ${FOLDER} to one")
    return folder


def check(asset: Asset, path: Path) -> None:
    """Refuses a file that is not what the asset's publisher states, as far as something is stated.

    Raises:
        ValueError: another kind, size or hash.
        OSError: it cannot be read.
    """
    difference = _difference(asset, path, lambda: _remembered(asset, path))
    if difference is not None:
        raise ValueError(
            f"{path}: is not {asset.filename} as it was published: {difference}; move it away and run "
            "`avel weights fetch`, or use it all the same by --weights, under a name of its own (--as)"
        )


def sha256_of(path: Path) -> str:
    """SHA-256 of a checkpoint, 64 hexadecimal digits; those of the weights folder's files are remembered there.

    Of a folder it is that of the canonical JSON {relative name: SHA-256 of the file} of its configuration, tensor and
    tokenizer files (`weights_index.FOLDER_SUFFIXES`); hidden files are left out.

    Raises:
        ValueError: no such file; a folder that holds no such files, or a link out of itself; or a file that has changed
            since it was fetched.
        OSError: it cannot be read.
    """
    folder = weights_folder()
    if path.is_dir():
        files = weights_index.folder_files(path)
        return fingerprint({name: weights_index.digests(file, folder).sha256 for name, file in files.items()})
    if not path.is_file():
        raise ValueError(f"{path}: no such file; weights need a file or a folder")
    return weights_index.digests(path, folder).sha256


def identity(assets: Sequence[Asset], paths: Mapping[str, Path]) -> str | None:
    """The hash that stands for an encoder's weights in a recipe; None without weights.

    Of one file its SHA-256, of several that of the canonical JSON {asset name: SHA-256}. What only the text tower reads
    is left out: it changes no media feature.
    """
    used = [asset.name for asset in assets if asset.use == "features" and asset.name in paths]
    hashes = {name: sha256_of(paths[name]) for name in used}
    if len(hashes) == 1:
        return next(iter(hashes.values()))
    return fingerprint(hashes) if hashes else None


def resolve(
    assets: Sequence[Asset],
    given: Sequence[str],
    *,
    recipe_name: str,
    for_text: bool = False,
    encoder: str | None = None,
) -> dict[str, Path]:
    """Where the files are that an encoder needs.

    Args:
        assets: of the encoder.
        given: texts of `--weights`: "ASSET=PATH" or "PATH"; see `pipeline.weights.option`. What is not given is
            looked for in the weights folder, and checked.
        recipe_name: for messages.
        for_text: what only the text tower reads is needed too.
        encoder: for messages; where it is not told, the recipe's name stands for it.

    Returns:
        Asset name -> absolute path.

    Raises:
        ValueError: a path is not there, or it is not clear which asset it is; or a file in the weights folder is not
            the published one.
        MissingWeights: what is needed is nowhere.
    """
    found: dict[str, Path] = {}
    for text in given:
        for name, path in given_files(assets, text, recipe_name).items():
            if name in found:
                raise ValueError(
                    f"--weights: recipe {recipe_name}: two files are given for {name}: {found[name]}, {path}"
                )
            found[name] = path
    folder = weights_folder()
    missing = []
    for asset in assets:
        if asset.name in found or (asset.use == "text" and not for_text):
            continue
        path = folder / asset.filename
        if path.exists():
            check(asset, path)
            found[asset.name] = path
        else:
            missing.append(asset)
    if missing:
        raise MissingWeights(_how_to_get(missing, folder, recipe_name, encoder or recipe_name), tuple(missing))
    return {asset.name: found[asset.name].absolute() for asset in assets if asset.name in found}


def fetch(
    asset: Asset, folder: Path, on_progress: OnProgress | None = None, *, on_wait: Callable[[], None] | None = None
) -> Path:
    """Gets an asset from its publisher (or from $AVEL_WEIGHTS_MIRROR) into `folder`; one that is there is only checked.

    One process at a time fetches a file, on all machines that share the folder; the others wait and use what it got. An
    interrupted fetch goes on where it stopped.

    Args:
        on_progress: called with the bytes here and of all; also while another process fetches.
        on_wait: called once if another process is fetching this file.

    Raises:
        MissingWeights: it must be got by hand; says how.
        DownloadError: it could not be fetched; says why and what to do.
        ValueError: what came, or what was there, is not what the publisher states. Nothing of it is used.
        OSError: the folder cannot be written to.
    """
    target = folder / asset.filename
    if target.exists():
        check(asset, target)
        return target
    url = _url(asset, folder)
    folder.mkdir(parents=True, exist_ok=True)
    told = False

    def waiting() -> None:
        nonlocal told
        if not told and on_wait is not None:
            on_wait()
        told = True
        if on_progress is not None:
            on_progress(part_bytes(asset, folder), asset.bytes)

    with weights_index.locked(folder, asset.filename, on_wait=waiting):
        if target.exists():  # another process was quicker
            check(asset, target)
            return target
        made: list[Digests] = []

        def verify(part: Path) -> None:
            made.append(weights_index.read_digests(part, git_blob=asset.git_blob is not None))
            difference = _difference(asset, part, lambda: made[0])
            if difference is not None:
                raise ValueError(
                    f"{url}: what came is not {asset.filename} as it was published: {difference}; it is thrown away. "
                    "Try again; if it stays so, get the file elsewhere and use `avel weights add`"
                )

        download(url, target, verify=verify, size=asset.bytes, on_progress=on_progress)
        weights_index.record(target, folder, made[0], origin=url)
    return target


def add(asset: Asset, source: Path, folder: Path, *, link: bool = False) -> Path:
    """Puts a local file or folder under its published name into the weights folder, after checks.

    Args:
        source: may be the file of that name in the folder itself: its content then counts as the right one.
        link: a symbolic link instead of a copy; the file must then stay where it is.

    Raises:
        ValueError: it is not what the publisher states, or another file has that name already.
        OSError: it cannot be read, or the folder cannot be written to.
    """
    if not source.exists():
        raise ValueError(f"{source}: no such file")
    target = folder / asset.filename
    folder.mkdir(parents=True, exist_ok=True)
    with weights_index.locked(folder, asset.filename):
        if not target.exists():
            made = _place(asset, source, target, link=link)
        else:
            made = _read(asset, target)
            if not target.samefile(source) and _read(asset, source, links_out=True) != made:
                raise ValueError(
                    f"{target}: another file of that name is there already; move it away first, "
                    f"or use {source} by --weights"
                )
            _refuse_other(asset, target, made, where=target)
        for name, digests in made.items():
            weights_index.record(target / name if name else target, folder, digests, origin=str(source.absolute()))
    return target


def state_of(asset: Asset, folder: Path) -> State:
    """How an asset stands in the weights folder, without reading it: what the index remembers counts.

    "verified": it is what the publisher states. "present": it is there; its hash is not known yet, or none is stated.
    "partial": a fetch of it was interrupted. "differs": it is another file.
    """
    path = folder / asset.filename
    if not path.exists():
        return "partial" if part_bytes(asset, folder) else "missing"

    def known() -> Digests:
        held = {name: weights_index.current(file, folder) for name, file in _files(asset, path).items()}
        found = {name: Digests(sha256=e.sha256, git_blob=e.git_blob) for name, e in held.items() if e is not None}
        if len(found) < len(held) or (asset.git_blob and found[""].git_blob is None):
            raise LookupError
        return _digests_of(found)

    try:
        if _difference(asset, path, known) is not None:
            return "differs"
    except LookupError:
        return "present"
    except ValueError:  # a folder without files that count
        return "differs"
    return "verified" if asset.has_stated_hash else "present"


def part_bytes(asset: Asset, folder: Path) -> int:
    """How much of an interrupted fetch is there, in bytes."""
    try:
        return (folder / f"{asset.filename}.part").stat().st_size
    except FileNotFoundError:
        return 0


def size_text(num_bytes: int | None) -> str:
    """A size as a person reads it: 537 MB, 4.8 GB."""
    if num_bytes is None:
        return "not stated"
    for unit, factor in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if num_bytes >= factor:
            size = num_bytes / factor
            return f"{size:.1f} {unit}" if size < 10 else f"{size:.0f} {unit}"
    return f"{num_bytes} bytes"


def _difference(asset: Asset, path: Path, read: Callable[[], Digests]) -> str | None:
    """What tells `path` from the published file; None where nothing does. `read` is called where the size is right."""
    if asset.is_folder != path.is_dir():
        return "needs a folder, got a file" if asset.is_folder else "needs a file, got a folder"
    if asset.bytes is not None and weights_index.size_of(path) != asset.bytes:
        return f"needs {asset.bytes} bytes, got {weights_index.size_of(path)}"
    if not asset.has_stated_hash:
        return None
    made = read()
    for what, needed, got in (
        ("SHA-256", asset.sha256, made.sha256),
        ("SHA-256 that begins with", asset.sha256_prefix, made.sha256),
        ("git blob", asset.git_blob, made.git_blob or ""),
    ):
        if needed is not None and not got.startswith(needed):
            return f"needs the {what} {needed}, got {got}"
    return None


def _remembered(asset: Asset, path: Path) -> Digests:
    if asset.is_folder:
        return Digests(sha256=sha256_of(path))
    return weights_index.digests(path, weights_folder(), git_blob=asset.git_blob is not None)


def _read(asset: Asset, path: Path, *, links_out: bool = False) -> dict[str, Digests]:
    """The digests of the asset's files (name "" for the one file of an asset that is no folder), read now."""
    blob, files = asset.git_blob is not None, _files(asset, path, links_out=links_out)
    return {name: weights_index.read_digests(file, git_blob=blob) for name, file in files.items()}


def _digests_of(files: Mapping[str, Digests]) -> Digests:
    if set(files) == {""}:
        return files[""]
    return Digests(sha256=fingerprint({name: digests.sha256 for name, digests in files.items()}))


def _files(asset: Asset, path: Path, *, links_out: bool = False) -> dict[str, Path]:
    return weights_index.folder_files(path, links_out=links_out) if asset.is_folder and path.is_dir() else {"": path}


def _place(asset: Asset, source: Path, target: Path, *, link: bool) -> dict[str, Digests]:
    """Links or copies, checks, and gives it its name last."""
    # What a size alone tells is told before gigabytes are copied.
    if not asset.is_folder:
        _refuse_other(asset, source, None, where=source)
    with tempfile.TemporaryDirectory(prefix=".add-", dir=target.parent) as scratch:
        new = Path(scratch, asset.filename)
        if link:
            new.symlink_to(source.resolve())
        elif asset.is_folder and source.is_dir():
            for name, file in weights_index.folder_files(source, links_out=True).items():
                (new / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(file, new / name)
        else:
            shutil.copyfile(source, new)
        made = _read(asset, new)
        _refuse_other(asset, new, made, where=source)
        new.rename(target)
    return made


def _refuse_other(asset: Asset, path: Path, made: Mapping[str, Digests] | None, *, where: Path) -> None:
    """`made` is None before anything was read: then only kind and size are looked at."""
    looked_at = asset if made is not None else replace(asset, sha256=None, sha256_prefix=None, git_blob=None)
    difference = _difference(looked_at, path, lambda: _digests_of(made or {}))
    if difference is not None:
        raise ValueError(
            f"{where}: is not {asset.filename} as it was published: {difference}. The weights folder holds published "
            f"files alone; any other checkpoint is used where it lies: --weights {asset.name}={where}"
        )


def _url(asset: Asset, folder: Path) -> str:
    mirror = os.environ.get(MIRROR)
    if mirror and not asset.is_folder:
        return f"{mirror.rstrip('/')}/{quote(asset.filename)}"
    if asset.url is None or asset.is_folder:
        source = f"from {asset.url} " if asset.url else ""
        what = "a folder of several files" if asset.is_folder else "not offered at a URL"
        raise MissingWeights(
            f"{asset.filename} is {what}: get it {source}by hand, then `avel weights add ENCODER {asset.filename}` "
            f"puts it into {folder}, or --weights {asset.name}=PATH uses it where it lies",
            (asset,),
        )
    return asset.url


def _how_to_get(missing: Sequence[Asset], folder: Path, recipe_name: str, encoder: str) -> str:
    lines = [f"recipe {recipe_name} needs weights that are not here:"]
    for asset in missing:
        size = "of a size not stated" if asset.bytes is None else size_text(asset.bytes)
        lines.append(f"  {asset.filename} (asset {asset.name}, {size})")
        lines.append(f"    from     {asset.url or 'no URL: to be got by hand'}")
        lines.append(f"    licence  {asset.licence}" + (": NON-COMMERCIAL use only" if asset.non_commercial else ""))
        lines.append(f"    into     {folder}")
    by_hand = all(asset.url is None or asset.is_folder for asset in missing)
    accept = " --accept-licence" if any(asset.non_commercial for asset in missing) else ""
    text = " --text" if any(asset.use == "text" for asset in missing) else ""
    if not by_hand:
        lines.append(f"get them:              avel weights fetch {encoder}{text}{accept}")
    lines.append(f"or from a local file:  avel weights add {encoder} FILE")
    lines.append(f"or use a file in place: --weights {missing[0].name}=FILE")
    return "\n".join(lines)
