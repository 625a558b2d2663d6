"""What every worker of a run must know, whichever executor it belongs to."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path

from catalog.recipe import Recipe
from pipeline.encode import load_encoder
from pipeline.encoder import assets_of
from pipeline.sandbox.fetch import local_copy
from pipeline.sandbox.parent import Limits, Sandbox
from pipeline.unit import ClipEncoder, DecodingSandbox
from pipeline.weights.node import weights_at_hand


@dataclass(frozen=True, kw_only=True)
class Job:
    """What is done to each unit. It travels to other machines, so it holds settings and no open files.

    Attributes:
        recipes: those of the run, names distinct.
        weights: recipe name -> asset name -> file or folder, paths on the driver; see `pipeline.weights.node`.
        device: where encoders run, "cpu" or "cuda".
        limits: of each decoding child.
    """

    recipes: tuple[Recipe, ...]
    weights: Mapping[str, Mapping[str, Path]] = field(default_factory=dict)
    device: str = "cpu"
    limits: Limits = field(default_factory=Limits)

    def by_name(self) -> dict[str, Recipe]:
        """The recipes by name."""
        return {recipe.name: recipe for recipe in self.recipes}

    def load_encoders(self) -> dict[str, ClipEncoder]:
        """Each recipe's encoder by the recipe's name; weights from this machine where the driver's are not visible."""
        loaded: dict[str, ClipEncoder] = {}
        for recipe in self.recipes:
            given = self.weights.get(recipe.name, {})
            paths = weights_at_hand(assets_of(recipe), given, identity=recipe.weights_sha256)
            loaded[recipe.name] = load_encoder(recipe, paths, self.device)
        return loaded

    def new_sandbox(self) -> AbstractContextManager[DecodingSandbox]:
        """A new decoding child."""
        return Sandbox(limits=self.limits)

    def local_copy(self, uri: str) -> AbstractContextManager[Path | str]:
        """The medium at `uri` as a local file."""
        return local_copy(uri)
