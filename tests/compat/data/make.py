"""Makes what lies in this folder, with the `avel` of the version to be kept; see README.md.

    AVEL_SHARED=... python tests/compat/data/make.py /tmp/compat

Media are written and everything is made in the folder given, by the verbs alone; then it is packed into old.tar.xz, and
what the version says of it is recorded in expected.json. The class texts need CLIP's vocabulary from the shared folder;
their network, and a third recipe's, is a small seeded AudioCLIP.
"""

from __future__ import annotations

import json
import os
import runpy
import signal
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

import av
import h5py
import numpy as np
import safetensors

HERE = Path(__file__).resolve().parent
PROJECT = HERE.parents[2]
CLASSES = ("high beep", "low beep")
WIDTH_PX, HEIGHT_PX, VIDEO_FPS, RATE_HZ = 64, 48, 6, 16000
# AVE's: (start, end, class, split), a video each, sorted by class as the format wants; one training video is broken.
AVE = (
    *((start, end, 0, split) for start, end, split in ((1, 6, "train"), (3, 9, "train"), (0, 4, "train"))),
    *((start, end, 0, split) for start, end, split in ((2, 7, "val"), (4, 8, "test"))),
    *((start, end, 1, split) for start, end, split in ((2, 8, "train"), (0, 5, "train"), (5, 10, "train"))),
    *((start, end, 1, split) for start, end, split in ((1, 5, "val"), (3, 8, "test"))),
)
BROKEN = 2
NEW = (2, 6, 0, "new")
# UnAV-100's: (duration, events, split), a video each.
DENSE = (
    (8, ((1.0, 3.5, 0), (5.0, 7.0, 1)), "train"),
    (7, ((0.5, 4.0, 1),), "train"),
    (9, ((2.0, 4.0, 0), (5.5, 8.5, 0)), "train"),
    (6, ((1.5, 5.0, 1),), "train"),
    (8, ((0.5, 3.0, 1), (4.5, 7.5, 0)), "validation"),
    (8, ((1.0, 4.0, 0), (5.0, 7.5, 1)), "test"),
)
SLOW = {"grid.hop_s": "2", "grid.window_s": "2", "storage": "float16"}
HALVES = {"grid.hop_s": "1/2", "storage": "float16"}
LINEAR = ["--head", "linear", "--epochs", "20"]
AVE_CLIP = ["--head", "ave_clip", "--set", "width=8", "--set", "windows=10,2", "--epochs", "30", "--batch", "4"]
AVE_CLIP += ["--lr", "1e-2", "--patience", "0"]
LOCO = ["--head", "loco", "--epochs", "60", "--batch", "2", "--lr", "3e-3", "--ema", "0.9", "--warmup-epochs", "2"]
LOCO += [w for field in ("width=8", "levels=3", "num_heads=2", "window=4", "lcc_stride=2") for w in ("--set", field)]
LOCO += [w for field in ("unimodal_layers=1", "decoder_layers=0", "drop_path=0.1") for w in ("--set", field)]
HALF = ["--head", "ave_clip", "--set", "width=4", "--set", "windows=10,2", "--modality", "audio", "--patience", "0"]
HALF += ["--epochs", "24", "--batch", "4", "--lr", "3e-3", "--ema", "0.9", "--seed", "3"]
HALF_DENSE = [*LOCO, "--epochs", "12", "--patience", "0", "--crop-share", "0.5", "--seed", "3"]
HALF_AT = 8  # the most epochs that a killed training may have kept
KILLED = """
import os, signal, sys
from jobs.cli import main
replace, left = os.replace, [2]
def replace_and_die(source, target):
    replace(source, target)
    left[0] -= str(target).endswith("checkpoint.safetensors")
    if not left[0]:
        os.kill(os.getpid(), signal.SIGKILL)
os.replace = replace_and_die
main(sys.argv[1:])
"""


