"""The weights folder: what is found, checked, fetched and added, with real files, servers and processes."""

from __future__ import annotations

import hashlib
import json
import os
import random
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from pipeline.encoder import encoder_names, encoder_spec
from pipeline.weights import index as weights_index
from pipeline.weights.asset import Asset
from pipeline.weights.download import DownloadError
from pipeline.weights.folder import (
    MissingWeights,
    add,
    check,
    fetch,
    identity,
    resolve,
    sha256_of,
    size_text,
    state_of,
    weights_folder,
)
from tests.pipeline.publisher import Offer, Publisher, published

CONTENT = random.Random(1).randbytes(300_000)
SHA256 = hashlib.sha256(CONTENT).hexdigest()
NET = Asset(name="net", filename="net.pt", url="https://example.org/net.pt", licence="MIT")
VOCABULARY = Asset(name="bpe", filename="bpe.txt.gz", url="https://example.org/bpe", licence="MIT", use="text")
FOLDER = Asset(name="net", filename="net-large", url="https://example.org/net-large", licence="MIT", is_folder=True)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The weights folder, which does not exist yet."""
    monkeypatch.setenv("AVEL_WEIGHTS", str(tmp_path / "weights"))
    monkeypatch.delenv("AVEL_WEIGHTS_MIRROR", raising=False)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    return tmp_path / "weights"


@pytest.fixture
def site() -> Iterator[Publisher]:
    with published() as publisher:
        yield publisher


def put(path: Path, content: bytes = CONTENT) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def put_checkpoint_folder(path: Path) -> dict[str, bytes]:
    """A folder as transformers saves it; what counts in it."""
    files = {"config.json": b"{}", "model.safetensors": CONTENT, "text/tokenizer.json": b"[]"}
    for name, content in (
        files | {"README.md": b"read", ".cache/x.json": b"1", ".x.json": b"1", "model.onnx": b"2"}
    ).items():
        put(path / name, content)
    return files


# Where


def test_weights_folder_is_the_variable_then_the_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/somebody")
    monkeypatch.setenv("AVEL_WEIGHTS", "~/w")
    assert weights_folder() == Path("/home/somebody/w")
    monkeypatch.setenv("AVEL_WEIGHTS", "")
    monkeypatch.setenv("XDG_CACHE_HOME", "/scratch/cache")
    assert weights_folder() == Path("/scratch/cache/avel/weights")
    for ignored in ("relative", ""):
        monkeypatch.setenv("XDG_CACHE_HOME", ignored)
        assert weights_folder() == Path("/home/somebody/.cache/avel/weights")


@pytest.mark.parametrize("below", ["", "below/it"])
def test_weights_folder_that_is_a_file_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, below: str) -> None:
    (tmp_path / "file").write_text("mine")
    monkeypatch.setenv("AVEL_WEIGHTS", str(tmp_path / "file" / below))
    with pytest.raises(ValueError, match=r"the weights folder .*: .*/file is not a folder; set \$AVEL_WEIGHTS to one"):
        weights_folder()


def test_manifest_of_all_encoders_is_consistent() -> None:
    """A file name is one file, whichever encoder wants it; and nothing is fetched unencrypted."""
    seen: dict[str, tuple[object, ...]] = {}
    for name in encoder_names():
        for asset in encoder_spec(name).assets:
            content = (asset.bytes, asset.sha256, asset.sha256_prefix, asset.git_blob, asset.is_folder)
            assert seen.setdefault(asset.filename, content) == content, f"{name}: {asset.filename}"
            assert asset.url is None or asset.url.startswith("https://"), f"{name}: {asset.url}"
            assert asset.licence


@pytest.mark.parametrize(
    "change",
    [
        {"name": ""},
        {"name": "a=b"},
        {"filename": "../net.pt"},
        {"filename": ".net"},
        {"filename": ""},
        {"sha256": "ab"},
        {"sha256": SHA256.upper()},
        {"git_blob": SHA256},
        {"sha256_prefix": "0x12"},
        {"is_folder": True, "sha256_prefix": "12"},
    ],
)
def test_asset_that_cannot_be_is_refused(change: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"needs|are of files"):
        replace(NET, **change)  # type: ignore[arg-type]  # wrong on purpose


# What it is


def test_check_takes_the_published_file_by_each_statement(tmp_path: Path) -> None:
    path = put(tmp_path / "x.pt")
    git = subprocess.run(["git", "hash-object", str(path)], capture_output=True, text=True, check=True).stdout.strip()
    check(replace(NET, bytes=len(CONTENT), sha256=SHA256, sha256_prefix=SHA256[:8], git_blob=git), path)


def test_check_takes_a_real_published_file(shared: Path) -> None:
    """CLIP's vocabulary, with the size and hash of its two repositories."""
    asset = replace(
        VOCABULARY, bytes=1_356_917, sha256="924691ac288e54409236115652ad4aa250f48203de50a9e4722a6ecd48d6804a"
    )
    check(asset, shared / "data" / "vocab" / "bpe_simple_vocab_16e6.txt.gz")


