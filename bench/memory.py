"""Peak memory of a 3-hour video against a 3-minute one: of the extracting process and of its decoding child."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from bench.measurement import Measurement
from bench.media import repeat_clip, write_clip

ABOUT = "peak memory of extracting a 3-hour 64x48 video against a 3-minute one"

# VmHWM, the peak since exec: ru_maxrss would also count what the process that forked this one held.
_EXTRACT = """
import json, sys, threading
from pathlib import Path
import psutil
from catalog.video import Video
from pipeline.recipes import find_recipe
from pipeline.extract import ExtractOptions, extract

def peak_kib(pid):
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next((int(line.split()[1]) for line in lines if line.startswith("VmHWM")), 0)

child, ended = 0, threading.Event()

def watch():
    global child
    while not ended.wait(0.2):
        for process in psutil.Process().children():
            try:
                if "pipeline.sandbox.child" in process.cmdline():
                    child = max(child, peak_kib(process.pid))
            except (psutil.NoSuchProcess, OSError):
                pass

watcher = threading.Thread(target=watch)
watcher.start()
videos, recipes = [Video(id="v", uri=sys.argv[1])], [find_recipe("descriptors-1s")]
done = extract(videos, recipes, sys.argv[2], ExtractOptions(workers=1))
ended.set()
watcher.join()
peak = [peak_kib("self"), child]
print(json.dumps({"peak_kib": peak, "rows": done.segments, "statuses": dict(done.statuses), "wall_s": done.wall_s}))
"""


def measure(folder: Path) -> list[Measurement]:
    short, long = folder / "3-minutes.mp4", folder / "3-hours.mp4"
    write_clip(short, seconds=180, width_px=64, height_px=48, fps=10)
    repeat_clip(short, long, 60)
    short_told, long_told = _extracted(short, folder / "short"), _extracted(long, folder / "long")
    figures = []
    for who, i in (("extracting process", 0), ("decoding child", 1)):
        peaks = [told["peak_kib"][i] / 1024 for told in (long_told, short_told)]
        figures.append(
            Measurement(
                what=f"peak memory of the {who}, 3 hours / 3 minutes",
                value=peaks[0] / peaks[1],
                unit="x",
                at_most=1.05,
                detail=f"{peaks[0]:.0f} MiB, {peaks[1]:.0f} MiB; 3 hours in {long_told['wall_s']:.0f} s",
            )
        )
    return figures


def _extracted(video: Path, store: Path) -> dict[str, Any]:
    command = [sys.executable, "-c", _EXTRACT, str(video), str(store)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    told: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    assert told["statuses"] == {"extracted": 1}, told
    return told
