"""I3D and VGGish as UnAV-100's features were made: its frames, its flow shared by windows, its sound, both files."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import soundfile
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from catalog.grid import SegmentGrid
from catalog.recipe import Recipe
from pipeline.clips import Clips
from pipeline.decode.frames import FrameTable
from pipeline.decode.probe import probe
from pipeline.decode.windows import decode
from pipeline.encode import load_encoder
from pipeline.encoder import assets_of
from pipeline.encoders.i3d_vggish import encoder as i3d_vggish
from pipeline.encoders.i3d_vggish.flow import padded, prepared
from pipeline.networks.i3d import Config, I3d
from pipeline.networks.raft import Raft
from pipeline.networks.vggish import Vggish
from pipeline.preprocess.vggish_log_mel import examples
from pipeline.recipes import find_recipe
from pipeline.unit import one_thread
from pipeline.weights.asset import Asset
from tests.pipeline import parity

RECIPE = find_recipe("i3d-vggish-unav")
RATE_HZ = 16000


def small(**more: str) -> Recipe:
    return RECIPE.changed({"settings.size": "from-weights", "settings.flow_iterations": "1"} | more)


def without(recipe: Recipe, tower: str) -> Recipe:
    changes: dict[str, Any] = {tower: None}
    return dataclasses.replace(recipe, **changes)


@dataclasses.dataclass(frozen=True)
class Nets:
    """What the small files hold."""

    i3d: dict[str, I3d]
    raft: Raft
    vggish: Vggish
    paths: dict[str, Path]


@pytest.fixture(autouse=True)
def calm() -> Iterator[None]:
    """One thread, as units are encoded."""
    with one_thread():
        yield


@pytest.fixture(scope="module")
def nets(tmp_path_factory: pytest.TempPathFactory) -> Nets:
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("i3d")
    i3d = {}
    for layout, modality in (("hassony2", "rgb"), ("hassony2", "flow"), ("piergiaj", "rgb"), ("piergiaj", "flow")):
        config = Config(layout=layout, modality=modality, width=8, classes=3)  # type: ignore[arg-type]  # plain texts
        i3d[f"{layout} {modality}"] = network = I3d(config).eval()
        for module in network.modules():
            # Else values die away layer by layer, and every output is near 0.
            if isinstance(module, torch.nn.Conv3d):
                torch.nn.init.kaiming_normal_(module.weight)
        # As published: saved before PyTorch counted batches.
        state = i3d[f"{layout} {modality}"].state_dict()
        kept = {key: tensor for key, tensor in state.items() if not key.endswith("num_batches_tracked")}
        torch.save(kept, folder / f"{layout}_{modality}.pt")
    raft, vggish = Raft().eval(), Vggish().eval()
    torch.save(raft.state_dict(), folder / "raft.pth")
    torch.save(vggish.state_dict(), folder / "vggish.pth")
    paths = {name: folder / f"hassony2_{name}.pt" for name in ("rgb", "flow")}
    paths |= {"raft": folder / "raft.pth", "vggish": folder / "vggish.pth"}
    return Nets(i3d=i3d, raft=raft, vggish=vggish, paths=paths)


def moving_frames(count: int, *, height: int = 226, width: int = 233) -> np.ndarray:
    """A texture that moves 2 pixels a frame."""
    rng = np.random.default_rng(0)
    coarse = Image.fromarray(rng.integers(0, 256, (40, 60, 3), dtype=np.uint8))
    texture = np.asarray(coarse.resize((width + 2 * count, height + 2 * count), Image.Resampling.BICUBIC))
    return np.stack([texture[2 * n : 2 * n + height, n : n + width] for n in range(count)])


def clips_of(
    *,
    frames: np.ndarray | None = None,
    index: np.ndarray | None = None,
    samples: np.ndarray | None = None,
    count: int = 1,
    samples_start: int = -240,
) -> Clips:
    heard = np.zeros(0, np.float32) if samples is None else samples.astype(np.float32)
    return Clips(
        video_id="v",
        grid=SegmentGrid(window_s=Fraction(24, 25), hop_s=Fraction(8, 25), count=count),
        first=0,
        frames_FHWC=np.zeros((0, 224, 224, 3), np.uint8) if frames is None else frames,
        frame_index_SP=(np.zeros((count, 0)) if index is None else index).astype(np.int32),
        samples_N=heard,
        sample_valid_N=np.ones(heard.size, np.bool_),
        samples_start=samples_start,
        rate_hz=RATE_HZ,
    )


def through_ffmpeg(frames: list[av.VideoFrame], time_base: Fraction) -> Iterator[av.VideoFrame]:
    """The frames that FFmpeg's `fps=25` shows, as video_features re-encodes a file."""
    graph = av.filter.Graph()
    first = frames[0]
    source = graph.add_buffer(width=first.width, height=first.height, format=first.format, time_base=time_base)
    fps, sink = graph.add("fps", "25"), graph.add("buffersink")
    source.link_to(fps)
    fps.link_to(sink)
    graph.configure()
    for frame in [*frames, None]:
        source.push(frame)
        while True:
            try:
                made = graph.pull()
            except (av.error.BlockingIOError, av.error.EOFError):
                break
            assert isinstance(made, av.VideoFrame)
            yield made


