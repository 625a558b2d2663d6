"""ONE-PEACE as UniAV, CCNet and LoCo take it on UnAV-100: 1536 numbers for pictures and for sound, four times a second.

`onepeace-unav`: windows of 1 s every 0.25 s, whole ones only, so T = floor((16 d - 16) / 4) + 1 for d seconds.

Pictures: 16 frames a window, through the tower fine-tuned on Kinetics-400; the mean over the frames of their class
tokens, which is what its classifier is given. Frames are those on screen in the middle of each sixteenth of a second,
which is what ffmpeg's `fps=16` filter (it rounds to the nearest) makes of a film; a slot before the first picture is
given the first. The published transform: short side to 256 by OpenCV's bilinear filter (two neighbours an axis,
whatever the scale, hence `bilinear_tensor`; to whole numbers), the centre 256, the published mean and deviation. The
decoder leaves frames whole, because the published centre begins at a place rounded down, and the decoder's own not.
(The published code rounds the long side to the nearest, the decoder down: a quarter of a per cent here and there.)

Sound: one channel at 16 kHz by librosa (soxr_hq). A window is treated as the published code treats a file: minus its
mean, divided by its deviation, and repeated to a second where it is shorter. What is missing at either end is no part
of it; what is missing in between is 0. (The published code may have normalised whole files before windows were cut:
UniAV does not tell. A window's feature here hangs on the window alone.)

Settings:
    audio_feature: "unit" (default): projected into the space shared with text, and of length 1; "projected": the same
        without the last step; "class_token": the transformer's class token after its norm, before `audio_proj`.
        UniAV does not tell which it took. "unit" is what `extract_audio_features` of the published interface gives, and
        the text features that UniAV publishes are unit vectors, as that interface's are.
    size: "published", or "from-weights": depth and widths are read from the checkpoints (small ones for tests).

Work shared by windows that overlap: each distinct frame becomes patches once (a quarter of the patch work at this
stride, which is 2.6 of about 1,070 GFLOP a frame); windows of the very same frames, as where a picture stands still,
are encoded once. No more is exact: from the first layer on a frame's tokens hang on its place in the window and on the
window's other frames. Sounds share nothing: each window has its own mean and deviation, the norms behind the
convolutions are not indifferent to a shift, and the stride of 4,000 samples is 12.5 of the convolutions' 320.

Text: the text branch, unit vectors in the space of "unit" sounds (not of the video tower's pictures, which
fine-tuning for classes has led elsewhere). UniAV's prompt is "An audio visual event of {}.".

The video tower takes about 68 TFLOP for each second of film: it is meant for a GPU. bfloat16 against float32 (two
layers of the published width, seeded weights): cosine 0.99997 for a clip of four frames, 0.99995 for sound and text.

Source: Wang et al., ONE-PEACE, 2023 (arXiv 2305.11172); Geng et al., UniAV, 2024 (arXiv 2404.03179), README.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from catalog.grid import GridRule
from catalog.recipe import AudioSampling, Recipe, VideoSampling
from catalog.store.modal import Features, Modal
from pipeline.clips import Clips
from pipeline.decode.frames import centre, first_held
from pipeline.encoder import EncoderSpec, Shapes
from pipeline.preprocess import spectrogram
from pipeline.weights.asset import Asset

if TYPE_CHECKING:
    from torch import Tensor

    from pipeline.networks.one_peace import Config, OnePeace
    from pipeline.networks.one_peace_video import VideoTower

# Of Kinetics-400's transform, in units of 1/255.
MEAN, DEVIATION = (122.771, 116.746, 104.094), (68.5, 66.632, 70.323)
RATE_HZ = 16000
LONGEST_S = 15  # of a sound
AUDIO_FEATURES = ("unit", "projected", "class_token")
BATCH_FRAMES, BATCH_WINDOWS, BATCH_SOUNDS, BATCH_TEXTS = 32, 4, 32, 64

# A modality's features of some clips, NaN where there are none, and which rows are valid.
Rows = tuple[NDArray[np.float32] | None, NDArray[np.bool_]]

_CITATION = "Wang et al., ONE-PEACE: Exploring One General Representation Model Toward Unlimited Modalities, 2023"
_FILES = "https://one-peace-shanghai.oss-accelerate.aliyuncs.com"
_WORDS = "https://github.com/OFA-Sys/ONE-PEACE/raw/main/one_peace/utils/BPE"

SPEC = EncoderSpec(
    name="one_peace",
    visual_shape=(1536,),
    audio_shape=(1536,),
    text_width=1536,
    assets=(
        Asset(
            name="one_peace_k400",
            filename="onepeace_video_k400.pth",
            url=f"{_FILES}/one_peace_checkpoints/onepeace_video_k400.pth",
            licence="Apache-2.0",
            citation=_CITATION,
        ),
        Asset(
            name="one_peace",
            filename="one-peace.pt",
            url=f"{_FILES}/one-peace.pt",
            licence="Apache-2.0",
            citation=_CITATION,
        ),
        Asset(
            name="bpe_encoder",
            filename="encoder.json",
            url=f"{_WORDS}/encoder.json",
            bytes=1042301,
            sha256="196139668be63f3b5d6574427317ae82f612a97c5d1cdaf36ed2256dbf636783",
            licence="MIT (GPT-2)",
            citation=_CITATION,
            use="text",
        ),
        Asset(
            name="bpe_merges",
            filename="vocab.bpe",
            url=f"{_WORDS}/vocab.bpe",
            bytes=456318,
            sha256="1ce1664773c50f3e0cc8842619a93edc4624525b728b188a9e0be33b7726adc5",
            licence="MIT (GPT-2)",
            citation=_CITATION,
            use="text",
        ),
        Asset(
            name="bpe_dictionary",
            filename="dict.txt",
            url=f"{_WORDS}/dict.txt",
            bytes=603290,
            sha256="2c31c5b236661067fe8626775eb995ef5fe808ac87d2ad4a6ddbef68550f5cc6",
            licence="Apache-2.0",
            citation=_CITATION,
            use="text",
        ),
    ),
    licence="Apache-2.0",
    citation=_CITATION,
    batch_segments=16,
    device="gpu",
)

PRESETS = (
    Recipe(
        name="onepeace-unav",
        encoder="one_peace",
        grid=GridRule(window_s=Fraction(1), hop_s=Fraction(1, 4), tail="drop"),
        video=VideoSampling(
            frames_per_segment=16, height_px=256, width_px=256, fit="whole", interpolation="bilinear_tensor"
        ),
        audio=AudioSampling(rate_hz=RATE_HZ, resampler="soxr_hq"),
        settings={"audio_feature": "unit", "size": "published"},
    ),
)


@dataclass(frozen=True, kw_only=True)
class OnePeaceParts:
    """What a recipe uses."""

    recipe: Recipe
    device: str
    video: VideoTower | None
    sound: OnePeace | None


def shapes(recipe: Recipe, weights: Mapping[str, Path]) -> Shapes:
    """Of one segment's features."""
    visual, audio = SPEC.visual_shape, SPEC.audio_shape
    if recipe.settings.get("size") == "from-weights":
        from pipeline.encoders.one_peace.checkpoint import branch_config, video_config

        if recipe.video is not None and "one_peace_k400" in weights:
            visual = (video_config(weights["one_peace_k400"]).width,)
        if recipe.audio is not None and "one_peace" in weights:
            audio = (_width(recipe, branch_config(weights["one_peace"], "audio")),)
    return visual, audio