@pytest.mark.parametrize(
    ("statement", "message"),
    [
        ({"bytes": 299_999}, "needs 299999 bytes, got 300000"),
        ({"sha256": "0" * 64}, f"needs the SHA-256 {'0' * 64}, got {SHA256}"),
        ({"sha256_prefix": "00000000"}, f"needs the SHA-256 that begins with 00000000, got {SHA256}"),
        ({"git_blob": "0" * 40}, f"needs the git blob {'0' * 40}, got "),
        ({"is_folder": True}, "needs a folder, got a file"),
    ],
)
@pytest.mark.parametrize("inside", [True, False])
def test_check_refuses_another_file_naming_both(
    folder: Path, tmp_path: Path, statement: dict[str, object], message: str, inside: bool
) -> None:
    path = put((folder if inside else tmp_path) / "net.pt")
    with pytest.raises(ValueError, match=message) as caught:
        check(replace(NET, **statement), path)  # type: ignore[arg-type]  # one field of several types
    assert str(path) in str(caught.value)
    assert "avel weights fetch" in str(caught.value)


def test_sha256_of_a_file_is_that_of_its_bytes(tmp_path: Path) -> None:
    assert sha256_of(put(tmp_path / "x")) == SHA256
    with pytest.raises(ValueError, match="no such file"):
        sha256_of(tmp_path / "none")


def test_sha256_of_a_folder_is_that_of_its_listing(tmp_path: Path) -> None:
    files = put_checkpoint_folder(tmp_path / "net")
    listing = {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}
    text = json.dumps(listing, sort_keys=True, separators=(",", ":"))
    assert sha256_of(tmp_path / "net") == hashlib.sha256(text.encode()).hexdigest()


def test_sha256_of_a_folder_refuses_what_it_does_not_hold(tmp_path: Path) -> None:
    put_checkpoint_folder(tmp_path / "net")
    (tmp_path / "net" / "same.json").symlink_to("config.json")
    sha256_of(tmp_path / "net")  # a link inside is a file of the folder
    for name, place in (("out.json", tmp_path / "else.json"), ("out", tmp_path / "else")):
        put(tmp_path / "else" / "model.bin")
        put(tmp_path / "else.json")
        (tmp_path / "net" / name).symlink_to(place)
        with pytest.raises(ValueError, match="link"):
            sha256_of(tmp_path / "net")
        (tmp_path / "net" / name).unlink()
    os.mkfifo(tmp_path / "net" / "pipe.json")
    with pytest.raises(ValueError, match="regular file"):
        sha256_of(tmp_path / "net")
    with pytest.raises(ValueError, match="holds no checkpoint"):
        sha256_of(put(tmp_path / "empty" / "README.md").parent)


def test_sha256_of_foreign_files_leaves_nothing_anywhere(folder: Path, tmp_path: Path) -> None:
    sha256_of(put(tmp_path / "mine" / "x.pt"))
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["x.pt"]
    assert not folder.exists()


def test_index_remembers_and_forgets_with_the_file(folder: Path) -> None:
    path = put(folder / "net.pt")
    assert sha256_of(path) == SHA256
    held = json.loads((folder / "index.json").read_text())
    # A planted answer shows that the second call does not read the file.
    held["net.pt"]["sha256"] = "0" * 64
    (folder / "index.json").write_text(json.dumps(held))
    assert sha256_of(path) == "0" * 64
    os.utime(path)
    assert sha256_of(path) == SHA256
    for damage in ("", "{", "[]", '{"net.pt": 1}', '{"net.pt": {"sha256": 1}}', '{"net.pt": {"sha256": "x"}}'):
        (folder / "index.json").write_text(damage)
        assert sha256_of(path) == SHA256
    path.unlink()
    sha256_of(put(folder / "other.pt"))
    assert list(json.loads((folder / "index.json").read_text())) == ["other.pt"]


