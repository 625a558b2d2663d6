"""The run folder: what training leaves and what evaluating, predicting and reporting read.

    RUN/run.json                   the record (`heads.runs.record`)
    RUN/model.safetensors          the head's parameters and buffers
    RUN/predictions_{split}.json   one object an item of the split, in the data set's order
    RUN/tensorboard/               the history as scalars, where they were asked for

Nothing is pickled. A folder from a stranger is checked: the record, and the shapes and numbers of the parameters.
A folder appears whole or not at all; later changes replace one file at a time, each in one step. A run that replaces
another one takes its place in two steps; whoever looks for it after a kill between them finds the old one put back.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import re
import shutil
import stat
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import safetensors
import safetensors.torch
from torch import Tensor

from catalog.whole_file import write_atomically
from heads.registry import read_config, restore
from heads.runs.record import Row, RunRecord
from heads.spec import Head

# What a run leaves behind or a report adds: only these are removed when a run is overwritten.
_OWN_FILES = re.compile(r"run\.json|model\.safetensors|predictions_[a-z]+\.json|.*\.(html|png|svg)")

# The folder of one run of several that differ in their seeds.
_SEED = re.compile(r"seed-[0-9]+")


@dataclass(frozen=True, kw_only=True)
class Run:
    """A run folder that has been read: its record and its head, in evaluation mode."""

    folder: Path
    record: RunRecord
    head: Head


def check_free(folder: Path, *, overwrite: bool) -> None:
    """See that a run may be written to `folder`: nothing there, an empty folder, or a run to overwrite.

    Raises:
        ValueError: something else is there or in the way to it, or a run and not `overwrite`.
    """
    check_way(folder)
    put_back(folder)
    if not os.path.lexists(folder):
        return
    if not folder.is_dir():
        raise ValueError(f"{folder} is not a folder; choose another place for the run")
    held = sorted(path.name for path in folder.iterdir())
    if not held:
        return
    if not overwrite:
        raise ValueError(f"{folder} exists; choose another folder or pass --overwrite")
    strange = [name for name in held if not _is_own(folder / name)]
    if strange or "run.json" not in held:
        raise ValueError(f"{folder} is not overwritten: it holds {strange[0] if strange else 'no run.json'}")


def check_way(folder: Path) -> None:
    """See that `folder` could be made: what lies above it are folders.

    Raises:
        ValueError: one is not; names it.
    """
    there = next((parent for parent in folder.absolute().parents if os.path.lexists(parent)), None)
    if there is not None and not there.is_dir():
        raise ValueError(f"{folder} cannot be made: {there} is not a folder; choose another place")


def put_back(folder: Path) -> bool:
    """Give a run its name back that a killed `write_run` had moved aside to replace it; False where there is none.

    Raises:
        OSError: it cannot be renamed.
    """
    above = folder.absolute().parent
    if os.path.lexists(folder) or not above.is_dir():
        return False
    # As `_move_in` names it, to the letter: what another run called NAME.old leaves has another name.
    aside = re.compile(rf"\.{re.escape(folder.name)}\.old\.[a-z0-9_]{{8}}")
    found = [path for path in above.iterdir() if aside.fullmatch(path.name) and (path / "run.json").is_file()]
    if not found:
        return False
    # Of several, which nobody should have, the last that was a run.
    with contextlib.suppress(FileNotFoundError):  # another process has just put it back
        max(found, key=lambda path: (path / "run.json").stat().st_mtime_ns).rename(folder)
    return True


def write_run(
    folder: Path,
    record: RunRecord,
    state: Mapping[str, Tensor],
    predictions: Mapping[str, Sequence[Row]],
    *,
    overwrite: bool = False,
    scalars: Path | None = None,
) -> None:
    """Write a whole run folder: made beside its place and moved there.

    Args:
        predictions: split to its rows, as `heads.evaluation.evaluate.Evaluation.rows` has them.
        scalars: a folder of TensorBoard's, copied to `tensorboard`.

    Raises:
        ValueError: the place is taken (see `check_free`), or a number is not finite.
    """
    check_free(folder, overwrite=overwrite)
    folder.parent.mkdir(parents=True, exist_ok=True)
    making = Path(tempfile.mkdtemp(prefix=f".{folder.name}.new.", dir=folder.parent))
    try:
        making.chmod(0o777 & ~_umask() | making.stat().st_mode & stat.S_ISGID)  # a team's folder keeps its group
        tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}
        safetensors.torch.save_file(tensors, making / "model.safetensors")
        (making / "model.safetensors").chmod(0o666 & ~_umask())  # save_file leaves it to its owner alone
        for split, rows in predictions.items():
            (making / f"predictions_{split}.json").write_text(_rows_json(rows), encoding="utf-8")
        if scalars is not None:
            shutil.copytree(scalars, making / "tensorboard")
        (making / "run.json").write_text(record.to_json(), encoding="utf-8")
        _move_in(making, folder)
    except BaseException:  # also on an interrupt: leave nothing half made beside the user's folder
        shutil.rmtree(making, ignore_errors=True)
        put_back(folder)
        raise


def update_run(folder: Path, record: RunRecord, predictions: Mapping[str, Sequence[Row]] | None = None) -> None:
    """Replace the record of a run, and the predictions of the splits given."""
    for split, rows in (predictions or {}).items():
        write_atomically(folder / f"predictions_{split}.json", _rows_json(rows))
    write_atomically(folder / "run.json", record.to_json())


def read_record(folder: Path) -> RunRecord:
    """The record alone, without the head.

    Raises:
        ValueError: there is no run, or its record is wrong; the message names the file and the field.
    """
    path = folder / "run.json"
    put_back(folder)
    try:
        text = path.read_text(encoding="utf-8")
    except (FileNotFoundError, NotADirectoryError):
        seeds = seeds_in(folder)
        if seeds:
            raise ValueError(
                f"{folder} is not a run but holds several: {', '.join(seeds)}; give one of them, such as "
                f"{folder / seeds[0]}"
            ) from None
        raise ValueError(f"{folder} is not a run: it has no run.json; `avel train --out {folder}` makes one") from None
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: not UTF-8 text: {error}") from error
    try:
        return RunRecord.from_json(text)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def seeds_in(folder: Path) -> list[str]:
    """Names of the runs that `avel train --seeds` and `avel ablate` leave in a folder, in order of their seeds."""
    if not folder.is_dir():
        return []
    found = {path.name: _SEED.fullmatch(path.name) for path in folder.iterdir() if (path / "run.json").is_file()}
    return sorted((name for name, seed in found.items() if seed), key=lambda name: int(name.removeprefix("seed-")))


def read_run(folder: Path) -> Run:
    """The record and the trained head.

    Raises:
        ValueError: the record or the checkpoint is missing or wrong; the message names the file.
    """
    record = read_record(folder)
    path = folder / "model.safetensors"
    try:
        config = read_config(record.head, record.config)
    except ValueError as error:
        raise ValueError(f"{folder / 'run.json'}: {error}") from error
    if path.is_dir():
        raise ValueError(f"{path} is a folder; a run has its parameters in a file of that name")
    try:
        with path.open("rb"):  # safetensors says of whatever it cannot open that it is not there
            pass
        state = safetensors.torch.load_file(path)
        head = restore(record.head, config, state)
        _check_texts(head, record)
    except FileNotFoundError:
        raise ValueError(f"{path} is missing") from None
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror or error}") from error
    except (safetensors.SafetensorError, ValueError) as error:
        raise ValueError(f"{path}: {error}") from error
    return Run(folder=folder, record=record, head=head)


def _move_in(making: Path, folder: Path) -> None:
    """Give a whole run its place; one that is there is moved aside for a moment (see `put_back`) and then removed."""
    while True:
        aside = None
        if folder.is_dir() and any(folder.iterdir()):
            aside = Path(tempfile.mkdtemp(prefix=f".{folder.name}.old.", dir=folder.parent))
            folder.rename(aside)
        try:
            making.rename(folder)
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
            continue  # a reader came in between and has put the old run back
        if aside is not None:
            # Half removed it must not be taken for a run, should its successor be removed too.
            gone = Path(tempfile.mkdtemp(prefix=f".{folder.name}.gone.", dir=folder.parent))
            aside.rename(gone)
            shutil.rmtree(gone)
        return


def _check_texts(head: Head, record: RunRecord) -> None:
    """Class texts are replaced as a whole, so a checkpoint may hold another number of them than its record says."""
    got = getattr(getattr(head, "config", None), "num_classes", None)
    if got != record.config["num_classes"]:
        raise ValueError(f"holds {got} class texts, run.json has {record.config['num_classes']} classes and background")


def _is_own(path: Path) -> bool:
    """Did training or a report make it? Then it is removed with a run that is overwritten."""
    if path.name == "tensorboard":
        return path.is_dir() and all(inner.name.startswith("events.out.tfevents") for inner in path.iterdir())
    return _OWN_FILES.fullmatch(path.name) is not None and not path.is_dir()


def _rows_json(rows: Sequence[Row]) -> str:
    # One item a line: whole-file indentation would be ten times the size, one line none could read.
    return "[\n" + ",\n".join(json.dumps(row, allow_nan=False) for row in rows) + "\n]\n"


def _umask() -> int:
    umask = os.umask(0)
    os.umask(umask)
    return umask
