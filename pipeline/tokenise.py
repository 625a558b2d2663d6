"""CLIP's byte-pair tokenizer, which AudioCLIP and ImageBind use too: texts to rows of 77 token ids.

The vocabulary is the published file `bpe_simple_vocab_16e6.txt.gz`; the merging is done by the `tokenizers` library,
the cleaning of broken Unicode by ftfy, as published.
"""

from __future__ import annotations

import gzip
import html
import re
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

CONTEXT = 77
START, END = 49406, 49407
# Of the file's 262,144 merges CLIP uses the first; with 2 x 256 bytes and the two marks they make 49,408 tokens.
_NUM_MERGES = 49152 - 256 - 2
_MAX_BYTES = 16 * 2**20
_MARKS = ["<|startoftext|>", "<|endoftext|>"]
_WORDS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|\p{L}+|\p{N}|[^\s\p{L}\p{N}]+"


class Tokeniser:
    """Texts to token ids.

    Args:
        vocabulary: the published file, gzipped or not.
        too_long: a text of more than 75 tokens is an "error" (AudioCLIP), or is "cut" to them (ImageBind).

    Raises:
        ValueError: the file is not the vocabulary.
        OSError: it cannot be read.
    """

    def __init__(self, vocabulary: Path, *, too_long: Literal["error", "cut"] = "error") -> None:
        if too_long not in ("error", "cut"):
            raise ValueError(f"too_long must be 'error' or 'cut', got {too_long!r}")
        self._too_long = too_long
        self._tokenizer = _tokenizer(_merges(vocabulary))

    def __call__(self, texts: Sequence[str]) -> NDArray[np.int64]:
        """(K, 77) token ids: start, the text's, end, zeros.

        Raises:
            ValueError: a text is too long, and is not to be cut.
        """
        rows = np.zeros((len(texts), CONTEXT), np.int64)
        for row, text in zip(rows, texts, strict=True):
            ids = [START, *self._tokenizer.encode(clean(text), add_special_tokens=False).ids, END]
            if len(ids) > CONTEXT:
                if self._too_long == "error":
                    raise ValueError(
                        f"{text[:60]!r}: the encoder takes {CONTEXT - 2} tokens, got {len(ids) - 2}; shorten the text"
                    )
                ids = [*ids[: CONTEXT - 1], END]
            row[: len(ids)] = ids
        return rows


def clean(text: str) -> str:
    """Broken Unicode mended, HTML's entities resolved, white space single, letters small: as published."""
    import ftfy

    text = html.unescape(html.unescape(ftfy.fix_text(text))).strip()
    return re.sub(r"\s+", " ", text).strip().lower()


def _merges(path: Path) -> list[tuple[str, str]]:
    try:
        with gzip.open(path) as file:
            data = file.read(_MAX_BYTES + 1)
        lines = data.decode("utf-8").split("\n")[1 : _NUM_MERGES + 1]
    except (gzip.BadGzipFile, EOFError, zlib.error, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: damaged, or not CLIP's vocabulary ({error}); fetch it again") from error
    merges = [(words[0], words[1]) for words in (line.split() for line in lines) if len(words) == 2]
    if len(data) > _MAX_BYTES or len(merges) != _NUM_MERGES:
        raise ValueError(
            f"{path}: not CLIP's vocabulary: needs {_NUM_MERGES} merges, two words a line, got {len(merges)}; "
            "see `avel weights show audioclip`"
        )
    return merges


def _tokenizer(merges: list[tuple[str, str]]) -> Any:
    from tokenizers import AddedToken, Regex, Tokenizer, models, pre_tokenizers

    letters = _byte_letters()
    tokens = [*letters, *(letter + "</w>" for letter in letters), *(left + right for left, right in merges)]
    tokens += _MARKS
    vocabulary = {token: number for number, token in enumerate(tokens)}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=merges, end_of_word_suffix="</w>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_WORDS), behavior="removed", invert=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.add_special_tokens([AddedToken(mark, normalized=False) for mark in _MARKS])
    return tokenizer


def _byte_letters() -> list[str]:
    """A printable letter for each byte, in the order of the published vocabulary: printable bytes first."""
    printable = [*range(ord("!"), ord("~") + 1), *range(0xA1, 0xAC + 1), *range(0xAE, 0xFF + 1)]
    others = [byte for byte in range(256) if byte not in printable]
    return [chr(byte) for byte in printable] + [chr(256 + number) for number in range(len(others))]
