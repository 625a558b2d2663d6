"""Checkpoint folders of the transformers library, read without the network and without running anything in them.

Tensors come from safetensors files alone (a pickled `pytorch_model.bin` is not opened), code named in a configuration
(`auto_map`) is not looked at, and the model type must be the one asked for.
"""

from __future__ import annotations

import contextlib
import json
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.networks.checkpoint import BadCheckpoint

if TYPE_CHECKING:
    from torch import Tensor

CONFIG = "config.json"
_MAX_BYTES = 16 * 2**20


def read_config(folder: Path, model_type: str) -> dict[str, Any]:
    """The folder's `config.json`.

    Raises:
        BadCheckpoint: it is missing, damaged or of another model type.
    """
    config = read_json(folder, CONFIG)
    if config.get("model_type") != model_type:
        raise BadCheckpoint(
            f"{folder}: needs a checkpoint folder of model type {model_type!r}, got {str(config.get('model_type'))!r}"
        )
    return config


def read_json(folder: Path, name: str) -> dict[str, Any]:
    """A JSON object of the folder.

    Raises:
        BadCheckpoint: it is missing, too large or damaged.
    """
    path = folder / name
    if not path.is_file():
        raise BadCheckpoint(f"{folder}: needs a checkpoint folder of the transformers library; {name} is missing")
    if path.stat().st_size > _MAX_BYTES:
        raise BadCheckpoint(f"{path}: larger than any such file")
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise BadCheckpoint(f"{path}: damaged JSON ({error})") from error
    if not isinstance(value, dict):
        raise BadCheckpoint(f"{path}: needs a JSON object, got {type(value).__name__}")
    return value


def whole_number(config: object, name: str, default: int, folder: Path) -> int:
    """A size that a configuration states, or the library's `default`.

    Raises:
        BadCheckpoint: it is no whole number above 0.
    """
    value = config.get(name, default) if isinstance(config, dict) else None
    if type(value) is not int or value < 1:
        raise BadCheckpoint(f"{folder}/config.json: {name} needs a whole number above 0, got {str(value)[:80]!r}")
    return value


def load_part(kind: str, folder: Path) -> Any:
    """An object of the transformers library, such as a model or a tokenizer, from the folder's own files.

    Args:
        kind: the name of its class.

    Raises:
        BadCheckpoint: files are missing, damaged or of another network.
    """
    import transformers

    options: dict[str, Any] = {"local_files_only": True}
    if kind.startswith("Auto"):  # the default asks on the terminal whether code of the folder may run
        options["trust_remote_code"] = False
    is_model = hasattr(getattr(transformers, kind), "get_parameter")
    if is_model:
        _tensor_files(folder)
        options |= {"use_safetensors": True, "output_loading_info": True, "dtype": "float32"}
    with _quiet():
        try:
            made = getattr(transformers, kind).from_pretrained(str(folder), **options)
        except (MemoryError, KeyboardInterrupt):
            raise
        except Exception as error:  # what the library raises on damage differs from file to file
            text = str(error).strip().splitlines()
            raise BadCheckpoint(f"{folder}: {kind} cannot be read ({text[0][:200] if text else error!r})") from error
    if not is_model:
        return made
    model, found = made
    missing = sorted(found.get("missing_keys", ()))
    wrong = sorted(str(key) for key in found.get("mismatched_keys", ()))
    if missing or wrong:
        raise BadCheckpoint(
            f"{folder}: not the weights of this configuration; "
            f"missing {', '.join(missing[:4]) or 'none'}, of another shape {', '.join(wrong[:4]) or 'none'}"
        )
    return model


def read_tensors(folder: Path, prefixes: Sequence[str]) -> dict[str, Tensor]:
    """The tensors of the folder's safetensors files whose keys begin with one of `prefixes`; no others are read.

    Raises:
        BadCheckpoint: there is no such file, or one is damaged or truncated.
    """
    from safetensors import SafetensorError, safe_open

    state: dict[str, Tensor] = {}
    for path in _tensor_files(folder):
        try:
            with safe_open(path, framework="pt") as file:
                state |= {key: file.get_tensor(key) for key in file.keys() if key.startswith(tuple(prefixes))}  # noqa: SIM118 not a mapping
        except (SafetensorError, ValueError, KeyError) as error:
            raise BadCheckpoint(f"{path}: damaged or truncated safetensors file ({str(error)[:200]})") from error
    return state


def _tensor_files(folder: Path) -> list[Path]:
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise BadCheckpoint(f"{folder}: no safetensors file in it; pickled weights are not opened")
    return files


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """The library's advice and progress bars are not for our users' terminals."""
    import transformers

    library: Any = transformers.utils.logging

    level = library.get_verbosity()
    library.set_verbosity_error()
    library.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        library.set_verbosity(level)
        library.enable_progress_bar()
