"""An asset: a checkpoint or vocabulary that an encoder needs, as its publisher offers it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

_HEX = re.compile("[0-9a-f]+")


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
        setting: needed only by recipes in which this setting of the encoder is true; None: by all.
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
    setting: str | None = None

    def __post_init__(self) -> None:
        if not self.name or "=" in self.name:
            raise ValueError(f"an asset needs a name without '=', got {self.name!r}")
        if not self.filename or "/" in self.filename or self.filename.startswith("."):
            raise ValueError(f"asset {self.name}: needs a plain file name, got {self.filename!r}")
        for what, text, digits in (("sha256", self.sha256, 64), ("git_blob", self.git_blob, 40)):
            if text is not None and not (len(text) == digits and _HEX.fullmatch(text)):
                raise ValueError(f"asset {self.name}: {what} needs {digits} small hexadecimal digits, got {text!r}")
        if self.sha256_prefix is not None and not _HEX.fullmatch(self.sha256_prefix):
            raise ValueError(
                f"asset {self.name}: sha256_prefix needs small hexadecimal digits, got {self.sha256_prefix!r}"
            )
        if self.is_folder and (self.sha256_prefix or self.git_blob):
            raise ValueError(f"asset {self.name}: sha256_prefix and git_blob are of files, not of a folder")

    @property
    def has_stated_hash(self) -> bool:
        """Whether the publisher states enough of its content to tell it from another file."""
        return any((self.sha256, self.sha256_prefix, self.git_blob))


# Of CLIP's tokenizer, which other networks took over.
CLIP_VOCABULARY = Asset(
    name="bpe",
    filename="bpe_simple_vocab_16e6.txt.gz",
    url="https://github.com/openai/CLIP/raw/main/clip/bpe_simple_vocab_16e6.txt.gz",
    bytes=1356917,
    sha256="924691ac288e54409236115652ad4aa250f48203de50a9e4722a6ecd48d6804a",
    licence="MIT",
    citation="Radford et al., Learning Transferable Visual Models From Natural Language Supervision, ICML 2021",
    use="text",
)
