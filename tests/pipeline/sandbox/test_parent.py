"""The killable child: deaths, hangs and limits become reasons; it outlives nothing and nobody waits for it in vain."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import psutil
import pytest
from numpy.typing import NDArray

from catalog.errors import MediaError
from catalog.grid import GridRule
from catalog.recipe import AudioSampling, Recipe, VideoSampling
from catalog.video import Video
from pipeline.clips import Clips
from pipeline.decode.probe import probe
from pipeline.decode.windows import decode
from pipeline.sandbox.parent import Decoded, DecoderKilled, Limits, Sandbox
from tests.pipeline.sandbox import scripted_child

PROJECT = Path(__file__).resolve().parents[3]
# Far above what a process takes to end on any machine; a hang is a failure.
HANG_S = 900
RECIPE = Recipe(
    name="r",
    encoder="none",
    grid=GridRule(window_s=Fraction(1), hop_s=Fraction(1)),
    video=VideoSampling(frames_per_segment=2, height_px=48, width_px=64),
    audio=AudioSampling(rate_hz=44100),  # the media's own: no resampler to import
)
# Small windows, so that a child is in the middle of a medium when its first clips are here: the pipe holds 1 MB.
SMALL = Limits(window_bytes=1 << 17)


@pytest.fixture
def good(shared: Path) -> Path:
    return shared / "data" / "malformed" / "good_10s.mp4"


@pytest.fixture
def long(shared: Path) -> Path:
    return shared / "data" / "media" / "video" / "women_long_jump.mp4"


def _big(size: int = 224) -> Recipe:
    video = VideoSampling(frames_per_segment=12, height_px=size, width_px=size)
    return Recipe(name="big", encoder="none", grid=RECIPE.grid, video=video, audio=None)


def _all(sandbox: Sandbox, path: Path, *recipes: Recipe) -> tuple[list[tuple[str, Clips]], Decoded]:
    *clips, last = sandbox.decode(Video(id="v", uri="x"), path, recipes or (RECIPE,))
    assert isinstance(last, Decoded)
    return [item for item in clips if isinstance(item, tuple)], last


def _reason(sandbox: Sandbox, path: Path) -> str:
    with pytest.raises(MediaError) as caught:
        _all(sandbox, path)
    return caught.value.reason


def test_sandbox_gives_what_decoding_here_gives(good: Path) -> None:
    here = list(decode(str(good), probe(str(good)), [RECIPE], video_id="v", window_bytes=SMALL.window_bytes))
    with Sandbox(SMALL) as sandbox:
        assert sandbox.child_pid is None
        got, decoded = _all(sandbox, good)
    assert len(got) == len(here) - 1 > 3
    for (name, clips), want in zip(got, here[:-1], strict=True):
        assert isinstance(want, tuple)
        assert name == want[0]
        for field in ("frames_FHWC", "frame_index_SP", "samples_N", "sample_valid_N"):
            np.testing.assert_array_equal(getattr(clips, field), getattr(want[1], field))
        assert (clips.video_id, clips.first, clips.samples_start, clips.rate_hz, clips.grid) == (
            "v",
            want[1].first,
            want[1].samples_start,
            44100,
            want[1].grid,
        )
    assert (decoded.outcome.status, decoded.outcome.reason, decoded.num_bytes) == ("extracted", "", 80843)
    assert decoded.duration_s == 10
    assert decoded.media["video"]["path"] == "decord, skipping"
    json.dumps(decoded.media, allow_nan=False)


def test_sandbox_child_is_kept_from_medium_to_medium_and_replaced_after_many(good: Path) -> None:
    with Sandbox(Limits(media_per_child=3)) as sandbox:
        pids = []
        for _ in range(5):
            sandbox.probe(good)
            pids.append(sandbox.child_pid)
    assert pids[0] == pids[1] == pids[2] != pids[3] == pids[4]
    assert not any(psutil.pid_exists(pid) for pid in pids if pid)


def test_sandbox_wrong_media_keep_the_child(shared: Path, tmp_path: Path) -> None:
    folder = shared / "data" / "malformed"
    with Sandbox() as sandbox:
        assert _reason(sandbox, folder / "truncated_mdat.mp4") == "truncated_media"
        pid = sandbox.child_pid
        assert _reason(sandbox, tmp_path / "none.mp4") == "missing_file"
        assert _reason(sandbox, tmp_path) == "not_a_file"
        assert _reason(sandbox, folder / "overreported_frames_tail.mp4") == "truncated_media"
        assert sandbox.child_pid == pid is not None


def test_sandbox_decoder_that_aborts_is_a_crash_and_the_next_call_works(shared: Path, good: Path) -> None:
    with Sandbox() as sandbox:
        with pytest.raises(MediaError, match=r"SIGABRT.*bad_alloc") as caught:
            _all(sandbox, shared / "data" / "malformed" / "decord_sigabrt.mp4")
        assert caught.value.reason == "decoder_crash"
        assert not isinstance(caught.value, DecoderKilled)
        assert sandbox.child_pid is None
        _, decoded = _all(sandbox, good)
        assert decoded.outcome.status == "extracted"


def test_sandbox_killed_from_outside_in_mid_medium_says_so(long: Path) -> None:
    with Sandbox(SMALL) as sandbox:
        items = sandbox.decode(Video(id="v", uri="x"), long, [_big()])
        next(items)
        assert sandbox.child_pid is not None
        os.kill(sandbox.child_pid, signal.SIGKILL)
        with pytest.raises(DecoderKilled, match="killed"):
            list(items)
        assert _all(sandbox, long)[1].outcome.status == "extracted"


def test_sandbox_segfault_in_mid_medium_is_a_crash(long: Path) -> None:
    with Sandbox(SMALL) as sandbox:
        items = sandbox.decode(Video(id="v", uri="x"), long, [_big()])
        next(items)
        assert sandbox.child_pid is not None
        os.kill(sandbox.child_pid, signal.SIGSEGV)
        with pytest.raises(MediaError, match="SIGSEGV") as caught:
            list(items)
    assert caught.value.reason == "decoder_crash"


@dataclass
class Clock:
    """Seconds that pass only as a test says: `step_s` at each look."""

    step_s: float = 0.0
    now_s: float = 0.0

    def __call__(self) -> float:
        self.now_s += self.step_s
        return self.now_s


ALIVE: dict[str, object] = {"kind": "alive"}
DONE: dict[str, object] = {"kind": "done", "media": {}}
# Real seconds that a sandbox with a `Clock` waits for its child at most; reached by no child that answers.
LONG_S = 1e6


def scripted(folder: Path, *messages: dict[str, object]) -> Path:
    """What a scripted child opens: its answers."""
    path = folder / "script.json"
    path.write_text(json.dumps(messages))
    return path


def test_sandbox_hung_child_hits_the_idle_limit_and_is_gone(long: Path) -> None:
    clock = Clock()
    with Sandbox(Limits(window_bytes=1 << 17, idle_s=70, total_s_base=LONG_S), clock=clock) as sandbox:
        items = sandbox.decode(Video(id="v", uri="x"), long, [_big()])
        next(items)
        pid = sandbox.child_pid
        assert pid is not None
        os.kill(pid, signal.SIGSTOP)
        clock.step_s = 100
        with pytest.raises(MediaError, match=r"no sign of life for 70 s") as caught:
            list(items)
        assert caught.value.reason == "decoder_timeout"
        assert not psutil.pid_exists(pid)


def test_sandbox_heartbeats_of_a_decoder_that_never_ends_do_not_outrun_the_total_limit(tmp_path: Path) -> None:
    clock = Clock(step_s=1000)
    limits = Limits(idle_s=LONG_S, total_s_base=300_000, start_s=LONG_S)
    with Sandbox(limits, child_module=scripted_child.MODULE, clock=clock) as sandbox:
        with pytest.raises(MediaError, match="not done in 300000 s") as caught:
            sandbox.probe(scripted(tmp_path, *[ALIVE] * 300, DONE))
        assert caught.value.reason == "decoder_timeout"
        assert sandbox.child_pid is None


def test_sandbox_total_limit_counts_all_waiting_of_one_medium_and_of_no_other(tmp_path: Path) -> None:
    clock = Clock(step_s=1000)
    limits = Limits(idle_s=LONG_S, total_s_base=1e9, start_s=LONG_S)
    with Sandbox(limits, child_module=scripted_child.MODULE, clock=clock) as sandbox:
        sandbox.probe(scripted(tmp_path, DONE))
        before_s = clock()
        sandbox.probe(scripted(tmp_path, *[ALIVE] * 20, DONE))
        used_s = clock() - before_s
    limits = Limits(idle_s=LONG_S, total_s_base=1.5 * used_s, start_s=LONG_S)
    with Sandbox(limits, child_module=scripted_child.MODULE, clock=clock) as sandbox:
        for _ in range(3):
            sandbox.probe(scripted(tmp_path, *[ALIVE] * 20, DONE))
        with pytest.raises(MediaError, match="not done in"):
            sandbox.probe(scripted(tmp_path, *[ALIVE] * 60, DONE))


def test_sandbox_long_medium_may_take_longer(tmp_path: Path) -> None:
    probed: dict[str, object] = {"kind": "probed", "duration_s": "21/2"}
    clock = Clock(step_s=1000)
    limits = Limits(idle_s=LONG_S, total_s_base=100_000, total_s_per_media_s=20_000, start_s=LONG_S)
    with Sandbox(limits, child_module=scripted_child.MODULE, clock=clock) as sandbox:
        with pytest.raises(MediaError, match="not done in 100000 s"):
            sandbox.probe(scripted(tmp_path, *[ALIVE] * 30, DONE))
        sandbox.probe(scripted(tmp_path, probed, *[ALIVE] * 30, DONE))
        with pytest.raises(MediaError, match="not done in 310000 s"):
            sandbox.probe(scripted(tmp_path, probed, *[ALIVE] * 300, DONE))


def test_sandbox_child_that_never_is_ready_blames_no_medium(
    good: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(scripted_child.SILENT, "1")
    with (
        Sandbox(Limits(start_s=0.01), child_module=scripted_child.MODULE) as sandbox,
        pytest.raises(RuntimeError, match=r"cannot start with .*: it was not ready in 0 s"),
    ):
        sandbox.probe(good)


def test_sandbox_slow_caller_costs_its_child_no_time(good: Path) -> None:
    clock = Clock()
    with Sandbox(Limits(window_bytes=1 << 16), clock=clock) as sandbox:
        for _ in sandbox.decode(Video(id="v", uri="x"), good, [RECIPE]):
            clock.now_s += 1000  # as long a pause as it takes to be over every limit


def test_sandbox_memory_limit_is_a_reason(good: Path) -> None:
    # Frames of 36 kB become 12 MB each: it is the resized ones that do not fit.
    with Sandbox(Limits(memory_bytes=600 << 20, window_bytes=4 << 30)) as sandbox:
        with pytest.raises(MediaError) as caught:
            _all(sandbox, good, _big(2000))
        assert caught.value.reason == "decoder_memory"
        assert _all(sandbox, good)[1].outcome.status == "extracted"


def _tiny(path: Path, minutes: int) -> None:
    """64x48 at 5 frames a second with 8 kHz sound."""
    with av.open(str(path), "w") as container:
        video = container.add_stream("mpeg4", rate=5)
        video.width, video.height, video.pix_fmt = 64, 48, "yuv420p"
        audio = container.add_stream("aac", rate=8000, layout="mono")
        picture = av.VideoFrame.from_ndarray(np.zeros((48, 64, 3), np.uint8))
        second = np.zeros((1, 8000), np.float32)
        for number in range(minutes * 60):
            for k in range(5):
                picture.pts = number * 5 + k
                container.mux(video.encode(picture))
            sound = av.AudioFrame.from_ndarray(second, "fltp", "mono")
            sound.rate, sound.pts = 8000, number * 8000
            container.mux(audio.encode(sound))
        container.mux(video.encode(None))
        container.mux(audio.encode(None))


@pytest.mark.slow
def test_sandbox_half_an_hour_costs_no_more_memory_than_minutes(tmp_path: Path) -> None:
    recipe = Recipe(
        name="r",
        encoder="none",
        grid=RECIPE.grid,
        video=VideoSampling(frames_per_segment=4, height_px=112, width_px=112),
        audio=AudioSampling(rate_hz=8000),
    )
    peaks = []
    for minutes in (3, 30):
        _tiny(tmp_path / "tiny.mp4", minutes)
        with Sandbox() as sandbox:
            for _ in sandbox.decode(Video(id="v", uri="x"), tmp_path / "tiny.mp4", [recipe]):
                pass
            status = Path(f"/proc/{sandbox.child_pid}/status").read_text()
        peaks.append(int(status.split("VmHWM:")[1].split()[0]))
    assert peaks[1] <= peaks[0] * 1.05


def test_sandbox_that_cannot_start_blames_no_medium(good: Path) -> None:
    with (
        Sandbox(Limits(memory_bytes=40 << 20)) as sandbox,
        pytest.raises(RuntimeError, match=r"cannot start with .*memory_bytes=41943040"),
    ):
        sandbox.probe(good)


def test_sandbox_left_in_mid_medium_starts_afresh(long: Path, good: Path) -> None:
    with Sandbox(SMALL) as sandbox:
        items = sandbox.decode(Video(id="v", uri="x"), long, [_big()])
        next(items)
        pid = sandbox.child_pid
        items.close()  # type: ignore[attr-defined]  # a generator
        assert sandbox.child_pid is None
        assert pid is not None
        assert not psutil.pid_exists(pid)
        assert _all(sandbox, good)[1].duration_s == 10


def test_sandbox_frames_by_tensor_interpolation_arrive_as_floats(good: Path) -> None:
    # At the medium's own size both ways leave the pictures as they are.
    info = probe(str(good))
    assert info.video is not None
    plain = RECIPE.changed(
        {
            "video.fit": "stretch",
            "video.height_px": str(info.video.height_px),
            "video.width_px": str(info.video.width_px),
        }
    )
    floats = dataclasses.replace(plain.changed({"video.interpolation": "bicubic_tensor"}), name="floats")
    with Sandbox(SMALL) as sandbox:
        got, _ = _all(sandbox, good, plain, floats)
    of = {name: [clips.frames_FHWC for who, clips in got if who == name] for name in ("r", "floats")}
    assert {frames.dtype for frames in of["floats"]} == {np.dtype(np.float32)}
    np.testing.assert_array_equal(np.concatenate(of["floats"]), np.concatenate(of["r"]))


def test_sandboxes_side_by_side_do_not_mix(good: Path, long: Path) -> None:
    with Sandbox(SMALL) as one, Sandbox(SMALL) as two:
        alone = [clips.frames_FHWC for _, clips in _all(one, good)[0]]
        first = one.decode(Video(id="a", uri="x"), good, [RECIPE])
        second = two.decode(Video(id="b", uri="x"), long, [_big()])
        mixed: list[NDArray[np.uint8 | np.float32]] = []
        for item in first:
            assert not isinstance(next(second), Decoded)
            if isinstance(item, tuple):
                assert item[1].video_id == "a"
                mixed.append(item[1].frames_FHWC)
        for got, want in zip(mixed, alone, strict=True):
            np.testing.assert_array_equal(got, want)


def test_sandbox_recipes_of_one_name_are_refused(good: Path) -> None:
    with Sandbox() as sandbox, pytest.raises(ValueError, match="different names"):
        _all(sandbox, good, RECIPE, RECIPE)


@pytest.mark.parametrize(
    "name",
    ["new\nline.mp4", "-y.mp4", "é日本🎬.mp4", "a:b.mp4", "http:x.mp4", "%03d.mp4", os.fsdecode(b"\xff\xfe.mp4")],
)
def test_sandbox_opens_any_name(good: Path, tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / name).symlink_to(good)
    monkeypatch.chdir(tmp_path)
    with Sandbox() as sandbox:
        assert _all(sandbox, Path(name))[1].duration_s == 10


def test_sandbox_annotated_duration_exposes_a_cut_that_the_file_hides(good: Path) -> None:
    with Sandbox() as sandbox:
        for annotated_s, truncated in ((Fraction(10), False), (Fraction(11), False), (Fraction(15), True)):
            video = Video(id="v", uri="x", duration_s=annotated_s)
            if truncated:
                with pytest.raises(MediaError, match=r"lasts 10\.00 s, annotated as 15\.00 s") as caught:
                    list(sandbox.decode(video, good, [RECIPE]))
                assert caught.value.reason == "truncated_media"
            else:
                assert isinstance([*sandbox.decode(video, good, [RECIPE])][-1], Decoded)


@pytest.mark.slow
def test_sandbox_every_real_video_is_extracted_or_partial(shared: Path) -> None:
    files = sorted((shared / "data" / "media" / "video").iterdir())
    assert len(files) == 29
    wrong = []
    with Sandbox() as sandbox:
        for path in files:
            try:
                clips, decoded = _all(sandbox, path)
            except MediaError as error:
                wrong.append(f"{path.name}: {error}")
                continue
            if sum(c.count for _, c in clips) != max(1, -((Fraction(1, 10) - decoded.duration_s) // 1)):
                wrong.append(f"{path.name}: {sum(c.count for _, c in clips)} segments of {decoded.duration_s} s")
            if (decoded.outcome.status == "partial") != ("audio" not in decoded.media):
                wrong.append(f"{path.name}: {decoded.outcome.status} {decoded.outcome.reason}")
    assert not wrong


def test_sandbox_thumbnails_are_the_frames_on_screen(shared: Path) -> None:
    folder = shared / "data" / "malformed"
    with Sandbox() as sandbox:
        before, first, again = sandbox.thumbnails(folder / "video_starts_late.mp4", [0.5, 1.5, 1.5], 48)
        assert before is None
        assert first is not None
        assert first.shape == (48, 64, 3)
        np.testing.assert_array_equal(first, again)
        (turned,) = sandbox.thumbnails(folder / "rotated_90.mp4", [1.0], 64)
        assert turned is not None
        assert turned.shape == (64, 48, 3)
        assert sandbox.thumbnails(folder / "audio_only.mp4", [1.0], 48) == [None]


def test_sandbox_loudness_follows_the_sound(shared: Path) -> None:
    folder = shared / "data" / "malformed"
    with Sandbox() as sandbox:
        bins = sandbox.loudness(folder / "audio_shorter.mp4", 40)
        assert bins.shape == (40,)
        assert bins.dtype == np.float32
        # a tone of amplitude 0.2 to 2.5 s of 4 s, a click at each whole second
        assert bins[[2, 5, 8, 12, 15, 18, 22]] == pytest.approx(0.2 / np.sqrt(2), rel=0.1)
        assert (bins[[0, 10, 20]] > 0.2).all()
        assert not bins[26:].any()
        assert not sandbox.loudness(folder / "video_only.mp4", 5).any()


def test_sandbox_probe_tells_tracks_and_exact_times(good: Path) -> None:
    with Sandbox() as sandbox:
        media = sandbox.probe(good)
    assert (media["duration_s"], media["t0_s"], media["video"]["frames"], media["audio"]["rate_hz"]) == (
        "10",
        "0",
        250,
        44100,
    )


_PARENT = """
import sys
from catalog.video import Video
from catalog.recipe import Recipe
from pipeline.sandbox.parent import Limits, Sandbox
import threading

