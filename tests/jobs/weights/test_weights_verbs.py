"""`avel weights list|show|fetch|add`, through the command line, with an encoder planted in a folder of its own."""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import pipeline.encoders
import pipeline.recipes
from jobs.cli.main import main
from pipeline.encoder import declaration, encoder_names, encoder_spec
from tests.pipeline.publisher import Offer, Publisher, published

CONTENT = bytes(range(256)) * 9000
SHA256 = hashlib.sha256(CONTENT).hexdigest()

TOY = f'''
from catalog.grid import GridRule, exact_seconds
from catalog.recipe import AudioSampling, Recipe
from pipeline.encoder import EncoderSpec, encoder_spec
from pipeline.weights.asset import Asset

SPEC = EncoderSpec(
    name="toy", visual_shape=None, audio_shape=(8,), licence="MIT", citation="The toy paper", batch_segments=4,
    assets=(
        Asset(name="net", filename="toy.pt", url="https://example.org/toy.pt", licence="MIT", bytes={len(CONTENT)},
              sha256="{SHA256}"),
        Asset(name="big", filename="big.pt", url="https://example.org/big.pt", licence="CC BY-NC 4.0",
              non_commercial=True, citation="The big paper"),
        Asset(name="hand", filename="hand.pt", url=None, licence="ask the authors"),
        Asset(name="bpe", filename="bpe.txt.gz", url="https://example.org/bpe.txt.gz", licence="MIT", use="text"),
    ),
)
PRESETS = (
    Recipe(name="toy-1s", encoder="toy", grid=GridRule(window_s=exact_seconds(1), hop_s=exact_seconds(1)), video=None,
           audio=AudioSampling(rate_hz=16000)),
)
'''
PLAIN = """
from pipeline.encoder import EncoderSpec, encoder_spec

SPEC = EncoderSpec(
    name="plain", visual_shape=None, audio_shape=(8,), licence="MIT", citation="None", batch_segments=4
)
PRESETS = ()
"""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The weights folder; the encoders are `toy` and `plain` alone."""
    monkeypatch.setenv("AVEL_WEIGHTS", str(tmp_path / "weights"))
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    (tmp_path / "encoders").mkdir()
    (tmp_path / "encoders" / "toy.py").write_text(TOY)
    (tmp_path / "encoders" / "plain.py").write_text(PLAIN)
    monkeypatch.setattr(pipeline.encoders, "__path__", [str(tmp_path / "encoders")])
    _forget_encoders()
    yield tmp_path / "weights"
    for name in ("toy", "plain"):
        sys.modules.pop(f"pipeline.encoders.{name}", None)
    _forget_encoders()


def _forget_encoders() -> None:
    declaration.cache_clear()
    pipeline.recipes._presets.cache_clear()


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch) -> Iterator[Publisher]:
    """Mirrors every file of the toy."""
    with published() as publisher:
        monkeypatch.setenv("AVEL_WEIGHTS_MIRROR", publisher.url)
        for name in ("toy.pt", "big.pt", "hand.pt", "bpe.txt.gz"):
            publisher.offers[f"/{name}"] = Offer(CONTENT)
        yield publisher


def answer(capsys: pytest.CaptureFixture[str]) -> Any:
    return json.loads(capsys.readouterr().out)


def test_list_tells_every_asset_and_its_state(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder.mkdir()
    (folder / "toy.pt").write_bytes(CONTENT)
    (folder / "big.pt.part").write_bytes(b"123")
    assert main(["weights", "list"]) == 0
    lines = {line.split("│")[3].strip(): line for line in capsys.readouterr().out.splitlines() if line.count("│") > 4}
    assert set(lines) == {"toy.pt", "big.pt", "hand.pt", "bpe.txt.gz"}
    for name, parts in {
        "toy.pt": ("2.3 MB", "present"),
        "big.pt": ("not stated", "NON-COMMERCIAL", "partial"),
        "hand.pt": ("ask the authors", "missing"),
        "bpe.txt.gz": ("bpe (text)",),
    }.items():
        assert all(part in lines[name] for part in parts), lines[name]
    assert main(["weights", "list", "--check", "--json"]) == 0
    rows = {row["filename"]: row for row in answer(capsys)["assets"]}
    assert (rows["toy.pt"]["state"], rows["toy.pt"]["sha256_here"]) == ("verified", SHA256)
    assert (rows["big.pt"]["state"], rows["big.pt"]["bytes_here"]) == ("partial", 3)


def test_list_check_finds_another_file_and_fails(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder.mkdir()
    (folder / "toy.pt").write_bytes(CONTENT[::-1])
    assert main(["weights", "list"]) == 0
    assert "present" in capsys.readouterr().out
    assert main(["weights", "list", "--check", "--json"]) == 1
    told = answer(capsys)
    assert SHA256 in told["damaged"][0]
    assert told["assets"][0]["state"] == "differs"


def test_show_tells_what_is_published_and_what_to_type(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["weights", "show", "toy-1s"]) == 0  # a recipe stands for its encoder
    told = capsys.readouterr().out
    for part in (
        *(SHA256, f"{len(CONTENT)} bytes", "https://example.org/toy.pt", "The toy paper", "The big paper", str(folder)),
        *("CC BY-NC 4.0 (NON-COMMERCIAL)", "avel weights fetch toy --text --accept-licence", "fetch it by hand"),
        "avel weights add toy hand.pt --asset hand",
    ):
        assert part in told
    assert main(["weights", "show", "toy", "--json"]) == 0
    assert [row["asset"] for row in answer(capsys)["assets"]] == ["net", "big", "hand", "bpe"]
    assert main(["weights", "show", "plain"]) == 0
    assert "needs no weights" in capsys.readouterr().out


def test_fetch_gets_the_files_once(folder: Path, site: Publisher, capsys: pytest.CaptureFixture[str]) -> None:
    site.offers["/toy.pt"].drops.append(1_000_000)
    assert main(["weights", "fetch", "toy", "--asset", "net"]) == 0
    printed = capsys.readouterr()
    assert f"{folder / 'toy.pt'}: verified" in printed.out
    assert "fetch toy.pt: 2/2 MB" in printed.err
    assert site.sent == len(CONTENT)
    assert main(["weights", "fetch", "toy", "--asset", "net", "--json"]) == 0
    (row,) = answer(capsys)["assets"]
    assert (row["fetched"], row["state"], row["origin"]) == (False, "verified", f"{site.url}/toy.pt")
    assert site.sent == len(CONTENT)


def test_fetch_non_commercial_needs_a_yes(folder: Path, site: Publisher, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["weights", "fetch", "toy"]) == 2
    assert "give --accept-licence if you keep to it" in capsys.readouterr().err
    assert site.requests == []
    assert main(["weights", "fetch", "toy", "--accept-licence"]) == 0
    printed = capsys.readouterr()
    assert "big.pt may be used non-commercially only: CC BY-NC 4.0" in printed.err
    assert "big.pt: no hash is published to check it with" in printed.out
    assert {path.name for path in folder.glob("[!.]*")} == {"toy.pt", "big.pt", "hand.pt", "index.json"}
    assert main(["weights", "fetch", "toy", "--text"]) == 0, "what is here needs no second yes"
    assert (folder / "bpe.txt.gz").exists()


def test_fetch_by_hand_fails_with_the_way_after_the_others_came(
    folder: Path, site: Publisher, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert main(["weights", "fetch", "toy", "--asset", "net"]) == 0
    monkeypatch.delenv("AVEL_WEIGHTS_MIRROR")
    capsys.readouterr()
    assert main(["weights", "fetch", "toy", "--asset", "hand", "--asset", "net", "--json"]) == 1
    told = answer(capsys)
    assert "by hand" in told["error"]
    assert [row["state"] for row in told["assets"]] == ["missing", "verified"]


def test_fetch_failure_exits_1_with_the_reason(
    folder: Path, site: Publisher, capsys: pytest.CaptureFixture[str]
) -> None:
    site.offers["/toy.pt"] = Offer(CONTENT[::-1])
    assert main(["weights", "fetch", "toy", "--asset", "net"]) == 1
    assert "is not toy.pt as it was published: needs the SHA-256" in capsys.readouterr().err
    del site.offers["/toy.pt"]
    assert main(["weights", "fetch", "toy", "--asset", "net", "--json"]) == 1
    told = answer(capsys)
    assert told["kind"] == "DownloadError"
    assert "404" in told["error"]


def test_add_takes_the_published_file_alone(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, content in {"toy.pt": CONTENT, "mine.pt": CONTENT[::-1], "big.pt": b"big"}.items():
        (tmp_path / name).write_bytes(content)
    assert main(["weights", "add", "toy", str(tmp_path / "toy.pt")]) == 0
    assert f"{folder / 'toy.pt'}: verified" in capsys.readouterr().out
    assert main(["weights", "add", "toy", str(tmp_path / "big.pt"), "--link", "--json"]) == 0
    assert answer(capsys)["state"] == "present"
    assert (folder / "big.pt").is_symlink()
    (folder / "toy.pt").unlink()
    assert main(["weights", "add", "toy", str(tmp_path / "mine.pt"), "--asset", "net"]) == 1
    assert f"--weights net={tmp_path / 'mine.pt'}" in capsys.readouterr().err
    assert not (folder / "toy.pt").exists()


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["show", "none"], 2, "no encoder or recipe is called 'none'; the encoders are plain, toy"),
        (["fetch", "toy", "--asset", "none"], 2, "it has net, big, hand, bpe"),
        (["fetch", "plain"], 2, "encoder plain needs no weights"),
        (["add", "plain", "x"], 2, "encoder plain needs no weights"),
        (["add", "toy", "x.pt"], 2, "Say --asset with one of net (toy.pt), big"),
        (["add", "toy", "x.pt", "--asset", "net"], 1, "x.pt: no such file"),
    ],
)
def test_wrong_arguments_are_told(
    arguments: list[str], status: int, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["weights", *arguments]) == status
    assert message in capsys.readouterr().err


def test_real_encoders_are_listed_and_shown(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(pipeline.encoders, "__path__", [str(Path(pipeline.encoders.__file__ or "").parent)])
    _forget_encoders()
    assert main(["weights", "list", "--json"]) == 0
    listed = {row["encoder"] for row in answer(capsys)["assets"]}
    assert listed == {name for name in encoder_names() if encoder_spec(name).assets}
    for name in encoder_names():
        assert main(["weights", "show", name]) == 0
