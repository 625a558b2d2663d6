"""Untrusted checkpoints: tensors out of a file without running anything in it, and strictly into a network.

A checkpoint is data from outside. `torch.load` runs with `weights_only=True` alone, so a pickle that names code is
refused before it acts; keys, shapes and finiteness are checked before a network gets them.
"""

from __future__ import annotations

import contextlib
import logging
import re
import warnings
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextvars import ContextVar
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from catalog.errors import AvelError

# Under these names files wrap their state dict, beside an optimiser's state and the like; the first there is counts.
WRAPPERS = ("state_dict", "model", "model_state_dict", "module")
# What trainers put before every key: DataParallel, torch.compile, Lightning modules.
_TRAINERS = ("module.", "_orig_mod.", "model.")
_MAX_NESTING = 4
_SHOWN = 4
_log = logging.getLogger("avel")
_SHAPES_ONLY = ContextVar("_SHAPES_ONLY", default=False)

Sizes = TypeVar("Sizes")
Net = TypeVar("Net", bound=nn.Module)


class BadCheckpoint(AvelError, ValueError):
    """A checkpoint cannot be read, or is not what the encoder needs."""


# What numpy's arrays within a PyTorch file name, by its older and newer modules: they build arrays and nothing else.
_EMPTY_ARRAY = np.zeros(0).__reduce__()[0]
_NUMBER = np.float64(0).__reduce__()[0]
_ARRAY_PARTS: list[Any] = [
    (_EMPTY_ARRAY, "numpy.core.multiarray._reconstruct"),
    (_EMPTY_ARRAY, "numpy._core.multiarray._reconstruct"),
    np.ndarray,
    np.dtype,
    np.dtypes.Float32DType,
    np.dtypes.Float64DType,
    np.dtypes.Int64DType,
    # Single numbers beside the weights: a best accuracy, an epoch.
    (_NUMBER, "numpy.core.multiarray.scalar"),
    (_NUMBER, "numpy._core.multiarray.scalar"),
]


@contextlib.contextmanager
def shapes_only() -> Iterator[None]:
    """Within it `read_state` gives tensors without numbers, on the meta device, and `fill` asks for none.

    So a file is checked against a network by names and shapes, without reading its numbers.
    """
    token = _SHAPES_ONLY.set(True)
    try:
        yield
    finally:
        _SHAPES_ONLY.reset(token)


def read_state(path: Path, *, prefix: str = "") -> dict[str, Tensor]:
    """The tensors of a checkpoint file, by published key, on the CPU and mapped from the file where its form allows.

    A state dict within others is found where only one can be meant, and what trainers put before every key is taken
    off; both are logged.

    Args:
        path: PyTorch (zip or the older form) or safetensors, by content, not by name. Arrays of numpy count as tensors
            (VGGish's PCA was published so).
        prefix: what every published key begins with, where that is a trainer's ("module." of RAFT's).

    Raises:
        BadCheckpoint: not such a file, damaged, truncated, holding objects other than tensors, or wanting to run code.
        OSError: it cannot be opened.
    """
    with path.open("rb") as file:
        head = file.read(16)
    if not head:
        raise BadCheckpoint(f"{path}: the file is empty; fetch or copy it again")
    if _is_safetensors(head):
        return _published_keys(_read_safetensors(path), path, prefix)
    is_zip = head.startswith(b"PK")
    try:
        if is_zip:
            _check_stored(path)
        with torch.serialization.safe_globals(_ARRAY_PARTS), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of a foreign pickle's protocol; whether it is refused is decided below
            device = "meta" if _SHAPES_ONLY.get() else "cpu"
            held = torch.load(path, map_location=device, weights_only=True, mmap=is_zip)
    except (MemoryError, OSError):
        raise
    except Exception as error:  # what torch raises on damage differs from byte to byte
        if type(error).__name__ != "UnpicklingError":
            raise BadCheckpoint(
                f"{path}: damaged or truncated, or no PyTorch file ({path.stat().st_size} bytes; "
                f"{_first_line(error)}); fetch or copy it again"
            ) from error
        raise BadCheckpoint(
            f"{path}: refused, nothing of it was run: it is damaged or holds more than tensors{_code_named(error)}. "
            "A published checkpoint loads without this; check where the file came from"
        ) from error
    return _published_keys(_tensors(held, path), path, prefix)


