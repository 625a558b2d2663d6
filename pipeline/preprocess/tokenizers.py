"""Byte-pair tokenizers; the merging is done by the `tokenizers` library.

`Tokeniser` is CLIP's, which AudioCLIP and ImageBind use too: texts to rows of 77 token ids. The vocabulary is the
published file `bpe_simple_vocab_16e6.txt.gz`; broken Unicode is mended by ftfy, as published.

`GptTokeniser` is GPT-2's as ONE-PEACE uses it: fairseq numbers GPT-2's tokens anew, by how often they came.
"""

from __future__ import annotations

import gzip
import html
import json
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
# fairseq's numbers of what is no word: 0 begins a text, 1 pads, 2 ends, 3 is unknown; a dictionary's words follow.
GPT_PADDING, GPT_END, GPT_UNKNOWN, _GPT_FIRST = 1, 2, 3, 4
GPT_LENGTH = 70  # tokens of a text that ONE-PEACE reads, its end not counted
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


class GptTokeniser:
    """Texts to ONE-PEACE's token ids.

    Args:
        encoder: GPT-2's `encoder.json`, token to number.
        merges: GPT-2's `vocab.bpe`.
        dictionary: fairseq's `dict.txt`: a line each for GPT-2's numbers, with their counts.

    Raises:
        ValueError: a file is not what it should be.
        OSError: it cannot be read.
    """

    def __init__(self, encoder: Path, merges: Path, dictionary: Path) -> None:
        self._number = _fairseq_numbers(dictionary)
        self._tokenizer = _gpt_tokenizer(encoder, merges)

    def __call__(self, texts: Sequence[str]) -> NDArray[np.int64]:
        """(K, L) token ids, L that of the longest text: the text's, at most 70, the end, padding."""
        found = []
        for text in texts:
            # Small letters and the space in front as published: a word's token holds the space before it.
            ids = self._tokenizer.encode(f" {text.lower()}", add_special_tokens=False).ids
            found.append([*(self._number.get(number, GPT_UNKNOWN) for number in ids[:GPT_LENGTH]), GPT_END])
        rows = np.full((len(found), max(map(len, found), default=0)), GPT_PADDING, np.int64)
        for row, ids in zip(rows, found, strict=True):
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


def _fairseq_numbers(path: Path) -> dict[int, int]:
    """GPT-2's number of a token to fairseq's; lines that name no number keep their place alone."""
    words = [line.split(" ")[0] for line in _text(path).splitlines()]
    numbers = {int(word): row for row, word in enumerate(words, start=_GPT_FIRST) if word.isascii() and word.isdigit()}
    if not numbers or len(set(words)) != len(words):
        raise ValueError(
            f"{path}: not fairseq's dictionary of GPT-2's tokens: needs distinct numbers, one with its count a line, "
            f"got {len(numbers)} in {len(words)} lines; fetch it again"
        )
    return numbers


def _gpt_tokenizer(encoder: Path, merges: Path) -> Any:
    from tokenizers import Tokenizer, models, pre_tokenizers

    try:
        vocabulary = json.loads(_text(encoder))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{encoder}: damaged, or not GPT-2's vocabulary ({error}); fetch it again") from error
    if not isinstance(vocabulary, dict) or not all(type(number) is int for number in vocabulary.values()):
        raise ValueError(f"{encoder}: not GPT-2's vocabulary: needs an object of tokens to numbers; fetch it again")
    lines = [line.split(" ") for line in _text(merges).split("\n")[1:] if line]
    pairs = [(line[0], line[1]) for line in lines if len(line) == 2]
    unknown = [token for pair in pairs for token in (*pair, "".join(pair)) if token not in vocabulary]
    if not pairs or len(pairs) != len(lines) or unknown:
        raise ValueError(
            f"{merges}: not GPT-2's merges: needs two tokens of {encoder.name} a line, got {len(pairs)} pairs in "
            f"{len(lines)} lines{f', with the unknown token {unknown[0][:40]!r}' if unknown else ''}; fetch it again"
        )
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=pairs))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    return tokenizer


def _text(path: Path) -> str:
    with path.open("rb") as file:
        data = file.read(_MAX_BYTES + 1)
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: damaged, or not text ({error}); fetch it again") from error
    if len(data) > _MAX_BYTES:
        raise ValueError(f"{path}: needs a vocabulary of at most {_MAX_BYTES} bytes, the file is larger")
    return text


def _byte_letters() -> list[str]:
    """A printable letter for each byte, in the order of the published vocabulary: printable bytes first."""
    printable = [*range(ord("!"), ord("~") + 1), *range(0xA1, 0xAC + 1), *range(0xAE, 0xFF + 1)]
    others = [byte for byte in range(256) if byte not in printable]
    return [chr(byte) for byte in printable] + [chr(256 + number) for number in range(len(others))]