def check(recipe: Recipe) -> None:
    """Refuse settings that cannot be.

    Raises:
        ValueError: names the setting, what it needs and what came.
    """
    where = f"recipe {recipe.name}:"
    for key, allowed in (("audio_feature", AUDIO_FEATURES), ("size", ("published", "from-weights"))):
        if recipe.settings.get(key) not in allowed:
            raise ValueError(f"{where} settings.{key} needs {' or '.join(allowed)}, got {recipe.settings.get(key)!r}")
    if recipe.audio is not None:
        if recipe.audio.rate_hz != RATE_HZ:
            raise ValueError(f"{where} ONE-PEACE hears {RATE_HZ} Hz, got {recipe.audio.rate_hz}")
        if recipe.audio.context_s:
            raise ValueError(f"{where} ONE-PEACE hears windows without context; leave audio.context_s at 0")
        if recipe.grid.window_s > LONGEST_S:
            raise ValueError(
                f"{where} ONE-PEACE hears {LONGEST_S} s at most, got windows of {float(recipe.grid.window_s):g} s"
            )
    if recipe.video is None:
        return
    size = (recipe.video.height_px, recipe.video.width_px)
    if recipe.settings["size"] == "published" and size != (256, 256):
        raise ValueError(f"{where} ONE-PEACE sees 256 x 256 pictures, got {size[0]} x {size[1]}")
    if recipe.video.fit == "three_crops":
        raise ValueError(f"{where} ONE-PEACE sees the centre; video.fit needs whole, crop or stretch, got three_crops")
    if recipe.video.frames_after:
        raise ValueError(f"{where} ONE-PEACE sees its window alone; leave video.frames_after at 0")
    if recipe.video.clip_s is not None:
        raise ValueError(f"{where} ONE-PEACE's frames are evenly spaced; leave video.clip_s out")


