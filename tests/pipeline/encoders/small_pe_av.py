"""A tiny random PE-AV: the transformers library's own model, and the checkpoint folder that it would be read from.

The library builds its image tower through timm, which is not needed here: the model gets our tower in its place (its
numbers are checked against timm's in tests/pipeline/networks), and the folder is written as the library writes one.
"""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
import transformers
from safetensors.torch import save_file
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from torch import Tensor, nn

from pipeline.networks.pe_core import Config, PeCore, architecture_of

TOWER = {
    "architecture": "vit_pe_core_large_patch14_336",
    "model_args": {"num_heads": 2, "embed_dim": 32, "img_size": 56},
}
BODY = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "head_dim": 16,
}
TEXT = {
    "model_type": "modernbert",
    "hidden_size": 24,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "vocab_size": 8,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "cls_token_id": 1,
    "sep_token_id": 2,
}
MEAN, DEVIATION = [0.5, 0.4, 0.3], [0.5, 0.3, 0.4]
LOOKS = {
    "video_processor_type": "PeVideoVideoProcessor",
    "do_sample_frames": False,
    "num_frames": None,
    "size": {"height": 56, "width": 56},
    "do_normalize": True,
    "do_resize": True,
    "do_rescale": True,
    "resample": 2,
    "rescale_factor": 1 / 255,
    "image_mean": MEAN,
    "image_std": DEVIATION,
}
# Stored once in a folder; in the model the right one is the left one.
TIED = (
    "audio_model.text_model.",
    "video_model.text_model.",
    "audio_video_encoder.embedder.audio_encoder.",
    "audio_video_encoder.embedder.video_encoder.",
)


class Tower(nn.Module):
    """As the library wraps timm's."""

    def __init__(self) -> None:
        super().__init__()
        architecture = architecture_of("vit_pe_core_large_patch14_336", {"num_heads": 2})
        config = Config(
            width=32, layers=2, hidden=64, pool_hidden=64, side_px=56, features=20, architecture=architecture
        )
        self.timm_model = PeCore(config)

    def forward(self, images: Tensor) -> SimpleNamespace:
        return SimpleNamespace(logits=self.timm_model(images))


def small_model() -> Any:
    """The library's `PeAudioVideoModel`, with random weights of a size at which all of them matter."""
    stand_in = transformers.ViTConfig(hidden_size=4, num_hidden_layers=0, num_attention_heads=1)
    stand_in.num_labels = 20
    codec = {"model_type": "dac", "encoder_hidden_size": 4, "codebook_dim": 12}
    config = transformers.PeAudioVideoConfig(
        text_config=TEXT,
        audio_video_config={
            **BODY,
            "audio_config": {**BODY, "dac_config": codec},
            "video_config": {**BODY, "vision_config": stand_in},
        },
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model: Any = transformers.PeAudioVideoModel(config)
        tower = Tower()
        model.video_model.video_encoder.embedder.vision_model = tower
        model.audio_video_encoder.embedder.video_encoder.embedder.vision_model = tower
        for name, parameter in model.named_parameters():
            parameter.data.normal_(std=0.1)
            if "norm" in name and name.endswith("weight"):
                parameter.data.add_(1)
    return model.eval()


def write_small(model: Any, folder: Path) -> Path:
    """The folder of `model`, processors and tokenizer included."""
    folder.mkdir(parents=True, exist_ok=True)
    config = model.config.to_dict()
    config["audio_video_config"]["video_config"]["vision_config"] = {"model_type": "timm_wrapper", **TOWER}
    (folder / "config.json").write_text(json.dumps(config, default=str), encoding="utf-8")
    state = {key: value.contiguous() for key, value in model.state_dict().items() if not key.startswith(TIED)}
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    transformers.PeAudioFeatureExtractor().save_pretrained(folder)
    (folder / "video_preprocessor_config.json").write_text(json.dumps(LOOKS), encoding="utf-8")
    words = ["[PAD]", "[CLS]", "[SEP]", "[UNK]", "dog", "barks", "loudly", "rain"]
    tokenizer = Tokenizer(models.WordLevel({word: number for number, word in enumerate(words)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 1), ("[SEP]", 2)]
    )
    fast_kind: Any = transformers.PreTrainedTokenizerFast  # has no types
    fast = fast_kind(tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]")
    fast.save_pretrained(folder)
    return folder