def test_index_that_cannot_be_written_costs_only_time(folder: Path) -> None:
    path = put(folder / "net.pt")
    (folder / ".index.json.lock").mkdir()  # as little use for a lock as a read-only folder, also for root
    assert sha256_of(path) == SHA256
    assert not (folder / "index.json").exists()


def test_identity_is_of_what_makes_media_features(tmp_path: Path) -> None:
    one, two, text = put(tmp_path / "1"), put(tmp_path / "2", b"two"), put(tmp_path / "3", b"text")
    other = replace(NET, name="other")
    assert identity([], {}) is None
    assert identity([VOCABULARY], {"bpe": text}) is None
    assert identity([NET], {"net": one}) == SHA256
    assert identity([NET, VOCABULARY], {"net": one, "bpe": text}) == SHA256
    both = f'{{"net":"{SHA256}","other":"{hashlib.sha256(b"two").hexdigest()}"}}'
    assert identity([other, NET], {"net": one, "other": two}) == hashlib.sha256(both.encode()).hexdigest()


# Which files


def test_resolve_finds_published_files_in_the_folder_and_checks_them(folder: Path) -> None:
    path = put(folder / "net.pt")
    assert resolve([replace(NET, sha256=SHA256), VOCABULARY], [], recipe_name="r") == {"net": path}
    with pytest.raises(ValueError, match=r"is not net\.pt as it was published"):
        resolve([replace(NET, sha256="0" * 64)], [], recipe_name="r")


def test_resolve_missing_says_everything_needed_to_get_it(folder: Path) -> None:
    asset = replace(NET, bytes=537_302_068, non_commercial=True, licence="CC BY-NC-SA 4.0")
    with pytest.raises(MissingWeights) as caught:
        resolve([asset, VOCABULARY], [], recipe_name="r-1s", for_text=True, encoder="toy")
    told = str(caught.value)
    for part in (
        *("r-1s", "net.pt", "537 MB", "https://example.org/net.pt", "CC BY-NC-SA 4.0", "NON-COMMERCIAL", str(folder)),
        *(
            "bpe.txt.gz",
            "avel weights fetch toy --text --accept-licence",
            "avel weights add toy FILE",
            "--weights net=",
        ),
    ):
        assert part in told
    assert caught.value.assets == (asset, VOCABULARY)
    with pytest.raises(MissingWeights) as caught:
        resolve([replace(NET, url=None)], [], recipe_name="r-1s")
    assert "weights fetch" not in str(caught.value)


def test_resolve_given_file_is_used_unchecked_for_it_may_be_fine_tuned(folder: Path, tmp_path: Path) -> None:
    asset = replace(NET, sha256="0" * 64, bytes=1)
    mine = put(tmp_path / "mine.pt")
    for text in (str(mine), f"net={mine}"):
        assert resolve([asset, VOCABULARY], [text], recipe_name="r") == {"net": mine}
    assert resolve([asset], [str(put(tmp_path / "run" / "net.pt").parent)], recipe_name="r") == {
        "net": tmp_path / "run" / "net.pt"
    }


def test_resolve_of_several_takes_names_and_published_names(folder: Path, tmp_path: Path) -> None:
    rgb, flow = replace(NET, name="rgb", filename="rgb.pt"), replace(NET, name="flow", filename="flow.pt")
    one, two = put(tmp_path / "rgb.pt"), put(tmp_path / "x.pt")
    assert resolve([rgb, flow], [str(one), f"flow={two}"], recipe_name="r") == {"rgb": one, "flow": two}
    with pytest.raises(ValueError, match="needs ASSET=PATH, with one of rgb, flow"):
        resolve([rgb, flow], [str(two)], recipe_name="r")
    with pytest.raises(ValueError, match="two files are given for rgb"):
        resolve([rgb, flow], [str(one), f"rgb={two}"], recipe_name="r")
    # A folder gives what it has; the rest is looked for in the weights folder.
    put(folder / "flow.pt")
    assert resolve([rgb, flow], [str(tmp_path)], recipe_name="r") == {"rgb": one, "flow": folder / "flow.pt"}


