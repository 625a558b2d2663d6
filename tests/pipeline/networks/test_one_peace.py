"""ONE-PEACE's branches and video tower against the published network's outputs under seeded weights."""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from pipeline.networks import one_peace_layers, one_peace_video
from pipeline.networks.checkpoint import BadCheckpoint, fill, read_state
from pipeline.networks.one_peace import MODALITIES, Config, Modality, OnePeace, branch
from pipeline.networks.one_peace_video import VideoTower, completed
from tests.pipeline import parity

Net = TypeVar("Net", OnePeace, VideoTower)

SMALL = {"width": 32, "heads": 2, "layers": 2, "hidden": 48}


def net_of(state: dict[str, Tensor], modality: Modality) -> OnePeace:
    own = branch(state, modality)
    with torch.device("meta"):
        net = OnePeace(Config.of(own, modality))
    fill(net, own, where="golden")
    return net.eval().requires_grad_(False)


def tower_of(state: dict[str, Tensor]) -> VideoTower:
    own = completed(state)
    with torch.device("meta"):
        net = VideoTower(one_peace_video.Config.of(own))
    fill(net, own, where="golden")
    return net.eval().requires_grad_(False)


def small(modality: Modality, **more: int) -> OnePeace:
    rows = {"text": 34, "image": one_peace_layers.image_rows(4), "audio": 66}[modality]
    sizes: dict[str, Any] = (
        {"side": 4, "reach": 4, "channels": 24, "vocabulary": 20, "positions": 30, "embedding": 12} | SMALL | more
    )
    return drawn(OnePeace(replace(Config(modality=modality, rows=rows, reach=4), **sizes)))


def drawn(net: Net) -> Net:
    """Weights at which every part matters; those of one name and shape are the same in all networks."""
    for name, parameter in net.named_parameters():
        parameter.data.uniform_(-0.4, 0.4, generator=torch.Generator().manual_seed(zlib.crc32(name.encode())))
        if "norm" in name or "gamma" in name or name.endswith("ln.weight"):
            parameter.data.add_(0.5)
    state = net.state_dict()
    if isinstance(net, OnePeace):
        del state[f"encoder_wrapper.{net.config.modality}_adapter.rp_bucket"]
        fill(net, branch(state, net.config.modality), where="drawn")
    else:
        del state["backbone.image_adapter.rp_bucket"]
        fill(net, completed(state), where="drawn")
    return net.eval().requires_grad_(False)


def watched(net: nn.Module, case: parity.Case, rename: Callable[[str], str]) -> dict[str, Tensor]:
    """Fills with what the modules give that the golden holds, while the network runs."""
    seen: dict[str, Tensor] = {}
    for path, module in net.named_modules():
        key = f"mid.{rename(path)}"
        if key in case.want:
            module.register_forward_hook(lambda module, given, made, key=key: seen.__setitem__(key, made))
    return seen


def compare(shared: Path, name: str) -> None:
    case = parity.load(shared, name)
    modality: Modality = case.meta["head_type"]
    net = net_of(case.state, modality)
    seen = watched(net, case, lambda path: path)
    with torch.inference_mode():
        class_BC = net.tokens(case.inputs["x"], case.inputs.get("padding_mask"))[:, 0]
        projected_BD = net.project(class_BC)
        held = dict(seen)
        parity.check(shared, case, net(case.inputs["x"], case.inputs.get("padding_mask")))
        if "out_1s" in case.want:
            parity.check(shared, case, net(case.inputs["x_1s"]), "out_1s")
    assert held.keys() == {key for key in case.want if key.startswith("mid.")}
    for key, value in held.items():
        # Upstream's transformer has tokens first.
        parity.check(shared, case, value.transpose(0, 1) if "fusion_model" in key else value, key)
    for key, made in (("cls_after_layer_norm", class_BC), ("proj", projected_BD)):
        if key in case.want:
            parity.check(shared, case, made, key)


@pytest.mark.parametrize("kind", MODALITIES)
def test_branch_equals_the_published(shared: Path, kind: str) -> None:
    compare(shared, f"onepeace_2layer_{kind}")


@pytest.mark.slow
@pytest.mark.timeout(1800)  # 6 GB of weights are drawn
@pytest.mark.parametrize("kind", ["image", "audio"])
def test_branch_of_full_depth_equals_the_published(shared: Path, kind: str) -> None:
    compare(shared, f"onepeace_full_{kind}")


