"""One training run that was asked for, carried out: read, train or go on, evaluate, write.

While it trains, `OUT.partial` beside the run's folder holds what it can go on from (`heads.training.checkpoint`), the
history as TensorBoard's scalars and a lock; it is removed when the run is written. The run itself appears whole.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from catalog.dataset import Dataset
from catalog.errors import BadArguments
from catalog.fingerprint import fingerprint
from catalog.lock import Locked, hold_lock
from heads.evaluation.protocol import unseen_labels
from heads.runs.folder import check_free, check_way, put_back, read_record, write_run
from heads.runs.record import Numbers, RunRecord
from heads.training.checkpoint import FILE, Checkpoint, OtherTraining, differences
from heads.training.experiment import Experiment, Materials
from heads.training.fit import TrainingDiverged
from heads.training.run import TrainedRun, train_run

Identity = dict[str, str | int | float | bool | None]


@dataclass(frozen=True, kw_only=True)
class Order(Experiment):
    """An experiment whose run is to be written.

    Attributes:
        threads: torch's.
        out: the run's folder.
        overwrite: replace a run that is there.
        restart: throw away what an interrupted run left.
    """

    threads: int = 1
    out: Path
    overwrite: bool = False
    restart: bool = False


def carry_out(
    order: Order,
    materials: Materials,
    *,
    on_epoch: Callable[[Numbers], None] = lambda row: None,
    stop: Callable[[], bool] = lambda: False,
) -> TrainedRun:
    """Trains, or goes on from an interrupted call of the same order, and writes the run.

    Args:
        on_epoch, stop: as `heads.training.fit.fit` takes them.

    Raises:
        BadArguments: another process is at it, or the interrupted one was of another order.
        TrainingStopped: `stop` said so; the same order goes on.
        AvelError, ValueError: as `heads.training.run.train_run`.
    """
    check_free(order.out, overwrite=order.overwrite)
    torch.set_num_threads(order.threads)
    asked = identity(order, materials)
    with _partial(order) as folder:
        with _scalars(folder / "tensorboard") as write_scalars:

            def both(row: Numbers) -> None:
                write_scalars(row)
                on_epoch(row)

            trained = train_run(order, materials, on_epoch=both, checkpoint=Checkpoint(folder, asked), stop=stop)
        more = {name: asked[name] for name in ("annotations", "changes", "threads")}
        record = dataclasses.replace(trained.record, training=trained.record.training | more)
        write_run(
            order.out,
            record,
            trained.state,
            {split: evaluation.rows for split, evaluation in trained.evaluations.items()},
            overwrite=order.overwrite,
            scalars=folder / "tensorboard" if record.history else None,
        )
    return dataclasses.replace(trained, record=record)


def identity(order: Order, materials: Materials) -> Identity:
    """Whatever decides the numbers of the order's run, under names that a person knows."""
    recipe = materials.store.recipes()[order.recipe].recipe
    return {
        "head": order.head,
        "modality": order.modality,
        "changes": json.dumps(dict(order.changes), sort_keys=True),
        "recipe": recipe.name,
        "recipe's fingerprint": recipe.fingerprint(),
        "store's snapshot": materials.store.snapshot_id,
        "vocabulary": None if materials.texts is None else materials.texts.name,
        "dataset": materials.dataset.name,
        "annotations": annotations_of(materials.dataset),
        "unseen": json.dumps(unseen_labels(materials.dataset)),
        **dataclasses.asdict(order.settings),
        "threads": order.threads,
        "torch": torch.__version__,
    }


def annotations_of(dataset: Dataset) -> str:
    """A hash of annotations: of classes, items and their events, not of their files' location."""
    return fingerprint([dataset.classes, dataset.items])[:16]


