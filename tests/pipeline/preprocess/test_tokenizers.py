"""CLIP's and GPT-2's tokenizers against published token numbers and against byte-pair encoding written out slowly."""

from __future__ import annotations

import gzip
import itertools
import json
import unicodedata
from pathlib import Path

import numpy as np
import pytest
import regex
from hypothesis import HealthCheck, assume, example, given, settings
from hypothesis import strategies as st

from pipeline.preprocess.tokenizers import CONTEXT, GptTokeniser, Tokeniser, clean

VOCABULARY = "data/vocab/bpe_simple_vocab_16e6.txt.gz"


@pytest.fixture(scope="module")
def tokenise(shared: Path) -> Tokeniser:
    return Tokeniser(shared / VOCABULARY)


@pytest.fixture(scope="module")
def ranks(shared: Path) -> tuple[dict[tuple[str, str], int], dict[str, int]]:
    """The merges by rank, and the tokens by number."""
    with gzip.open(shared / VOCABULARY, "rt", encoding="utf-8") as file:
        lines = file.read().split("\n")
    pairs = [(line.split()[0], line.split()[1]) for line in lines[1 : 49408 - 512 - 2 + 1]]
    letters = list(_letters().values())
    tokens = [*letters, *(letter + "</w>" for letter in letters), *(a + b for a, b in pairs)]
    return {pair: rank for rank, pair in enumerate(pairs)}, {token: number for number, token in enumerate(tokens)}


def _letters() -> dict[int, str]:
    """Byte -> letter, in the vocabulary's order."""
    kept = [b for b in range(256) if 33 <= b <= 126 or 161 <= b <= 172 or 174 <= b <= 255]
    others = [b for b in range(256) if b not in kept]
    return {b: chr(b) for b in kept} | {b: chr(256 + n) for n, b in enumerate(others)}


def _slow(text: str, ranks: dict[tuple[str, str], int], numbers: dict[str, int]) -> list[int]:
    """Byte-pair encoding by its definition: join the best pair of a word until none is left."""
    letters = _letters()
    found = []
    words = r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"
    for word in regex.findall(words, text, regex.IGNORECASE):
        parts = [letters[byte] for byte in word.encode()]
        parts[-1] += "</w>"
        while True:
            pairs = [(ranks[pair], i) for i, pair in enumerate(itertools.pairwise(parts)) if pair in ranks]
            if not pairs:
                break
            best = min(pairs)[0]
            joined, i = [], 0
            while i < len(parts):
                if i + 1 < len(parts) and ranks.get((parts[i], parts[i + 1])) == best:
                    joined.append(parts[i] + parts[i + 1])
                    i += 2
                else:
                    joined.append(parts[i])
                    i += 1
            parts = joined
        found += [numbers[part] for part in parts]
    return found


@pytest.mark.parametrize(
    ("case", "too_long"), [("audioclip_text", "error"), ("imagebind_tiny_text", "cut"), ("imagebind_full_text", "cut")]
)
def test_tokens_equal_the_published(shared: Path, case: str, too_long: str) -> None:
    with np.load(shared / f"parity/encoders/{case}.npz") as file:
        texts, want = json.loads(str(file["meta"]))["texts"], file["tokens"]
    got = Tokeniser(shared / VOCABULARY, too_long=too_long)(texts)  # type: ignore[arg-type]  # parametrised text
    assert got.dtype == np.int64
    np.testing.assert_array_equal(got, want)