def test_resolve_text_files_are_wanted_for_text_alone(folder: Path, tmp_path: Path) -> None:
    net, bpe = put(tmp_path / "net.pt"), put(tmp_path / "bpe.txt.gz")
    assert resolve([NET, VOCABULARY], [f"net={net}"], recipe_name="r") == {"net": net}
    for given in ([f"net={net}", f"bpe={bpe}"], [str(net), str(bpe)], [str(tmp_path)]):
        assert resolve([NET, VOCABULARY], given, recipe_name="r", for_text=True) == {"net": net, "bpe": bpe}


def test_resolve_paths_may_hold_equals_signs(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = put(tmp_path / "lr=1e-4" / "net=best.pt")
    assert resolve([NET], [str(path)], recipe_name="r") == {"net": path}
    assert resolve([NET], [f"net={path}"], recipe_name="r") == {"net": path}
    monkeypatch.chdir(path.parent)
    with pytest.raises(ValueError, match="needs a file, there is none"):
        resolve([NET], ["net=best.pt"], recipe_name="r")
    assert resolve([NET], ["./net=best.pt"], recipe_name="r") == {"net": path}


def test_resolve_of_a_checkpoint_folder(folder: Path, tmp_path: Path) -> None:
    put_checkpoint_folder(tmp_path / "mine")
    put_checkpoint_folder(tmp_path / "all" / "net-large")
    for given, place in (("mine", "mine"), ("all", "all/net-large"), ("all/net-large", "all/net-large")):
        assert resolve([FOLDER], [str(tmp_path / given)], recipe_name="r") == {"net": tmp_path / place}
    with pytest.raises(ValueError, match="needs ASSET=PATH"):
        resolve([FOLDER], [str(put(tmp_path / "file"))], recipe_name="r")
    with pytest.raises(ValueError, match="needs a folder, got something else"):
        resolve([FOLDER], [f"net={tmp_path / 'file'}"], recipe_name="r")


@pytest.mark.parametrize(
    ("text", "message"), [("none.pt", "no such file or folder"), ("net=none.pt", "there is none"), (".", "holds none")]
)
def test_resolve_wrong_path_is_named(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=message):
        resolve([NET], [text], recipe_name="r")


# Fetching


def test_fetch_checks_remembers_and_is_done_once(folder: Path, site: Publisher) -> None:
    site.offers["/net.pt"] = Offer(CONTENT)
    asset = replace(NET, url=f"{site.url}/net.pt", bytes=len(CONTENT), sha256=SHA256)
    assert state_of(asset, folder) == "missing"
    assert fetch(asset, folder) == folder / "net.pt"
    assert state_of(asset, folder) == "verified"
    entry = weights_index.current(folder / "net.pt", folder)
    assert entry is not None
    assert (entry.sha256, entry.origin, entry.size) == (SHA256, asset.url, len(CONTENT))
    fetch(asset, folder)
    assert len(site.requests) == 1


def test_fetch_another_file_than_published_keeps_nothing(folder: Path, site: Publisher) -> None:
    site.offers["/net.pt"] = Offer(CONTENT[::-1])
    asset = replace(NET, url=f"{site.url}/net.pt", bytes=len(CONTENT), sha256=SHA256)
    with pytest.raises(ValueError, match=r"what came is not net\.pt as it was published.* thrown away"):
        fetch(asset, folder)
    assert [path.name for path in folder.iterdir() if not path.name.startswith(".")] == []
    site.offers["/net.pt"] = Offer(CONTENT[1:])
    with pytest.raises(DownloadError, match="needed has 300000 bytes"):
        fetch(asset, folder)


def test_fetch_from_a_mirror_still_checks(folder: Path, site: Publisher, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AVEL_WEIGHTS_MIRROR", f"{site.url}/team/")
    site.offers["/team/net%20one.pt"] = Offer(CONTENT)
    asset = replace(NET, filename="net one.pt", url=None, sha256=SHA256)
    fetch(asset, folder)
    assert state_of(asset, folder) == "verified"
    with pytest.raises(ValueError, match="as it was published"):
        fetch(replace(asset, sha256="0" * 64), folder)
    monkeypatch.setenv("AVEL_WEIGHTS_MIRROR", "/mnt/weights")
    with pytest.raises(ValueError, match="only http and https"):
        fetch(NET, folder)


@pytest.mark.parametrize("asset", [replace(NET, url=None), FOLDER])
def test_fetch_what_is_got_by_hand_says_how(folder: Path, asset: Asset) -> None:
    with pytest.raises(MissingWeights, match="by hand, then `avel weights add"):
        fetch(asset, folder)


def test_fetched_file_that_changes_later_is_damage_until_it_is_added(folder: Path, site: Publisher) -> None:
    site.offers["/net.pt"] = Offer(CONTENT)
    asset = replace(NET, url=f"{site.url}/net.pt")  # its publisher states no hash
    path = fetch(asset, folder)
    assert state_of(asset, folder) == "present"
    put(path, CONTENT[::-1])
    for _ in range(2):
        with pytest.raises(ValueError, match="has changed since it came from http"):
            sha256_of(path)
    add(asset, path, folder)
    assert sha256_of(path) == hashlib.sha256(CONTENT[::-1]).hexdigest()


_CHILD = """
import sys
from pathlib import Path
from pipeline.weights.asset import Asset
from pipeline.weights.folder import fetch
def say(*words):
    print(*words, flush=True)
asset = Asset(name="net", filename="net.pt", url=sys.argv[1], licence="MIT", sha256=sys.argv[3])
fetch(asset, Path(sys.argv[2]), lambda done, total: say("at", done), on_wait=lambda: say("waits"))
say("done")
"""


def child(site: Publisher, folder: Path) -> subprocess.Popen[str]:
    arguments = [sys.executable, "-c", _CHILD, f"{site.url}/net.pt", str(folder), SHA256]
    return subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True)


def read_until(process: subprocess.Popen[str], line: str) -> None:
    assert process.stdout is not None
    for got in process.stdout:
        if got.strip() == line:
            return
    raise AssertionError(f"the process ended with {process.wait()} before it said {line!r}")


def test_fetch_killed_then_resumed_fetches_no_byte_twice(folder: Path, site: Publisher) -> None:
    offer = site.offers["/net.pt"] = Offer(CONTENT, holds_at=123_456)
    with child(site, folder) as process:
        read_until(process, "at 123456")
        process.send_signal(signal.SIGKILL)
    asset = replace(NET, url=f"{site.url}/net.pt", sha256=SHA256)
    assert state_of(asset, folder) == "partial"
    site.offers["/net.pt"] = Offer(CONTENT)
    offer.go.set()
    fetch(asset, folder)
    assert (folder / "net.pt").read_bytes() == CONTENT
    first, second = site.requests
    assert (first.range, second.range) == (None, "bytes=123456-")
    assert second.sent == len(CONTENT) - 123_456


def test_fetch_by_two_processes_at_once_downloads_once(folder: Path, site: Publisher) -> None:
    offer = site.offers["/net.pt"] = Offer(CONTENT, holds_at=100_000)
    with child(site, folder) as first:
        read_until(first, "at 100000")
        with child(site, folder) as second:
            read_until(second, "waits")
            read_until(second, "at 100000")  # it shows how far the first one is
            offer.go.set()
            read_until(first, "done")
            read_until(second, "done")
    assert (first.returncode, second.returncode) == (0, 0)
    assert len(site.requests) == 1


def test_fetch_goes_on_when_the_process_it_waits_for_is_killed(folder: Path, site: Publisher) -> None:
    offer = site.offers["/net.pt"] = Offer(CONTENT, holds_at=100_000)
    with child(site, folder) as first:
        read_until(first, "at 100000")
        with child(site, folder) as second:
            read_until(second, "waits")
            site.offers["/net.pt"] = Offer(CONTENT)
            first.kill()
            offer.go.set()
            read_until(second, "done")
    assert site.requests[-1].range == "bytes=100000-"


# Adding


@pytest.mark.parametrize("link", [False, True])
def test_add_checks_and_remembers(folder: Path, tmp_path: Path, link: bool) -> None:
    source = put(tmp_path / "download (1).pt")
    asset = replace(NET, sha256=SHA256, bytes=len(CONTENT))
    for _ in range(2):  # the second time it is there
        assert add(asset, source, folder, link=link) == folder / "net.pt"
    assert (folder / "net.pt").read_bytes() == CONTENT
    assert (folder / "net.pt").is_symlink() == link
    assert state_of(asset, folder) == "verified"
    assert {path.name for path in folder.iterdir() if not path.name.startswith(".")} == {"net.pt", "index.json"}


@pytest.mark.parametrize("link", [False, True])
@pytest.mark.parametrize("statement", [{"bytes": 5}, {"sha256": "0" * 64}])
def test_add_other_than_published_is_refused_with_the_way_out(
    folder: Path, tmp_path: Path, link: bool, statement: dict[str, object]
) -> None:
    source = put(tmp_path / "mine.pt")
    asset = replace(NET, **statement)  # type: ignore[arg-type]  # one field of several types
    with pytest.raises(ValueError, match=r"is not net\.pt as it was published") as caught:
        add(asset, source, folder, link=link)
    assert f"--weights net={source}" in str(caught.value)
    assert [path.name for path in folder.iterdir() if not path.name.startswith(".")] == []


def test_add_never_replaces_another_file(folder: Path, tmp_path: Path) -> None:
    put(folder / "net.pt")
    with pytest.raises(ValueError, match="another file of that name is there already"):
        add(NET, put(tmp_path / "x.pt", CONTENT[::-1]), folder)
    assert (folder / "net.pt").read_bytes() == CONTENT
    with pytest.raises(ValueError, match="no such file"):
        add(NET, tmp_path / "none", folder)


def test_add_of_what_lies_there_already_is_checked_too(folder: Path) -> None:
    path = put(folder / "net.pt")
    with pytest.raises(ValueError, match=r"is not net\.pt as it was published"):
        add(replace(NET, sha256="0" * 64), path, folder)
    assert add(replace(NET, sha256=SHA256), path, folder) == path
    assert state_of(replace(NET, sha256=SHA256), folder) == "verified"


def test_add_checkpoint_folder_of_links_copies_what_they_point_to(folder: Path, tmp_path: Path) -> None:
    """As the caches of model hubs lay them out: a snapshot of links to blobs."""
    files = put_checkpoint_folder(tmp_path / "plain")
    for i, (name, content) in enumerate(files.items()):
        blob = put(tmp_path / "blobs" / str(i), content)
        (tmp_path / "snapshot" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "snapshot" / name).symlink_to(blob)
    whole = replace(FOLDER, sha256=sha256_of(tmp_path / "plain"), bytes=sum(map(len, files.values())))
    assert state_of(whole, folder) == "missing"
    for _ in range(2):  # the second time it is there
        path = add(whole, tmp_path / "snapshot", folder)
    assert {p.relative_to(path).as_posix(): p.read_bytes() for p in path.rglob("*") if p.is_file()} == files
    assert not any(p.is_symlink() for p in path.rglob("*"))
    assert state_of(whole, folder) == "verified"
    assert resolve([whole], [], recipe_name="r") == {"net": path}
    assert identity([whole], {"net": path}) == whole.sha256
    put(path / "config.json", b"{ }")
    assert state_of(replace(whole, bytes=None), folder) == "present", "the index must be asked again"
    with pytest.raises(ValueError, match="has changed since it came from"):
        resolve([replace(whole, bytes=None)], [], recipe_name="r")


def test_state_without_reading_is_present_until_checked(folder: Path) -> None:
    asset = replace(NET, sha256=SHA256)
    path = put(folder / "net.pt")
    assert state_of(asset, folder) == "present"
    check(asset, path)
    assert state_of(asset, folder) == "verified"
    assert state_of(replace(asset, sha256="0" * 64), folder) == "differs"
    assert state_of(replace(asset, bytes=1), folder) == "differs"


@pytest.mark.parametrize(
    ("num_bytes", "text"),
    [(None, "not stated"), (12, "12 bytes"), (1_356_917, "1.4 MB"), (537_302_068, "537 MB"), (4_803_584_173, "4.8 GB")],
)
def test_size_text_reads_as_a_person_says_it(num_bytes: int | None, text: str) -> None:
    assert size_text(num_bytes) == text