def test_classifier_equals_the_published(shared: Path) -> None:
    case = parity.load(shared, "onepeace_2layer_vggsound")
    net = net_of(case.state, "audio")
    assert net.config.tables == 2
    with torch.inference_mode():
        pooled_BC, logits_BK = net.classify(case.inputs["x"], case.inputs["padding_mask"])
    parity.check(shared, case, logits_BK)
    parity.check(shared, case, pooled_BC, "pooled")


@pytest.mark.parametrize("frames", [4, pytest.param(16, marks=pytest.mark.slow)])
def test_video_tower_equals_the_published(shared: Path, frames: int) -> None:
    case = parity.load(shared, f"onepeace_2layer_k400_{frames}f")
    net = tower_of(case.state)
    assert net.config.frames == frames
    seen = watched(net, case, lambda path: path.removeprefix("backbone."))
    clips_BTCHW = case.inputs["x"].transpose(1, 2)
    with torch.inference_mode():
        tokens_BTNC = net.stem(clips_BTCHW.flatten(0, 1))[None]
        class_BTC = net.class_tokens(tokens_BTNC)
    parity.check(shared, case, class_BTC.transpose(1, 2))
    parity.check(shared, case, class_BTC.mean(dim=1), "feature")
    times = net.get_parameter("backbone.image_adapter.temporal_embedding")
    parity.check(shared, case, tokens_BTNC[0] + times[0][:, None], "mid.image_adapter")
    for number in (0, 1):
        key = f"mid.encoder.layers.{number}"
        # Upstream: tokens first, the frames of all clips as one batch.
        parity.check(shared, case, seen[key].flatten(0, 1).transpose(0, 1), key)


def test_buckets_equal_the_published(shared: Path) -> None:
    with np.load(shared / "parity/encoders/onepeace_rp_bucket.npz") as want:
        np.testing.assert_array_equal(one_peace_layers.token_buckets(514).numpy(), want["text"])
        np.testing.assert_array_equal(one_peace_layers.token_buckets(1026).numpy(), want["audio"])
        np.testing.assert_array_equal(one_peace_layers.image_buckets(16).numpy(), want["image"])


def published_keys(shared: Path, name: str) -> dict[str, Tensor]:
    rows = json.loads((shared / f"parity/encoders/{name}.keys.json").read_text())["tensors"]
    dtypes = {"float32": torch.float32, "int64": torch.int64}
    return {key: torch.empty(shape, dtype=dtypes[dtype], device="meta") for key, shape, dtype in rows}


def assert_same(module: nn.Module, state: dict[str, Tensor]) -> None:
    def told(held: dict[str, Tensor]) -> dict[str, tuple[object, ...]]:
        return {key: (tuple(tensor.shape), tensor.dtype) for key, tensor in held.items()}

    assert told(module.state_dict()) == told(state)


@pytest.mark.parametrize("modality", MODALITIES)
def test_published_keys_are_those_of_the_branches(shared: Path, modality: Modality) -> None:
    state = published_keys(shared, "one-peace")
    own = branch(state, modality)
    assert Config.of(own, modality) == Config.published(modality)
    with torch.device("meta"):
        assert_same(OnePeace(Config.published(modality)), own)
    # Nothing of the file is nobody's.
    assert set(state) == set().union(*(branch(state, each) for each in MODALITIES))


def test_published_keys_of_the_vision_file(shared: Path) -> None:
    state = published_keys(shared, "one-peace-vision")
    own = branch(state, "image")
    assert len(own) == len(state)
    config = Config.of(own, "image")
    assert (config.layers, config.embedding, config.has_norm) == (40, None, False)
    with torch.device("meta"):
        assert_same(OnePeace(config), own)


def test_published_keys_of_the_classifier(shared: Path) -> None:
    own = branch(published_keys(shared, "finetune_vggsound"), "audio")
    config = Config.of(own, "audio")
    assert (config.layers, config.tables, config.classes, config.classifier_hidden) == (40, 40, 309, 3072)
    with torch.device("meta"):
        assert_same(OnePeace(config), own)


def test_published_keys_of_the_video_file(shared: Path) -> None:
    state = published_keys(shared, "onepeace_video_k400")
    config = one_peace_video.Config.of(state)
    assert config == one_peace_video.Config(classes=400)
    with torch.device("meta"):
        assert_same(VideoTower(config), state)
    backbone = {key: tensor for key, tensor in state.items() if key.startswith("backbone.")}
    assert one_peace_video.Config.of(backbone) == one_peace_video.Config.published()