def differences_from(record: RunRecord, asked: Identity) -> list[str]:
    """Where a run that was written is not the one asked for: "name: there, now asked"."""
    recorded: dict[str, Any] = {
        "head": record.head,
        "recipe": record.recipe.name,
        "recipe's fingerprint": record.recipe.fingerprint(),
        "store's snapshot": record.store["snapshot"],
        "vocabulary": None if record.texts is None else record.texts["vocabulary"],
        "dataset": record.dataset["name"],
        "unseen": json.dumps(record.unseen),
        "torch": record.versions.get("torch"),
    }
    return differences({name: recorded.get(name, record.training.get(name)) for name in asked}, asked)


def is_there(order: Order, materials: Materials) -> bool:
    """Has this very order been carried out before?

    Raises:
        BadArguments: a run of other settings is there and the order does not overwrite it.
        ValueError: something else does.
    """
    put_back(order.out)
    if not (order.out / "run.json").exists():
        check_free(order.out, overwrite=order.overwrite)
        return False
    differing = differences_from(read_record(order.out), identity(order, materials))
    if differing and not order.overwrite:
        raise BadArguments(
            f"{order.out} holds a run of other settings ({'; '.join(differing)}); choose another folder or pass "
            "--overwrite"
        )
    return not differing


@contextlib.contextmanager
def alone(folder: Path, busy: str) -> Iterator[None]:
    """Hold `folder` (made if absent) against other processes; its lock file is gone afterwards.

    Raises:
        BadArguments: `busy`, where another process holds it; or a file is in its way.
    """
    try:
        check_way(folder / ".lock")
    except ValueError as error:
        raise BadArguments(str(error)) from error
    path = folder / ".lock"
    with contextlib.ExitStack() as stack:
        while True:
            folder.mkdir(parents=True, exist_ok=True)
            try:
                stack.enter_context(hold_lock(path, remove=True))
                break
            except FileNotFoundError:  # the holder has just removed the folder
                continue
            except Locked as error:
                raise BadArguments(busy) from error
        yield


@contextlib.contextmanager
def _partial(order: Order) -> Iterator[Path]:
    """The folder of an unfinished run, held; removed at the end, unless there is something to go on from."""
    out = order.out.absolute()
    folder = out.with_name(f"{out.name}.partial")
    _check_own(folder)
    with alone(folder, f"--out {order.out}: another `avel train` is at work there; choose another folder"):
        if order.restart:
            (folder / FILE).unlink(missing_ok=True)
        try:
            yield folder
        except TrainingDiverged:  # the same order would diverge again
            shutil.rmtree(folder)
            raise
        except OtherTraining as error:
            raise BadArguments(str(error)) from error
        except BaseException:
            if not (folder / FILE).exists():
                shutil.rmtree(folder)
            raise
        shutil.rmtree(folder)


def _check_own(folder: Path) -> None:
    """The folder of an unfinished run is removed in the end, so nothing of anybody else's may lie in it."""
    if not os.path.lexists(folder):
        return
    if not folder.is_dir():
        raise BadArguments(f"{folder} is not a folder, and the training needs that place; choose another --out")
    for path in sorted(folder.iterdir()):
        if path.name not in (FILE, f"{FILE}.part", ".lock", "tensorboard"):
            raise BadArguments(
                f"{folder} holds {path.name}, which is not a training's; that folder would be removed in the end, "
                "so choose another --out"
            )


@contextlib.contextmanager
def _scalars(folder: Path) -> Iterator[Callable[[Numbers], None]]:
    """Takes rows of the history as TensorBoard's scalars. Begins anew: `fit` passes an earlier call's rows on again."""
    shutil.rmtree(folder, ignore_errors=True)
    with contextlib.ExitStack() as stack:
        writers: list[Any] = []

        def write(row: Numbers) -> None:
            if not writers:  # here: its import takes a while, and a head without parameters has no history
                from torch.utils.tensorboard import SummaryWriter

                writers.append(stack.enter_context(contextlib.closing(SummaryWriter(str(folder), flush_secs=10))))
            for name, value in row.items():
                if name != "epoch":
                    writers[0].add_scalar(name, value, int(row["epoch"]))

        yield write