def write_video(path: Path, duration_s: int, events: tuple[tuple[float, float, int], ...], seed: int) -> None:
    """A grey picture and faint noise; during an event one half of it is bright and a tone of the class is heard."""
    noise = np.random.default_rng(seed)

    def on(seconds: float, kind: int) -> bool:
        return any(start <= seconds < end for start, end, k in events if k == kind)

    with av.open(str(path), "w") as container:
        video = container.add_stream("libx264", rate=VIDEO_FPS, options={"preset": "veryslow", "threads": "1"})
        video.width, video.height, video.pix_fmt = WIDTH_PX, HEIGHT_PX, "yuv420p"
        audio: Any = container.add_stream("aac", rate=RATE_HZ)
        audio.layout, audio.bit_rate = "mono", 12000
        for i in range(duration_s * VIDEO_FPS):
            picture = np.full((HEIGHT_PX, WIDTH_PX, 3), 60 + 8 * (seed % 5), dtype=np.uint8)
            for kind in range(len(CLASSES)):
                if on(i / VIDEO_FPS, kind):
                    picture[:, kind * WIDTH_PX // 2 :][:, : WIDTH_PX // 2, kind] = 220
            container.mux(video.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(video.encode(None))
        samples = 0.01 * noise.standard_normal(duration_s * RATE_HZ)
        times_s = np.arange(len(samples)) / RATE_HZ
        for kind, pitch_hz in enumerate((1500, 300)):
            heard = np.array([on(t, kind) for t in times_s])
            samples += np.where(heard, 0.4 * np.sin(2 * np.pi * pitch_hz * times_s), 0)
        for first in range(0, len(samples), 1024):
            part = samples[None, first : first + 1024].astype(np.float32)
            frame = av.AudioFrame.from_ndarray(part, format="fltp", layout="mono")
            frame.sample_rate, frame.pts = RATE_HZ, first
            container.mux(audio.encode(frame))
        container.mux(audio.encode(None))


def write_ave(root: Path) -> None:
    (root / "videos").mkdir(parents=True)
    lines = [f"{CLASSES[kind]}&v{i:02}&good&{start}&{end}\n" for i, (start, end, kind, _) in enumerate(AVE)]
    (root / "Annotations.txt").write_text("".join(lines), encoding="utf-8")
    (root / "categories.txt").write_text("".join(f"{name}\n" for name in CLASSES), encoding="utf-8")
    for split in ("train", "val", "test"):
        order = [i for i, row in enumerate(AVE) if row[3] == split]
        (root / f"{split}Set.txt").write_text("".join(lines[i] for i in order), encoding="utf-8")
        with h5py.File(root / f"{split}_order.h5", "w") as file:
            file["order"] = np.array(order, dtype=np.int64)
    for i, (start, end, kind, _) in enumerate(AVE):
        write_video(root / "videos" / f"v{i:02}.mp4", 10, ((start, end, kind),), seed=i)
    (root / "videos" / f"v{BROKEN:02}.mp4").write_bytes(b"no video at all\n" * 64)


def write_unav(root: Path) -> None:
    (root / "videos").mkdir(parents=True)
    database = {}
    for i, (duration_s, events, subset) in enumerate(DENSE):
        told = [{"segment": [start, end], "label": CLASSES[k], "label_id": k} for start, end, k in events]
        database[f"d{i:02}"] = {"duration": duration_s, "annotations": told, "subset": subset}
        write_video(root / "videos" / f"d{i:02}.mp4", duration_s, events, seed=50 + i)
    whole = {"version": "unav100", "database": database}
    (root / "unav100_annotations.json").write_text(json.dumps(whole, indent=1) + "\n", encoding="utf-8")


def changed(name: str, changes: dict[str, str]) -> list[str]:
    return [word for field, value in changes.items() for word in ("--set", f"{field}={value}")] + ["--as", name]


def avel(folder: Path, *words: str) -> None:
    print("$ avel", *words, flush=True)  # noqa: T201
    subprocess.run([sys.executable, "-m", "jobs.cli", *words], cwd=folder, env=_environment(), check=True)


def kill_half_trained(folder: Path, out: str, words: list[str]) -> None:
    """Trains in a process that kills itself when it has written its checkpoint a few times."""
    command = [sys.executable, "-c", KILLED, "train", *words, "--out", out]
    done = subprocess.run(command, cwd=folder, env=_environment(), check=False)
    assert done.returncode == -signal.SIGKILL
    assert epochs_kept(folder / f"{out}.partial" / "checkpoint.safetensors") <= HALF_AT


def epochs_kept(checkpoint: Path) -> int:
    with safetensors.safe_open(checkpoint, framework="pt") as file:
        return len(json.loads(file.metadata()["told"])["history"])


def pack(folder: Path, archive: Path) -> None:
    """All but the videos that stores were made of; nothing of this machine but its floating-point numbers."""

    def plain(entry: tarfile.TarInfo) -> tarfile.TarInfo | None:
        if "/videos" in entry.name or Path(entry.name).name in (".lock", "avel-writer.lock"):
            return None
        entry.uid = entry.gid = 0
        entry.uname = entry.gname = ""
        if ".tfevents." in entry.name:
            entry.name = "/".join([*entry.name.split("/")[:-1], "events.out.tfevents.0.localhost.0.0"])
        return entry

    with tarfile.open(archive, "w:xz") as packed:
        for name in ("ave", "unav", "store", "dense", "runs", "ended", "new.mp4"):
            packed.add(folder / name, name, filter=plain)


def _environment() -> dict[str, str]:
    return os.environ | {"PYTHONPATH": str(PROJECT), "OMP_NUM_THREADS": "1"}


def record(folder: Path) -> None:
    """Writes what this version says of what was packed."""
    folder.mkdir()
    test: dict[str, Any] = runpy.run_path(str(HERE.parent / "test_reads_old.py"))
    old = test["unpacked"](folder)
    found: dict[str, Any] = {"version": "0.1.0", "machine": test["machine"](), "fingerprints": test["fingerprints"]()}
    found["stores"] = {
        name: test["store_contents"](old / name, folder / "exported" / name) for name in ("store", "dense")
    }
    found["predicted"] = {name: test["predicted"](old, name) for name in test["RUNS"]}
    found["judged"] = {name: test["judged"](old, name, old / "runs" / name) for name in test["RUNS"]}
    found["orders"] = {"half": HALF, "half_dense": HALF_DENSE}
    (HERE / "expected.json").write_text(json.dumps(found, indent=1, sort_keys=True) + "\n", encoding="utf-8")


def main(folder: Path) -> None:
    folder.mkdir(parents=True)
    write_ave(folder / "ave")
    write_unav(folder / "unav")
    write_video(folder / "new.mp4", 10, (NEW[:3],), seed=99)
    small = runpy.run_path(str(PROJECT / "tests" / "pipeline" / "encoders" / "small_audioclip.py"))
    small["write_small"](folder / "audioclip.pt")
    ave = ["--dataset", "ave", "--root", "ave", "--store", "store"]
    unav = ["--dataset", "unav100", "--root", "unav", "--store", "dense"]
    how = ["--executor", "local", "--workers", "1", "--max-quarantined", "1", "--json"]
    avel(folder, "extract", *ave, "--recipe", "descriptors-1s", *how)
    avel(folder, "extract", *ave, "--recipe", "descriptors-1s", *changed("slow", SLOW), *how)
    weights = ["--weights", "audioclip=audioclip.pt"]
    avel(folder, "extract", *ave, "--recipe", "audioclip-1s", *changed("small", small["SMALL"]), *weights, *how)
    (folder / "beeps.txt").write_text("".join(f"{name}\n" for name in CLASSES), encoding="utf-8")
    weights += ["--weights", f"bpe={os.environ['AVEL_SHARED']}/data/vocab/bpe_simple_vocab_16e6.txt.gz"]
    texts = ["--vocabulary", "beeps.txt", "--prompt", "the sound of a {}"]
    avel(folder, "labels", "--store", "store", "--recipe", "small", *texts, *weights)
    avel(folder, "extract", *unav, "--recipe", "descriptors-1s", *changed("halves", HALVES), *how)
    one, two = [*ave, "--recipe", "descriptors-1s", "--json"], [*unav, "--recipe", "halves", "--json"]
    for name, words in (("linear", [*one, *LINEAR]), ("ave_clip", [*one, *AVE_CLIP]), ("loco", [*two, *LOCO])):
        avel(folder, "train", *words, "--out", f"runs/{name}")
    for name, words in (("half", [*one, *HALF]), ("half_dense", [*two, *HALF_DENSE])):
        kill_half_trained(folder, f"runs/{name}", words)
        avel(folder, "train", *words, "--out", f"ended/{name}")
    pack(folder, HERE / "old.tar.xz")
    record(folder / "unpacked")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