def fill(
    module: nn.Module,
    state: Mapping[str, Tensor],
    *,
    where: str,
    prefix: str = "",
    ignore: Sequence[str] = (),
    optional: Sequence[str] = (),
    infinite: Sequence[str] = (),
) -> None:
    """Gives a network its parameters and buffers, strictly.

    Args:
        module: may be on the meta device; it gets float32 copies of half-precision tensors and the others as they are.
        state: published key -> tensor.
        where: file and network, for messages: "imagebind_huge.pth, vision tower".
        prefix: of the module's own keys in the file.
        ignore: prefixes of keys that belong to parts not wanted here.
        optional: endings of keys that the file may lack, such as "num_batches_tracked".
        infinite: endings of keys that may hold infinity, such as an attention's mask.

    Raises:
        BadCheckpoint: a key is missing, unknown, of another shape or dtype, or holds NaN or infinity.
    """
    wanted = module.state_dict()
    missing, wrong, given = [], [], dict[str, Tensor]()
    for key, like in wanted.items():
        tensor = state.get(prefix + key)
        if tensor is None:
            if key.endswith(tuple(optional)) and optional:
                given[key] = torch.zeros(like.shape, dtype=like.dtype)
            else:
                missing.append(prefix + key)
        elif tensor.shape != like.shape or tensor.is_floating_point() != like.is_floating_point():
            wrong.append(f"{prefix}{key} {_shape(tensor)} for {_shape(like)}")
        else:
            given[key] = tensor.to(like.dtype)
    known = {prefix + key for key in wanted}
    unknown = [key for key in state if key not in known and not (ignore and key.startswith(tuple(ignore)))]
    faults = [
        f"{what}: {_some(keys)}"
        for what, keys in (("missing", missing), ("of another shape", wrong), ("not wanted", unknown))
        if keys
    ]
    if faults:
        raise BadCheckpoint(f"{where}: not the checkpoint of this network; {'; '.join(faults)}")
    for key, tensor in given.items():
        may_be_infinite = bool(infinite) and key.endswith(tuple(infinite))
        if tensor.is_floating_point() and not may_be_infinite and not _is_finite(tensor):
            raise BadCheckpoint(f"{where}: {prefix}{key} holds NaN or infinity; fetch or copy the file again")
    module.load_state_dict(given, assign=True)


def build(
    make: Callable[[], Net],
    state: Mapping[str, Tensor],
    *,
    where: str,
    ignore: Sequence[str] = (),
    optional: Sequence[str] = (),
    infinite: Sequence[str] = (),
) -> Net:
    """The network that `make` gives under the meta device, with its tensors; see `fill`."""
    with torch.device("meta"):
        network = make()
    fill(network, state, where=where, ignore=ignore, optional=optional, infinite=infinite)
    return network


def need_published(got: Sizes, published: Sizes, *, size: str, where: str) -> None:
    """Refuse a checkpoint of other sizes than the published, unless the setting `size` is "from-weights".

    Raises:
        ValueError: names both sizes.
    """
    if size == "published" and got != published:
        raise ValueError(
            f"{where}: needs the published sizes {published}, got {got}; "
            "if that is meant, --set settings.size=from-weights"
        )


def sizes(read: Callable[[Mapping[str, Tensor]], Sizes], state: Mapping[str, Tensor], *, where: str) -> Sizes:
    """A network's sizes, as `read` (its `Config.of`) finds them in a state dict.

    Raises:
        BadCheckpoint: it is not that network's.
    """
    try:
        return read(state)
    except ValueError as error:
        raise BadCheckpoint(f"{where}: {error}") from error