def test_files_in_their_published_wrappers_load(tmp_path: Path) -> None:
    text, sound, picture = small("text"), small("audio"), small("image")
    whole = text.state_dict() | sound.state_dict() | picture.state_dict()
    torch.save({"args": None, "cfg": {"model": {"_name": "x"}}, "model": whole}, tmp_path / "one-peace.pt")
    vision = {
        key.replace("encoder_wrapper.image_adapter", "image_adapter").replace(
            "encoder_wrapper.fusion_model.layers", "encoder.layers"
        ): tensor
        for key, tensor in picture.state_dict().items()
        if not any(part in key for part in ("image_proj", "image_layer_norm", "logit_scale", "version"))
    }
    torch.save({"model": vision, "__author__": "ofa", "matching_heuristics": True}, tmp_path / "one-peace-vision.pkl")
    video = drawn(VideoTower(one_peace_video.Config(**SMALL, adapter=8, frames=3, side=4, classes=5)))
    torch.save({"meta": {"epoch": 30}, "state_dict": video.state_dict()}, tmp_path / "onepeace_video_k400.pth")

    read = read_state(tmp_path / "one-peace.pt")
    tokens = torch.tensor([[5, 6, 2]])
    torch.testing.assert_close(net_of(read, "text")(tokens), text(tokens), rtol=0, atol=0)
    samples = torch.randn(2, 4000, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(net_of(read, "audio")(samples), sound(samples), rtol=0, atol=0)
    images = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(2))
    plain = net_of(read_state(tmp_path / "one-peace-vision.pkl"), "image")
    norm = picture.get_submodule("encoder_wrapper.fusion_model.image_layer_norm")
    torch.testing.assert_close(norm(plain.tokens(images)), picture.tokens(images), rtol=0, atol=0)
    with pytest.raises(ValueError, match="no projection"):
        plain(images)
    again = tower_of(read_state(tmp_path / "onepeace_video_k400.pth"))
    clips = torch.randn(1, 3, 3, 64, 64, generator=torch.Generator().manual_seed(3))
    torch.testing.assert_close(again.classify(again(clips)), video.classify(video(clips)), rtol=0, atol=0)


@pytest.mark.parametrize("modality", MODALITIES)
def test_constants_that_a_file_lacks_are_put_in(modality: Modality) -> None:
    net = small(modality)
    state = net.state_dict()
    lean = {key: t for key, t in state.items() if not key.endswith(("rp_bucket", "position_idx", "version"))}
    table = f"encoder_wrapper.{modality}_adapter.rel_pos_table"
    lean[f"{table}.weight"] = lean.pop(f"{table}_list.0.weight")
    # What served pre-training alone.
    lean |= {"decoder_wrapper.fusion_model.layers.0.gamma_1": torch.ones(3), f"{modality}_mask_token": torch.ones(1, 3)}
    made = net_of(lean, modality).state_dict()
    assert made.keys() == state.keys()
    for key, tensor in state.items():
        torch.testing.assert_close(made[key], tensor, rtol=0, atol=0)


def test_another_networks_state_is_an_error() -> None:
    with pytest.raises(ValueError, match="not the state dict of a ONE-PEACE with a branch for audio"):
        Config.of({"visual.conv1.weight": torch.zeros(1)}, "audio")
    with pytest.raises(ValueError, match="not the state dict of ONE-PEACE's video tower"):
        one_peace_video.Config.of({"visual.conv1.weight": torch.zeros(1)})
    state = small("text").state_dict()
    with pytest.raises(BadCheckpoint, match=r"missing: encoder_wrapper\.fusion_model\.layers\.0\.gamma_1"):
        net_of({key: tensor for key, tensor in state.items() if not key.endswith("0.gamma_1")}, "text")
    with pytest.raises(BadCheckpoint, match=r"not wanted: encoder_wrapper\.more"):
        net_of(state | {"encoder_wrapper.more": torch.zeros(1)}, "text")
    state["encoder_wrapper.text_adapter.rp_bucket"][3, 4] = 34
    with pytest.raises(ValueError, match=r"rp_bucket holds 0 \.\. 34 for a table of 34 rows"):
        branch(state, "text")


