"""Checkpoints and vocabularies: what each encoder needs, where it comes from, where it lies and what its hash is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, kw_only=True)
class Asset:
    """A file (or folder) that an encoder needs, as its publisher offers it.

    Attributes:
        name: its role, for `--weights NAME=PATH`.
        filename: as published; so it lies in the weights folder.
        url: where it comes from; None where it must be got by hand.
        bytes, sha256, sha256_prefix, git_blob: what the publisher states of its content; None where nothing.
        licence: of the file.
        non_commercial: the licence forbids commercial use.
        citation: paper or code it belongs to.
        use: "features" for all that media features depend on; "text" for what only the text tower reads.
        is_folder: a folder with configuration and tensors (transformers' form) instead of one file.
    """

    name: str
    filename: str
    url: str | None
    licence: str
    bytes: int | None = None
    sha256: str | None = None
    sha256_prefix: str | None = None
    git_blob: str | None = None
    non_commercial: bool = False
    citation: str = ""
    use: Literal["features", "text"] = "features"
    is_folder: bool = False