@settings(
    max_examples=300, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
# Letters that Unicode has named since are letters to one library and not yet to the other.
@given(text=st.text(st.characters(exclude_categories=("Cn", "Cs", "Co")), max_size=16))
@example(text="It's the singers' WE'LL 'RE they're 'll 12 345 -- ...!?")
@example(text="ÄÖÜ straße ſ'ſ naïve 日本語 🎬🎬 ½²Ⅷ٣ İstanbul")
@example(text="a_b-c/d \t\n e\u00a0f\u2003g")
def test_tokens_equal_the_slow_definition(
    text: str, tokenise: Tokeniser, ranks: tuple[dict[tuple[str, str], int], dict[str, int]]
) -> None:
    assume("<|" not in text)  # the marks are tokens of their own, see below
    assume(all(unicodedata.category(letter) != "Cn" for letter in clean(text)))  # ftfy may make one of two
    want = [49406, *_slow(clean(text), *ranks), 49407]
    got = tokenise([text])[0]
    assert got[: len(want)].tolist() == want
    assert not got[len(want) :].any()


def test_too_long_text_raises_or_is_cut(shared: Path, tokenise: Tokeniser) -> None:
    fits, over = " ".join(["dog"] * 75), " ".join(["dog"] * 75 + ["cat"])
    row = tokenise([fits])[0]
    assert row[0] == 49406
    assert row[-1] == 49407
    with pytest.raises(ValueError, match=r"'dog dog .*takes 75 tokens, got 76; shorten"):
        tokenise(["a dog", over])
    cut = Tokeniser(shared / VOCABULARY, too_long="cut")
    np.testing.assert_array_equal(cut([over])[0], row)


@pytest.mark.parametrize(
    ("text", "cleaned"),
    [
        ("  Two\n\twords  ", "two words"),
        ("rock &amp;amp; roll", "rock & roll"),
        ("‘Dog’s’ “bark” „laut‟", '\'dog\'s\' "bark" "laut"'),
        ("&ldquo;bark&rdquo;", '"bark"'),
        ("ﬁre ﬂy Ĳssel", "fire fly ijssel"),
        ("ＬＯＵＤ　ｎｏｉｓｅ", "loud noise"),
        ("cafe\u0301", "café"),
        ("\x1b[31mred\x1b[0m\x00\ufeff", "red"),
        ("a\u2028b\x85c", "a b…c"),
        ("", ""),
    ],
)
def test_clean_text(text: str, cleaned: str) -> None:
    assert clean(text) == cleaned


def test_marks_in_a_text_are_marks(tokenise: Tokeniser) -> None:
    row = tokenise(["a <|endoftext|> dog <|StartOfText|>"])[0]
    assert row[:7].tolist() == [49406, 320, 49407, 1929, 49406, 49407, 0]


def test_no_texts_give_no_rows(tokenise: Tokeniser) -> None:
    assert tokenise([]).shape == (0, CONTEXT)


def test_another_file_raises(tmp_path: Path, shared: Path) -> None:
    published = (shared / VOCABULARY).read_bytes()
    for name, content, told in (
        ("plain.txt", b"in th an", "damaged"),
        ("cut.gz", published[:-1000], "damaged"),
        ("short.gz", gzip.compress(b"#version\ni n\n", mtime=0), "needs 48894 merges, two words a line, got 1"),
        ("bytes.gz", gzip.compress(b"\xff\xfe", mtime=0), "damaged"),
    ):
        path = tmp_path / name
        path.write_bytes(content)
        with pytest.raises(ValueError, match=f"{name}: .*{told}"):
            Tokeniser(path)
    with pytest.raises(OSError, match="none"):
        Tokeniser(tmp_path / "none.gz")
    with pytest.raises(ValueError, match="'error' or 'cut'"):
        Tokeniser(shared / VOCABULARY, too_long="shorten")  # type: ignore[arg-type]  # that is the point


GPT = "data/vocab/one_peace"


@pytest.fixture(scope="module")
def gpt_files(shared: Path) -> dict[str, Path]:
    folder = shared / GPT
    return {
        "encoder": folder / "encoder.json",
        "merges": folder / "vocab.bpe",
        "dictionary": folder / "dict.txt",
    }


@pytest.fixture(scope="module")
def gpt(gpt_files: dict[str, Path]) -> GptTokeniser:
    return GptTokeniser(**gpt_files)


def _slow_gpt(text: str, files: dict[str, Path]) -> list[int]:
    """Byte-pair encoding by its definition, then fairseq's numbers: the line in its dictionary, from 4 on."""
    numbers = json.loads(files["encoder"].read_text(encoding="utf-8"))
    lines = files["merges"].read_text(encoding="utf-8").split("\n")[1:]
    order = {tuple(line.split(" ")): rank for rank, line in enumerate(lines) if line}
    words = [line.split(" ")[0] for line in files["dictionary"].read_text(encoding="utf-8").splitlines()]
    place = {word: row + 4 for row, word in enumerate(words)}
    letters, found = _letters(), []
    pattern = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
    for word in regex.findall(pattern, " " + text.lower()):
        parts = [letters[byte] for byte in word.encode()]
        while pairs := [(order[pair], i) for i, pair in enumerate(itertools.pairwise(parts)) if pair in order]:
            _, i = min(pairs)
            parts[i : i + 2] = [parts[i] + parts[i + 1]]
        found += [place.get(str(numbers[part]), 3) for part in parts]
    return [*found[:70], 2]


def test_gpt_tokens_equal_the_published(shared: Path, gpt: GptTokeniser) -> None:
    with np.load(shared / "parity/encoders/onepeace_2layer_text.npz") as file:
        texts, want = json.loads(str(file["meta"]))["texts"], file["tokens"]
    got = gpt(texts)
    assert got.dtype == np.int64
    np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize(
    "text",
    [
        "An audio visual event of people slapping.",
        "It's the singers' WE'LL 'RE they're 'll 12 345 -- ...!?",
        "ÄÖÜ straße ſ'ſ naïve 日本語 🎬🎬 ½²Ⅷ٣ İstanbul",
        "a_b-c/d \t\n e\u00a0f\u2003g   ",
        "an <|endoftext|> is text",
        "",
        " ".join(["dog barking"] * 60),
    ],
)
def test_gpt_tokens_equal_the_slow_definition(text: str, gpt: GptTokeniser, gpt_files: dict[str, Path]) -> None:
    want = _slow_gpt(text, gpt_files)
    assert gpt([text])[0].tolist() == want
    assert gpt([text, " ".join(["x"] * 69)])[0].tolist() == want + [1] * (70 - len(want))


def test_gpt_no_texts_give_no_rows(gpt: GptTokeniser) -> None:
    assert gpt([]).shape == (0, 0)


@pytest.mark.parametrize(
    ("which", "content", "told"),
    [
        ("encoder", b"{", "damaged, or not GPT-2's vocabulary"),
        ("encoder", b"[1, 2]", "needs an object of tokens to numbers"),
        ("encoder", b'{"a": "b"}', "needs an object of tokens to numbers"),
        ("encoder", b"\xff", "damaged, or not text"),
        ("merges", b"#version: 0.2\ni n\nzz\n", "got 1 pairs in 2 lines"),
        ("merges", b"#version: 0.2\nqq zz\n", "unknown token 'qqzz'"),
        ("merges", b"", "got 0 pairs in 0 lines"),
        ("dictionary", b"the 3\nof 2\n", "got 0 in 2 lines"),
        ("dictionary", b"13 3\n13 2\n", "got 1 in 2 lines"),
    ],
)
def test_gpt_another_file_raises(
    tmp_path: Path, gpt_files: dict[str, Path], which: str, content: bytes, told: str
) -> None:
    path = tmp_path / "other"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=f"other: .*{told}"):
        GptTokeniser(**(gpt_files | {which: path}))
    with pytest.raises(OSError, match="none"):
        GptTokeniser(**(gpt_files | {which: tmp_path / "none"}))