def with_prefix(state: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The entries whose keys begin with `prefix`, which is cut off."""
    return {key.removeprefix(prefix): tensor for key, tensor in state.items() if key.startswith(prefix)}


def _is_safetensors(head: bytes) -> bool:
    return len(head) > 8 and head[8:9] == b"{" and int.from_bytes(head[:8], "little") < 2**28


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError, safe_open
    from safetensors.torch import load_file

    try:
        if not _SHAPES_ONLY.get():
            return load_file(path)
        with safe_open(path, framework="pt") as file:  # maps the file: what becomes of the numbers is never asked
            return {key: file.get_tensor(key).to("meta") for key in file.keys()}  # noqa: SIM118 not a mapping
    except (SafetensorError, ValueError, KeyError) as error:
        raise BadCheckpoint(f"{path}: damaged or truncated safetensors file ({_first_line(error)})") from error


def _check_stored(path: Path) -> None:
    """PyTorch stores its tensors uncompressed; a compressed entry could unfold to any size."""
    try:
        with zipfile.ZipFile(path) as archive:
            packed = [info.filename for info in archive.infolist() if info.compress_type != zipfile.ZIP_STORED]
    except (zipfile.BadZipFile, NotImplementedError) as error:
        raise ValueError(str(error)) from error
    if packed:
        raise ValueError(f"its entry {packed[0]} is compressed, which PyTorch never writes")


def _published_keys(state: dict[str, Tensor], path: Path, prefix: str) -> dict[str, Tensor]:
    """The tensors without what a trainer put before every key, and with the `prefix` that published keys have."""
    taken_off = ""
    while state and (shared := next((one for one in _TRAINERS if all(key.startswith(one) for key in state)), "")):
        state, taken_off = with_prefix(state, shared), taken_off + shared
    if taken_off not in ("", prefix):
        _log.warning("%s: every key begins with %r, as trainers write it; read without it", path, taken_off)
    return {prefix + key: tensor for key, tensor in state.items()} if prefix else state


def _unwrapped(held: object, path: Path) -> object:
    """The state dict within what trainers save beside it: optimisers, epochs, averaged copies."""
    for _ in range(_MAX_NESTING):
        if not isinstance(held, Mapping) or any(isinstance(value, Tensor) for value in held.values()):
            return held
        inner = {str(key)[:80]: value for key, value in held.items() if _holds_weights(value)}
        chosen = next((name for name in WRAPPERS if name in inner), None)
        if chosen is None and len(inner) > 1:
            raise BadCheckpoint(
                f"{path}: holds several state dicts ({_some(inner)}): save the one that is meant in a file of its own"
            )
        if not inner:
            return held
        chosen = chosen or next(iter(inner))
        if len(inner) > 1:
            others = _some(name for name in inner if name != chosen)
            _log.warning("%s: %r is read; it holds weights under %s too", path, chosen, others)
        held = inner[chosen]
    return held


def _holds_weights(value: object) -> bool:
    """A state dict, or what holds one; an optimiser's has numbered entries."""
    return isinstance(value, Mapping) and any(
        isinstance(key, str) and (isinstance(one, Tensor) or (key in WRAPPERS and isinstance(one, Mapping)))
        for key, one in value.items()
    )


def _tensors(held: object, path: Path) -> dict[str, Tensor]:
    held = _unwrapped(held, path)
    if not isinstance(held, Mapping):
        raise BadCheckpoint(f"{path}: needs a state dict (names to tensors), got {type(held).__name__}")
    state = {}
    for key, value in held.items():
        if isinstance(value, np.ndarray) and value.dtype in (np.float32, np.float64):
            value = torch.from_numpy(value)
        if not isinstance(key, str) or not isinstance(value, Tensor):
            raise BadCheckpoint(f"{path}: needs names with tensors, got {str(key)[:80]!r}: {type(value).__name__}")
        if value.layout != torch.strided or value.is_quantized:
            raise BadCheckpoint(f"{path}: {key[:80]} is not a plain dense tensor")
        state[key] = value.detach()
    if not state:
        raise BadCheckpoint(f"{path}: the state dict is empty")
    return state


def _is_finite(tensor: Tensor) -> bool:
    # The minimum and maximum need no temporary the size of the tensor, and carry NaN along.
    if tensor.numel() == 0 or tensor.is_meta:
        return True
    low, high = torch.aminmax(tensor)
    return bool(torch.isfinite(low) and torch.isfinite(high))


def _shape(tensor: Tensor) -> str:
    return f"{str(tensor.dtype).removeprefix('torch.')}{tuple(tensor.shape)}"


def _some(keys: Iterable[str]) -> str:
    keys = list(keys)
    more = f" and {len(keys) - _SHOWN} more" if len(keys) > _SHOWN else ""
    return ", ".join(key[:120] for key in keys[:_SHOWN]) + more


def _code_named(error: BaseException) -> str:
    # The rest of torch's message advises to load without its guard: nobody should read that here.
    named = re.search(r"\bGLOBAL ([\w.]{1,120})", str(error))
    return f" (it names {named[1]})" if named else ""


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0][:200] if lines else type(error).__name__


def stage_blocks(state: Mapping[str, Tensor]) -> tuple[int, int, int, int]:
    """Blocks of the four stages of a ResNet whose keys begin with `layer1.0.`.

    Raises:
        ValueError: a stage has none.
    """
    first, second, third, fourth = (
        1 + max((int(key.split(".")[1]) for key in state if key.startswith(f"layer{stage}.")), default=-1)
        for stage in (1, 2, 3, 4)
    )
    if not all((first, second, third, fourth)):
        raise ValueError("a stage layer1 to layer4 is missing")
    return first, second, third, fourth