def load(weights: Mapping[str, Path], device: str, recipe: Recipe) -> OnePeaceParts:
    """The towers that `recipe` asks for, frozen.

    Raises:
        BadCheckpoint: a file is damaged or not ONE-PEACE's.
        ValueError: sizes other than the published, or frames other than the video tower's in number or size.
    """
    from pipeline.encoders.one_peace.checkpoint import read_branch, read_video

    return OnePeaceParts(
        recipe=recipe,
        device=device,
        video=None if recipe.video is None else read_video(weights["one_peace_k400"], device, recipe),
        sound=None if recipe.audio is None else read_branch(weights["one_peace"], "audio", device, recipe),
    )


def encode(net: OnePeaceParts, clips: Sequence[Clips]) -> list[Features]:
    """Features of each of `clips`: pictures together, sounds together."""
    seen = _watch(net, net.video, clips) if net.video is not None else [_nothing(item) for item in clips]
    heard = _hear(net, net.sound, clips) if net.sound is not None else [_nothing(item) for item in clips]
    return [
        Features(visual=Modal.of(visual, visual_S), audio=Modal.of(audio, audio_S))
        for (visual, visual_S), (audio, audio_S) in zip(seen, heard, strict=True)
    ]


def load_text(weights: Mapping[str, Path], device: str, recipe: Recipe) -> Any:
    """Tokenizer and text branch, frozen.

    Raises:
        BadCheckpoint, ValueError: as `load`; or a file is not GPT-2's vocabulary or fairseq's dictionary of it.
    """
    from pipeline.encoders.one_peace.checkpoint import read_branch
    from pipeline.preprocess.tokenizers import GptTokeniser

    tokenise = GptTokeniser(weights["bpe_encoder"], weights["bpe_merges"], weights["bpe_dictionary"])
    return tokenise, read_branch(weights["one_peace"], "text", device, recipe), device, recipe.precision


def encode_text(net: Any, texts: Sequence[str]) -> NDArray[np.float32]:
    """(K, 1536) float32 unit vectors; of a text the first 70 tokens count."""
    import torch

    from pipeline.networks.inference import arithmetic

    tokenise, tower, device, precision = net
    made = []
    for low in range(0, len(texts), BATCH_TEXTS):
        tokens = torch.from_numpy(tokenise(texts[low : low + BATCH_TEXTS])).to(device)
        with arithmetic(device, precision):
            made.append(tower(tokens).float().cpu().numpy())
    return np.concatenate(made).astype(np.float32)


def normalised(frames_BHWC: Tensor) -> Tensor:
    """RGB in units of 1/255, (B, H, W, 3), to float32 (B, 3, H, W) as the video tower was trained on: rounded to whole
    numbers, as OpenCV's resizing gives them, minus Kinetics' mean, by its deviation.
    """
    import torch

    mean, deviation = (torch.tensor(values, device=frames_BHWC.device) for values in (MEAN, DEVIATION))
    return ((frames_BHWC.float().round() - mean) / deviation).permute(0, 3, 1, 2)