def work():
    sandbox = Sandbox(Limits(window_bytes=1 << 17))
    items = sandbox.decode(Video(id="v", uri="x"), sys.argv[1], [Recipe.from_json(sys.argv[2])])
    next(items)
    print(sandbox.child_pid, flush=True)
    threading.Event().wait()

if sys.argv[3] == "thread":
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
else:
    work()
"""


@pytest.mark.parametrize(("where", "stopped"), [("main", False), ("main", True), ("thread", False)])
def test_sandbox_child_dies_with_its_killed_parent(long: Path, where: str, stopped: bool) -> None:
    parent = subprocess.Popen(
        [sys.executable, "-c", _PARENT, str(long), _big().to_json(), where],
        cwd=PROJECT,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert parent.stdout is not None
    with parent.stdout:
        child = psutil.Process(int(parent.stdout.readline()))
    if stopped:
        child.suspend()  # even a child that runs no more of its own code
    parent.kill()
    parent.wait()
    until_s = time.monotonic() + HANG_S
    while not _dead(child):
        assert time.monotonic() < until_s, "the child outlives its parent"
        time.sleep(0.01)


def _dead(process: psutil.Process) -> bool:
    """Whether it has ended; whoever inherited it may not have taken note yet."""
    try:
        return process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


_HANG = """
import ctypes, sys
from pipeline.sandbox.child import _die_with_parent
_die_with_parent(int(sys.argv[1]), 0)
print("hanging", flush=True)
ctypes.PyDLL(None).sleep(1000)  # holds the interpreter's lock, as decord has done
"""


def test_sandbox_child_that_hangs_with_the_lock_dies_when_its_lifeline_is_cut() -> None:
    read, write = os.pipe()
    child = subprocess.Popen(
        [sys.executable, "-c", _HANG, str(read)], cwd=PROJECT, stdout=subprocess.PIPE, pass_fds=[read]
    )
    assert child.stdout is not None
    with child.stdout:
        assert child.stdout.readline() == b"hanging\n"
        os.close(write)
        assert child.wait(timeout=HANG_S) == -signal.SIGIO
    os.close(read)
