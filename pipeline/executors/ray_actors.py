"""A job, as both executors need it, and what lives in Ray's worker processes: plain classes over `unit.py`.

The workers' constructors do nothing that can fail: what goes wrong while an encoder is loaded is an error with a
message, not a worker that died.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path

from catalog.recipe import Recipe
from pipeline.encode import Encoder, load_encoder
from pipeline.encoder import assets_of
from pipeline.plan import Unit
from pipeline.sandbox.fetch import local_copy
from pipeline.sandbox.parent import Limits, Sandbox
from pipeline.unit import DecodingSandbox, Event, UnitEncoder, UnitResult, decode_unit, one_thread, run_unit
from pipeline.weights.node import weights_at_hand


@dataclass(frozen=True, kw_only=True)
class Job:
    """What every worker must know.

    Attributes:
        recipes: those of the run.
        weights: recipe name -> asset name -> file or folder, paths on the driver; see `pipeline.weights.node`.
        device: where encoders run, "cpu" or "cuda".
        limits: of the decoding child.
    """

    recipes: tuple[Recipe, ...]
    weights: Mapping[str, Mapping[str, Path]] = field(default_factory=dict)
    device: str = "cpu"
    limits: Limits = field(default_factory=Limits)

    def by_name(self) -> dict[str, Recipe]:
        """The recipes by name."""
        return {recipe.name: recipe for recipe in self.recipes}

    def load_encoders(self) -> dict[str, Encoder]:
        """Loads each recipe's encoder, from this machine's own copy where it does not see the driver's."""
        loaded = {}
        for recipe in self.recipes:
            given = self.weights.get(recipe.name, {})
            paths = weights_at_hand(assets_of(recipe), given, identity=recipe.weights_sha256)
            loaded[recipe.name] = load_encoder(recipe, paths, self.device)
        return loaded

    def new_sandbox(self) -> AbstractContextManager[DecodingSandbox]:
        """A decoding child of its own."""
        return Sandbox(limits=self.limits)

    def local_copy(self, uri: str) -> AbstractContextManager[Path | str]:
        """The medium at `uri` as a local file."""
        return local_copy(uri)


class FusedWorker:
    """Decodes and encodes whole units: on a machine without GPU frames need not travel."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self._stack = contextlib.ExitStack()

    def start(self) -> None:
        """Loads the encoders and starts the decoding child."""
        self._recipes = self._job.by_name()
        self._encoders = self._job.load_encoders()
        self._stack.enter_context(one_thread())
        self._sandbox = self._stack.enter_context(self._job.new_sandbox())

    def run(self, unit: Unit) -> UnitResult:
        """One unit, or one video alone on trial."""
        return run_unit(unit, self._recipes, self._encoders, self._sandbox, self._job.local_copy)

    def ping(self) -> None:
        """Answers if alive."""


class DecodeWorker:
    """Decodes units for encoders elsewhere."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self._stack = contextlib.ExitStack()

    def start(self) -> None:
        """Starts the decoding child."""
        self._recipes = self._job.by_name()
        self._stack.enter_context(one_thread())
        self._sandbox = self._stack.enter_context(self._job.new_sandbox())

    def decode(self, unit: Unit) -> Iterator[Event]:
        """The unit's events, one object each."""
        yield from decode_unit(unit, self._recipes, self._sandbox, self._job.local_copy)

    def ping(self) -> None:
        """Answers if alive."""


class EncodeWorker:
    """Encodes the events of several units at a time, each unit's apart: batches never mix units."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self._stack = contextlib.ExitStack()
        self._open: dict[int, UnitEncoder] = {}

    def start(self) -> None:
        """Loads the encoders."""
        self._encoders = self._job.load_encoders()
        self._stack.enter_context(one_thread())

    def begin(self, key: int, unit: Unit) -> None:
        """A unit's events follow under `key`."""
        self._open[key] = UnitEncoder(unit, self._encoders)

    def feed(self, key: int, event: Event) -> None:
        """One event, in order."""
        self._open[key].add(event)

    def finish(self, key: int) -> UnitResult:
        """The unit's result."""
        return self._open.pop(key).finish()

    def drop(self, key: int) -> None:
        """The unit's decoder died; it comes again under another key."""
        self._open.pop(key, None)

    def ping(self) -> None:
        """Answers if alive."""