def sound_input(samples_N: NDArray[np.float32]) -> NDArray[np.float32]:
    """What the sound branch hears of a file or window: mean 0, variance 1; repeated to 1 s where it is shorter.

    Args:
        samples_N: mono at 16 kHz, at least one and at most 15 s of them (more are left out, after the mean is taken).

    Returns:
        float32 of 16,000 to 240,000 samples.
    """
    exact_N = samples_N.astype(np.float64)
    heard_N = ((exact_N - exact_N.mean()) / np.sqrt(exact_N.var() + 1e-5))[: LONGEST_S * RATE_HZ]
    if heard_N.size < RATE_HZ:
        heard_N = np.tile(heard_N, -(-RATE_HZ // heard_N.size))[:RATE_HZ]
    return np.asarray(heard_N, np.float32)


def _width(recipe: Recipe, config: Config) -> int:
    """Of a sound's feature."""
    assert config.embedding is not None
    return config.width if recipe.settings["audio_feature"] == "class_token" else config.embedding


def _nothing(clips: Clips) -> Rows:
    return None, np.zeros(clips.count, np.bool_)


def _watch(net: OnePeaceParts, tower: VideoTower, clips: Sequence[Clips]) -> list[Rows]:
    """A window is encoded once, however many segments it is; a frame becomes patches once, however many windows."""
    import torch

    rows = [np.full((item.count, tower.config.width), np.nan, np.float32) for item in clips]
    valid = [np.asarray((item.frame_index_SP >= 0).any(axis=1)) for item in clips]
    frames, windows, places = [], [], []  # places: of an item's valid rows among the windows of all
    num_frames = num_windows = 0
    for item, valid_S in zip(clips, valid, strict=True):
        if not valid_S.any():
            places.append(np.empty(0, np.intp))
            continue
        distinct_KP, place_S = np.unique(first_held(item.frame_index_SP[valid_S]), axis=0, return_inverse=True)
        used, own = np.unique(distinct_KP, return_inverse=True)
        frames.append(centre(item.frames_FHWC[used], tower.config.side_px))
        windows.append(own.reshape(distinct_KP.shape) + num_frames)
        places.append(place_S.reshape(-1) + num_windows)
        num_frames += used.size
        num_windows += len(distinct_KP)
    if windows:
        frames_FHWC, windows_KT = np.concatenate(frames), torch.from_numpy(np.concatenate(windows)).to(net.device)
        stems = [_stem(net, tower, frames_FHWC[low : low + BATCH_FRAMES]) for low in range(0, num_frames, BATCH_FRAMES)]
        tokens_FNC = torch.cat(stems)
        made_KC = np.concatenate(
            [
                _see(net, tower, tokens_FNC, windows_KT[low : low + BATCH_WINDOWS])
                for low in range(0, num_windows, BATCH_WINDOWS)
            ]
        )
        for row, valid_S, place in zip(rows, valid, places, strict=True):
            row[valid_S] = made_KC[place]
    return list(zip(rows, valid, strict=True))


def _stem(net: OnePeaceParts, tower: VideoTower, frames_FHWC: NDArray[np.uint8 | np.float32]) -> Tensor:
    import torch

    from pipeline.networks.inference import arithmetic

    with arithmetic(net.device, net.recipe.precision):
        return tower.stem(normalised(torch.from_numpy(np.ascontiguousarray(frames_FHWC)).to(net.device)))


def _see(net: OnePeaceParts, tower: VideoTower, tokens_FNC: Tensor, windows_BT: Tensor) -> NDArray[np.float32]:
    from pipeline.networks.inference import arithmetic

    with arithmetic(net.device, net.recipe.precision):
        features_BC = tower.class_tokens(tokens_FNC[windows_BT]).float().mean(dim=1)
    made: NDArray[np.float32] = features_BC.cpu().numpy()
    return made


def _hear(net: OnePeaceParts, branch: OnePeace, clips: Sequence[Clips]) -> list[Rows]:
    """Sounds of one length together: padding one to another's would run through the convolutions into it."""
    assert net.recipe.audio is not None
    width = _width(net.recipe, branch.config)
    rows = [np.full((item.count, width), np.nan, np.float32) for item in clips]
    valid = [np.zeros(item.count, np.bool_) for item in clips]
    # By length: (number of the clips, row, samples).
    alike: dict[int, list[tuple[int, int, NDArray[np.float32]]]] = defaultdict(list)
    for number, item in enumerate(clips):
        if not item.samples_N.size:
            continue
        valid[number] = spectrogram.coverage(item, net.recipe.audio.min_coverage)
        samples_SN, real_SN = spectrogram.windows(item)
        for row in np.flatnonzero(valid[number]).tolist():
            real = np.flatnonzero(real_SN[row])
            heard_N = sound_input(samples_SN[row, real[0] : real[-1] + 1])
            alike[heard_N.size].append((number, row, heard_N))
    for _, places in sorted(alike.items()):
        for low in range(0, len(places), BATCH_SOUNDS):
            here = places[low : low + BATCH_SOUNDS]
            made = _listen(net, branch, np.stack([heard_N for _, _, heard_N in here]))
            for (number, row, _), feature in zip(here, made, strict=True):
                rows[number][row] = feature
    return list(zip(rows, valid, strict=True))


def _listen(net: OnePeaceParts, branch: OnePeace, samples_BL: NDArray[np.float32]) -> NDArray[np.float32]:
    import torch

    from pipeline.networks.inference import arithmetic

    kind = net.recipe.settings["audio_feature"]
    with arithmetic(net.device, net.recipe.precision):
        x_BL = torch.from_numpy(samples_BL).to(net.device)
        if kind == "unit":
            made = branch(x_BL)
        else:
            made = branch.tokens(x_BL)[:, 0]
            made = branch.project(made) if kind == "projected" else made
    features: NDArray[np.float32] = made.float().cpu().numpy()
    return features