@pytest.mark.parametrize(
    ("fps", "time_base"),
    [
        ("24", "1/12288"),
        ("25", "1/12800"),
        ("30", "1/15360"),
        ("30000/1001", "1/30000"),
        ("50", "1/12800"),
        ("60", "1/15360"),
        ("15", "1/15360"),
        ("149/6", "1/90000"),
        ("24000/1001", "1/1000"),
    ],
)
def test_frames_are_those_of_ffmpeg_at_25_a_second(fps: str, time_base: str) -> None:
    rate, tick = Fraction(fps), Fraction(time_base)
    pts = [round(n / rate / tick) for n in range(int(4 * rate))]
    frames = []
    for number, at in enumerate(pts):
        frame = av.VideoFrame.from_ndarray(np.full((16, 16), number, np.uint8), format="gray")
        frame.pts, frame.time_base = at, tick
        frames.append(frame)
    want = [int(frame.to_ndarray()[0, 0]) for frame in through_ffmpeg(frames, tick)]
    table = FrameTable(pts_F=np.array(pts, np.int64), time_base=tick, t0_s=Fraction(0))
    grid = RECIPE.grid.grid(Fraction(4))
    assert RECIPE.video is not None
    for segment in range(grid.count):
        made = table.of_segment(grid, segment, RECIPE.video)
        assert made == (want + want[-1:])[8 * segment : 8 * segment + 25]


@given(duration_ms=st.integers(960, 70_000))
def test_count_of_windows_is_unav100s(duration_ms: int) -> None:
    frames = Fraction(25 * duration_ms, 1000)
    assert RECIPE.grid.grid(Fraction(duration_ms, 1000)).count == (frames - 24) // 8 + 1


def test_frames_of_a_file_are_whole_and_held_once(shared: Path) -> None:
    path = str(shared / "data/media/video/women_long_jump.mp4")
    recipe = without(RECIPE, "audio")
    info = probe(path)
    parts = decode(path, info, [recipe], video_id="v", window_bytes=16 << 20)
    first, second = (part[1] for part, _ in zip(parts, range(2), strict=False) if isinstance(part, tuple))
    assert first.grid.count == second.grid.count == 107
    # 16 MiB hold 1.64 s of 25 frames in 0.96 s: frames that windows share are counted once.
    assert first.count == 6
    with av.open(path) as file:
        decoded = [frame for frame, _ in zip(file.decode(video=0), range(120), strict=False)]
        assert decoded[0].time_base is not None
        shown = list(through_ffmpeg(decoded, decoded[0].time_base))
    want = [Image.fromarray(f.to_ndarray(format="rgb24", interpolation="BILINEAR")) for f in shown[:100]]
    for clips in (first, second):
        assert clips.frames_FHWC.shape[1:] == (256, 341, 3)
        # Three windows see a frame; it is there once.
        assert len(clips.frames_FHWC) <= 8 * clips.count + 17
        for row in range(clips.count):
            begin = 8 * (clips.first + row)
            resized = [np.asarray(f.resize((341, 256), Image.Resampling.BILINEAR)) for f in want[begin : begin + 25]]
            apart = clips.frames_FHWC[clips.frame_index_SP[row, : len(resized)]].astype(int) - np.stack(resized)
            assert np.abs(apart).max() == 0


