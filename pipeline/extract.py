"""The stages strung together: media in, committed features out, in this process or on Ray.

Exactly once: work is what the plan finds missing in the store; units finish in any order on any number of workers and
are appended in the plan's order by this one process; done and data are one commit. So a run that is killed anywhere
and run again gives the arrays of an undisturbed one.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Protocol

from catalog.errors import RecipeMismatch
from catalog.recipe import Recipe
from catalog.store.reader import FeatureStore, create_store, exists, open_store
from catalog.store.writer import StoreWriter, open_writer
from catalog.video import Outcome, Video
from pipeline.encoder import encoder_spec
from pipeline.executors.job import Job
from pipeline.executors.local import LocalExecutor
from pipeline.executors.ray_cluster import RaySettings, reach
from pipeline.executors.ray_executor import RayExecutor
from pipeline.ledger import Ledger
from pipeline.plan import NOTHING_COMMITTED, Committed, Plan, check_reasons, plan_units
from pipeline.recipes import check_settings, feature_shapes
from pipeline.run_summary import RunSummary
from pipeline.sandbox.parent import Limits
from pipeline.unit import Stopped

COMMIT_EVERY_S = 30.0
_POLL_S = 0.25

# From worst to best: a video is counted by the worst of its wanted recipes.
_WORST_FIRST = ("pending", "quarantined", "partial", "extracted")
PENDING = Outcome(status="pending")


class Stop(Protocol):
    """Says whether to stop; a `threading.Event` does."""

    def is_set(self) -> bool: ...


# Runs units, in any order; its workers start on entering and end on leaving.
Executor = LocalExecutor | RayExecutor


@dataclass(frozen=True, kw_only=True)
class ExtractOptions:
    """How to extract. Of these only `weights` and, between CPU and GPU, `device` can change a value.

    Attributes:
        ray: run on Ray, a local one or a cluster; None runs in this process. The arrays are equal.
        workers: how many units run at once; None is one a CPU.
        weights: recipe name -> asset name -> file, for encoders that have weights.
        device: where encoders run, "cpu" or "cuda".
        retry_reasons: partial and quarantined videos of these reasons are tried again; "all" for any reason.
        limits: time and memory of each decoding child.
        commit_every_s: the longest time that finished units stay uncommitted.
        wait_s: how long to wait for another writer of the store.
    """

    ray: RaySettings | None = None
    workers: int | None = None
    weights: Mapping[str, Mapping[str, Path]] = field(default_factory=dict)
    device: str = "cpu"
    retry_reasons: Collection[str] = ()
    limits: Limits = field(default_factory=Limits)
    commit_every_s: float = COMMIT_EVERY_S
    wait_s: float = 0.0

    def __post_init__(self) -> None:
        if self.workers is not None and self.workers < 1:
            raise ValueError(f"workers must be at least 1, got {self.workers}")
        check_reasons(self.retry_reasons)


@dataclass(frozen=True, kw_only=True)
class Preview:
    """What an extraction would do.

    Attributes:
        plan: the units to be worked on.
        store: None where there is none yet.
        summary: the store's state, as of a run that does nothing.
    """

    plan: Plan
    store: FeatureStore | None
    summary: RunSummary


def preview(
    videos: Sequence[Video],
    recipes: Sequence[Recipe],
    store_uri: str | os.PathLike[str],
    *,
    retry_reasons: Collection[str] = (),
) -> Preview:
    """Finds what the store lacks; nothing is written or locked.

    Raises:
        RecipeMismatch: the store has a recipe of that name with other settings.
        ValueError: videos or recipes that `extract` refuses.
    """
    if not videos or not recipes:
        raise ValueError(f"extraction needs videos and recipes, got {len(videos)} and {len(recipes)}")
    names = tuple(recipe.name for recipe in recipes)
    if len(set(names)) != len(names):
        raise ValueError(f"recipe names must be distinct, got {', '.join(names)}")
    for recipe in recipes:
        check_settings(recipe)
    store, committed = None, NOTHING_COMMITTED
    if exists(store_uri):
        store = open_store(store_uri)
        for recipe in recipes:
            _refuse_other_settings(store, recipe)
        committed = _committed(store, names)
    plan = plan_units(videos, names, committed, retry_reasons)
    summary = RunSummary(wanted=len(videos), skipped=plan.done)
    if store is not None:
        summary.snapshot = store.snapshot_id
    _count_store(summary, videos, names, committed)
    return Preview(plan=plan, store=store, summary=summary)


def extract(
    videos: Sequence[Video],
    recipes: Sequence[Recipe],
    store_uri: str | os.PathLike[str],
    options: ExtractOptions = ExtractOptions(),
    *,
    planned: Preview | None = None,
    on_progress: Callable[[RunSummary], None] | None = None,
    stop: Stop | None = None,
) -> RunSummary:
    """Extracts what the store lacks, and commits it.

    Args:
        videos: the wanted ones, ids distinct; their order decides the order of new rows.
        recipes: one or more, names distinct; one decode feeds them all.
        store_uri: a store, or a free location for a new one.
        planned: `preview` of the same videos, recipes, store and reasons, where the caller has made it already.
        on_progress: called in this thread after each finished unit with the summary so far.
        stop: asked several times a second; once set, what is finished is committed and the rest is left.

    Returns:
        Counts, speed and the store's state. With nothing to do no worker starts and no lock is needed.

    Raises:
        RecipeMismatch: the store has a recipe of that name with other settings.
        StoreBusy: another writer holds the store.
        ValueError: no videos or recipes, ids or names that are not distinct, settings that no encoder takes.
    """
    before = planned or preview(videos, recipes, store_uri, retry_reasons=options.retry_reasons)
    if before.store is not None and not before.plan.units:
        return before.summary
    job = Job(recipes=tuple(recipes), weights=options.weights, device=options.device, limits=options.limits)
    by_name = job.by_name()
    names = tuple(by_name)
    if options.ray is not None and options.ray.address is not None:
        reach(options.ray.address)
    store = create_store(store_uri) if before.store is None else before.store
    with open_writer(store, wait_s=options.wait_s) as writer:
        for recipe in recipes:
            ensure_recipe(writer, recipe, job.weights.get(recipe.name, {}))
        # Planned again under the lock: another writer may have done part of it meanwhile.
        plan = plan_units(videos, names, _committed(store, names), options.retry_reasons)
        workers = min(options.workers or available_cpus(), max(1, len(plan.units)))
        kind = "local" if options.ray is None else "ray"
        summary = RunSummary(wanted=len(videos), skipped=plan.done, executor=kind, workers=workers)
        ledger = Ledger(plan, by_name, writer, summary, workers=workers, commit_every_s=options.commit_every_s)
        if plan.units and not (stop is not None and stop.is_set()):
            began_s = time.monotonic()
            # A stop that comes while the workers start raises Stopped.
            with contextlib.suppress(Stopped), _executor(job, workers, options.ray) as executor:
                summary.startup_s = time.monotonic() - began_s
                _drive(plan, executor, ledger, summary, on_progress, stop)
    summary.stopped = not ledger.finished
    summary.snapshot = store.snapshot_id
    _count_store(summary, videos, names, _committed(store, names))
    return summary


def ensure_recipe(writer: StoreWriter, recipe: Recipe, weights: Mapping[str, Path]) -> None:
    """Gives the store the recipe, with the shapes and the card of its encoder.

    Raises:
        RecipeMismatch: the store has a recipe of that name with other settings.
    """
    spec = encoder_spec(recipe.encoder)
    visual_shape, audio_shape = feature_shapes(recipe, weights)
    writer.ensure_recipe(
        recipe,
        visual_shape=visual_shape,
        audio_shape=audio_shape,
        card={
            "encoder": spec.name,
            "revision": recipe.revision,
            "weights_sha256": recipe.weights_sha256,
            "licence": spec.licence,
            "citation": spec.citation,
            "code_version": version("avel"),
        },
    )


def available_cpus() -> int:
    """CPUs that this process may use."""
    return len(os.sched_getaffinity(0))


def _drive(
    plan: Plan,
    executor: Executor,
    ledger: Ledger,
    summary: RunSummary,
    on_progress: Callable[[RunSummary], None] | None,
    stop: Stop | None,
) -> None:
    """Submits, takes, appends and commits until all is done or `stop` is set."""
    began_s = time.monotonic()
    submitted = 0
    try:
        while not ledger.finished and not (stop is not None and stop.is_set()):
            try:
                while submitted < len(plan.units) and ledger.may_submit(submitted):
                    executor.submit(plan.units[submitted])
                    submitted += 1
                finished = executor.wait(_POLL_S)
                summary.workers = executor.workers_up
            except BaseException:
                # What broke is the work ahead; what is appended is whole and in order.
                ledger.commit()
                raise
            for result in finished:
                ledger.take(result)
            summary.wall_s = time.monotonic() - began_s
            if finished and on_progress is not None:
                on_progress(summary)
            ledger.commit_if_due()
        ledger.commit()
    finally:
        summary.wall_s = time.monotonic() - began_s


def _executor(job: Job, workers: int, ray: RaySettings | None) -> Executor:
    return LocalExecutor(job, workers=workers) if ray is None else RayExecutor(job, workers=workers, settings=ray)


def _refuse_other_settings(store: FeatureStore, recipe: Recipe) -> None:
    # The writer refuses them too, but only under the lock; this answers at once.
    entry = store.recipes().get(recipe.name)
    differences = [] if entry is None else entry.recipe.differences(recipe)
    if differences:
        fields = "; ".join(f"{path}: stored {stored}, wanted {wanted}" for path, stored, wanted in differences)
        raise RecipeMismatch(
            f"{store.uri} holds recipe {recipe.name!r} with other settings ({fields}); "
            "store yours under another name with --as NAME, or extract into another store",
            differences,
        )


def _committed(store: FeatureStore, names: Collection[str]) -> Committed:
    table = store.videos()
    outcomes = {}
    for name in names:
        if name in store.recipes():
            held = store.outcomes(name)
            outcomes[name] = [
                Outcome(status=status, reason=reason) for status, reason in zip(held.status, held.reason, strict=True)
            ]
    return Committed(ids=table.ids, unit=table.unit, outcomes=outcomes)


def _count_store(summary: RunSummary, videos: Sequence[Video], names: Sequence[str], committed: Committed) -> None:
    """Counts the wanted videos by the worst of their recipes' outcomes."""
    row_of = {video_id: row for row, video_id in enumerate(committed.ids)}
    statuses: Counter[str] = Counter()
    reasons: Counter[str] = Counter()
    for video in videos:
        row = row_of.get(video.id)
        worst = PENDING
        if row is not None and len(committed.outcomes) == len(names):
            held = (outcomes[row] for outcomes in committed.outcomes.values())
            worst = min(held, key=lambda outcome: _WORST_FIRST.index(outcome.status))
        statuses[worst.status] += 1
        if worst.reason:
            reasons[worst.reason] += 1
    summary.store_statuses, summary.store_reasons = statuses, reasons