def test_padding_of_texts_changes_nothing() -> None:
    net = small("text")
    tokens = torch.tensor([[5, 6, 2], [7, 8, 2]])
    padded = torch.tensor([[5, 6, 2, 1, 1, 1, 1], [7, 8, 2, 1, 1, 1, 1], [4, 5, 6, 7, 8, 9, 2]])
    torch.testing.assert_close(net(padded)[:2], net(tokens))
    torch.testing.assert_close(net(padded.flip(0)), net(padded).flip(0))


def test_attention_equals_the_slow_definition() -> None:
    net = small("text")
    layer = net.get_submodule("encoder_wrapper.fusion_model.layers.0")
    attention = layer.self_attn
    assert isinstance(attention, nn.Module)
    x = torch.randn(1, 5, 32, generator=torch.Generator().manual_seed(0), dtype=torch.float32)
    bias = torch.randn(1, 2, 5, 5, generator=torch.Generator().manual_seed(1))
    state = attention.state_dict()
    q = x[0] @ state["q_proj.weight"].T + state["q_proj.bias"]
    k, v = x[0] @ state["k_proj.weight"].T, x[0] @ state["v_proj.weight"].T + state["v_proj.bias"]
    joined = torch.empty(5, 32)
    for head in (0, 1):
        own = slice(16 * head, 16 * head + 16)
        for i in range(5):
            weights = torch.softmax(torch.stack([q[i, own] @ k[j, own] / 4 + bias[0, head, i, j] for j in range(5)]), 0)
            joined[i, own] = (weights[:, None] * v[:, own]).sum(0)
    joined = (joined - joined.mean(1, keepdim=True)) / (joined.var(1, correction=0, keepdim=True) + 1e-5).sqrt()
    joined = joined * state["ln.weight"] + state["ln.bias"]
    want = joined @ state["out_proj.weight"].T + state["out_proj.bias"]
    torch.testing.assert_close(attention(x, bias)[0], want, rtol=1e-4, atol=1e-5)


def test_pictures_of_another_size_stretch_the_places() -> None:
    net = small("image", side=2)
    images = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    assert net(images).shape == (1, 12)
    places = net.get_parameter("encoder_wrapper.image_adapter.pos_embed")
    assert places.shape == (5, 32)
    got = one_peace_layers.stretched(places, 4)
    torch.testing.assert_close(got[0], places[0], rtol=0, atol=0)
    # Twice the size: a corner lies nearest to the old corner, and all four sides are one another's mirror.
    mirrored = one_peace_layers.stretched(torch.cat([places[:1], places[1:].flip(0)]), 4)
    torch.testing.assert_close(mirrored[1:].flip(0), got[1:])
    with pytest.raises(ValueError, match="at most 17 tokens, got 37"):
        net(torch.zeros(1, 3, 96, 96))


def test_too_long_texts_raise() -> None:
    assert small("text")(torch.full((1, 29), 5)).shape == (1, 12)
    with pytest.raises(ValueError, match="positions for 29 tokens of a text, got 30"):
        small("text")(torch.full((1, 30), 5))


def test_video_tower_couples_the_frames_of_a_clip_alone() -> None:
    net = drawn(VideoTower(one_peace_video.Config(**SMALL, adapter=8, frames=3, side=4)))
    assert isinstance(net, VideoTower)
    clips = torch.randn(2, 3, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    made = net(clips)
    torch.testing.assert_close(net(clips[1:])[0], made[1])
    torch.testing.assert_close(net(clips.flip(0)), made.flip(0))
    # Time goes forward: the frames are told apart by where they are.
    assert (net(clips.flip(1)) - made).abs().max() > 1e-3
    with pytest.raises(ValueError, match="clips of 3 frames, got 2"):
        net(clips[:, :2])
    with pytest.raises(ValueError, match="takes 64 x 64 pixels, got"):
        net(torch.zeros(1, 3, 3, 32, 32))


@pytest.mark.parametrize("modality", ["text", "audio", "video"])
def test_reduced_precision_stays_near(modality: str) -> None:
    net: nn.Module
    if modality == "video":
        net = drawn(VideoTower(one_peace_video.Config(**SMALL, adapter=8, frames=3, side=4)))
        x = torch.randn(2, 3, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    elif modality == "text":
        net, x = small("text"), torch.tensor([[5, 6, 7, 8, 2], [9, 2, 1, 1, 1]])
    else:
        net, x = small("audio"), torch.randn(2, 16000, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        whole = net(x)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            reduced = net(x)
    assert torch.cosine_similarity(whole, reduced.float()).min() > 0.999
    assert (whole - reduced).abs().max() > 0  # it was reduced