@pytest.mark.slow
def test_flow_shared_by_windows_equals_flow_window_by_window(nets: Nets, monkeypatch: pytest.MonkeyPatch) -> None:
    frames_seen, pairs_seen = [], []
    encode, between = Raft.encode, Raft.between

    def counting_encode(self: Raft, frames_BCHW: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        frames_seen.append(len(frames_BCHW))
        return encode(self, frames_BCHW)

    def counting_between(self: Raft, *args: Any) -> torch.Tensor:
        pairs_seen.append(len(args[0]))
        return between(self, *args)

    # Few frames, for time: one is shown several times in a row, as of a video of few frames a second.
    frames = moving_frames(3)
    windows = np.minimum(np.arange(17) // 8 + np.arange(2)[:, None], 2)
    recipe = without(small(**{"video.frames_per_segment": "16"}), "audio")
    encoder = load_encoder(recipe, {name: nets.paths[name] for name in ("rgb", "flow", "raft")})
    assert (encoder.visual_shape, encoder.audio_shape) == ((256,), None)
    with monkeypatch.context() as patch:
        patch.setattr(Raft, "encode", counting_encode)
        patch.setattr(Raft, "between", counting_between)
        (made,) = encoder.encode([clips_of(frames=frames, index=windows, count=2)])
    assert made.visual is not None
    assert made.visual.valid.all()
    # 32 pairs of the two windows, five of them distinct, of three frames.
    assert (sum(frames_seen), sum(pairs_seen)) == (3, 5)
    shown = torch.from_numpy(frames).permute(0, 3, 1, 2).float()
    cut = shown[:, :, 1:225, 4:228]
    with torch.inference_mode():
        flow = {
            (a, b): prepared(nets.raft(padded(shown[a : a + 1]), padded(shown[b : b + 1]), 1))[0]
            for a, b in ((0, 0), (0, 1), (1, 1), (1, 2), (2, 2))
        }
        for row, window in enumerate(windows.tolist()):
            rgb = nets.i3d["hassony2 rgb"]((2 * cut[window[:16]] / 255 - 1).transpose(0, 1)[None])
            moved = torch.stack([flow[pair] for pair in itertools.pairwise(window)], dim=1)
            want = torch.cat([rgb, nets.i3d["hassony2 flow"](moved[None])], dim=1).numpy()[0]
            for half in (slice(128), slice(128, 256)):
                scale = np.abs(want[half]).max()
                assert np.abs(made.visual.values[row, half] - want[half]).max() <= 1e-3 * scale
                assert np.abs(made.visual.values[1 - row, half] - want[half]).max() > 1e-2 * scale


def test_segments_before_the_first_picture_have_none_and_begin_with_the_first(nets: Nets) -> None:
    recipe = without(small(**{"settings.flow": "false", "video.frames_after": "0"}), "audio")
    encoder = load_encoder(recipe, {"rgb": nets.paths["rgb"]})
    assert encoder.visual_shape == (128,)
    frames = moving_frames(2)
    index = np.concatenate([np.full((2, 24), -1), np.ones((1, 24))])
    index[1, 20:] = [0, 0, 1, 1]
    (made,) = encoder.encode([clips_of(frames=frames, index=index, count=3)])
    assert made.visual is not None
    assert made.visual.valid.tolist() == [False, True, True]
    assert np.isnan(made.visual.values[0]).all()
    held = np.where(index[1:2] < 0, 0, index[1:2])
    (want,) = encoder.encode([clips_of(frames=frames, index=held)])
    assert want.visual is not None
    np.testing.assert_allclose(
        made.visual.values[1:2], want.visual.values, rtol=1e-4, atol=1e-5 * np.abs(want.visual.values).max()
    )


@pytest.mark.parametrize("layout", ["hassony2", "piergiaj"])
def test_both_publications_load_and_differ(nets: Nets, layout: str) -> None:
    folder = nets.paths["rgb"].parent
    recipe = without(small(**{"settings.flow": "false", "video.frames_after": "0"}), "audio")
    encoder = load_encoder(recipe, {"rgb": folder / f"{layout}_rgb.pt"})
    frames = moving_frames(24)
    (made,) = encoder.encode([clips_of(frames=frames, index=np.arange(24)[None])])
    top, left = 1, 4
    with torch.inference_mode():
        cut = torch.from_numpy(frames[:, top : top + 224, left : left + 224]).float().permute(3, 0, 1, 2)
        want = nets.i3d[f"{layout} rgb"](2 * cut[None] / 255 - 1).numpy()
    assert made.visual is not None
    assert np.abs(made.visual.values - want).max() <= 1e-4 * np.abs(want).max()
    other = nets.i3d["piergiaj rgb" if layout == "hassony2" else "hassony2 rgb"]
    with torch.inference_mode():
        apart = np.abs(made.visual.values - other(2 * cut[None] / 255 - 1).numpy())
    assert apart.max() > 1e-2 * np.abs(want).max()


def test_sound_is_that_of_the_whole_file_with_a_hop_of_32_mel_frames(shared: Path, nets: Nets) -> None:
    samples, _ = soundfile.read(shared / "data/media/audio/torchvggish_test.wav", dtype="float32")
    recipe = without(RECIPE, "video")
    encoder = load_encoder(recipe, {"vggish": nets.paths["vggish"]})
    count = recipe.grid.grid(Fraction(samples.size, RATE_HZ)).count
    assert count == 10
    # 4 s: the last window ends 0.16 s before the end; 15 ms of context before the beginning are zeros.
    heard = np.concatenate([np.zeros(240, np.float32), samples])
    (made,) = encoder.encode([clips_of(samples=heard, count=count)])
    assert made.audio is not None
    assert made.audio.valid.all()
    # video_features with EXAMPLE_HOP_SECONDS = 0.32: examples 32 frames apart, each here by itself.
    whole = np.concatenate([examples(samples[5120 * row : 5120 * row + 15600]) for row in range(count)])
    with torch.inference_mode():
        want = nets.vggish(torch.from_numpy(whole)).numpy()
    assert np.abs(made.audio.values - want).max() <= 1e-4 * np.abs(want).max()
    assert np.abs(made.audio.values[1:] - want[:-1]).max() > 1e-2 * np.abs(want).max()


def test_sound_of_a_hop_between_mel_frames_is_each_by_itself() -> None:
    samples = np.random.default_rng(0).standard_normal(RATE_HZ * 3).astype(np.float32) * 0.1
    grid = SegmentGrid(window_s=Fraction(24, 25), hop_s=Fraction(1, 3), count=4)
    clips = dataclasses.replace(clips_of(samples=samples, count=4, samples_start=0), grid=grid)
    made = i3d_vggish.examples(clips, np.array([0, 2, 3]))
    begins = [0, 10667, 16000]
    want = np.concatenate([examples(samples[begin : begin + 15600]) for begin in begins])
    np.testing.assert_allclose(made, want, rtol=1e-6)


def test_sound_that_ends_or_is_missing_counts_as_zero(nets: Nets) -> None:
    rng = np.random.default_rng(1)
    samples = rng.standard_normal(15360 + 2 * 5120).astype(np.float32) * 0.1  # three windows, and not a sample more
    clips = clips_of(samples=samples, count=3, samples_start=0)
    gap = np.ones(samples.size, np.bool_)
    gap[:4000] = False
    clips = dataclasses.replace(clips, sample_valid_N=gap)
    zeroed = np.concatenate([np.where(gap, samples, 0), np.zeros(240, np.float32)])
    want = np.concatenate([examples(zeroed[5120 * row : 5120 * row + 15600]) for row in range(3)])
    np.testing.assert_allclose(i3d_vggish.examples(clips, np.arange(3)), want, rtol=1e-6)
    encoder = load_encoder(without(RECIPE, "video"), {"vggish": nets.paths["vggish"]})
    silent = dataclasses.replace(clips, sample_valid_N=np.arange(samples.size) >= 15360 + 1000)
    (made,) = encoder.encode([silent])
    assert made.audio is not None
    assert made.audio.valid.tolist() == [False, True, True]
    assert np.isnan(made.audio.values[0]).all()


def test_files_named_as_published() -> None:
    def told(assets: tuple[Asset, ...]) -> dict[str, tuple[str, str]]:
        return {asset.name: (asset.filename, (asset.git_blob or asset.sha256_prefix or "")[:8]) for asset in assets}

    assert told(assets_of(RECIPE)) == {
        "rgb": ("i3d_rgb.pt", "2a7c22e2"),
        "flow": ("i3d_flow.pt", "5d552d22"),
        "raft": ("raft-sintel.pth", "e9ace903"),
        "vggish": ("vggish-10086976.pth", "10086976"),
    }
    assert set(told(assets_of(RECIPE.changed({"settings.flow": "false"})))) == {"rgb", "vggish"}


def test_files_swapped_are_refused(nets: Nets) -> None:
    paths = nets.paths | {"rgb": nets.paths["flow"], "flow": nets.paths["rgb"]}
    with pytest.raises(ValueError, match=r"needs the I3D of rgb, holds that of flow; are the two swapped\?"):
        load_encoder(small(), paths)
    with pytest.raises(ValueError, match="not the state dict of an I3D"):
        load_encoder(small(), nets.paths | {"rgb": nets.paths["vggish"]})
    with pytest.raises(ValueError, match="RAFT: not the checkpoint of this network"):
        load_encoder(small(), nets.paths | {"raft": nets.paths["rgb"]})


def test_small_files_need_the_setting(nets: Nets) -> None:
    with pytest.raises(ValueError, match=r"needs the published sizes .* --set settings\.size=from-weights"):
        load_encoder(RECIPE, nets.paths)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"audio.rate_hz": "44100"}, r"needs audio\.rate_hz=16000"),
        ({"audio.context_s": "0"}, r"needs 0\.975 s .* raise audio\.context_s"),
        ({"video.height_px": "112"}, "224 x 224 out of frames left whole"),
        ({"video.fit": "crop"}, "224 x 224 out of frames left whole"),
        ({"video.frames_after": "0"}, r"frames_after needs 1 with flow, got 0"),
        ({"settings.flow": "false"}, r"frames_after needs 0 without flow, got 1"),
        ({"video.frames_per_segment": "15"}, "needs 16 frames or more"),
        ({"settings.rgb": "false", "settings.flow": "false"}, r"needs settings\.rgb, settings\.flow or both"),
        ({"settings.rgb": "yes"}, r"settings\.rgb must be true or false"),
        ({"settings.flow_iterations": "0"}, "flow_iterations must be at least 1, got 0"),
        ({"settings.flow_iterations": "true"}, "flow_iterations must be a whole number, got True"),
        ({"settings.size": "small"}, "must be one of published, from-weights"),
    ],
)
def test_recipes_that_cannot_be_raise(nets: Nets, changes: dict[str, str], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        load_encoder(RECIPE.changed(changes), nets.paths)


@pytest.mark.slow
def test_full_size_windows_of_a_file_equal_the_slow_way(shared: Path, tmp_path: Path) -> None:
    """Seeded weights under every published key, at full size: two windows of a real file, flow with 2 iterations."""
    nets, paths = {}, {}
    for name, keys in (("rgb", "i3d_hassony2_rgb"), ("flow", "i3d_hassony2_flow"), ("raft", "raft-sintel")):
        state = parity.seeded_state(shared, keys)
        paths[name] = tmp_path / f"{name}.pt"
        torch.save(state, paths[name])
        network: torch.nn.Module = Raft() if name == "raft" else I3d(Config.of(state))
        network.load_state_dict(state)
        nets[name] = network.eval()
    recipe = without(RECIPE.changed({"settings.flow_iterations": "2"}), "audio")
    path = str(shared / "data/media/video/women_long_jump.mp4")
    part = next(iter(decode(path, probe(path), [recipe], video_id="v", window_bytes=6 << 20)))
    assert isinstance(part, tuple)
    clips = part[1]
    clips = dataclasses.replace(clips, frame_index_SP=clips.frame_index_SP[:2])
    (made,) = load_encoder(recipe, paths).encode([clips])
    assert made.visual is not None
    assert made.visual.values.shape == (2, 2048)
    for row in range(2):
        window = clips.frames_FHWC[clips.frame_index_SP[row]]
        with torch.inference_mode():
            shown = torch.from_numpy(window).permute(0, 3, 1, 2).float()
            cut = shown[:24, :, 16:240, 58:282]
            rgb = nets["rgb"]((2 * cut / 255 - 1).transpose(0, 1)[None])
            flows = [nets["raft"](padded(shown[n : n + 1]), padded(shown[n + 1 : n + 2]), 2) for n in range(24)]
            moved = nets["flow"](prepared(torch.cat(flows)).transpose(0, 1)[None])
        want = torch.cat([rgb, moved], dim=1).numpy()[0]
        # A flow that lies on the edge between two of the 256 steps may fall to either.
        apart = np.abs(made.visual.values[row] - want)
        assert apart.max() <= 2e-3 * np.abs(want).max()
        assert np.sqrt((apart**2).mean() / (want**2).mean()) <= 1e-3
