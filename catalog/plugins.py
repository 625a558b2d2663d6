"""The one registry of plug-ins: data sets, exchange formats, planted benchmarks, encoders, heads, tables.

A plug-in of a package is `NAME.py` in its folder, or a folder `NAME/` with the package's part (`encoder.py`, `head.py`)
and its private files beside it. It is found by that name; finding imports nothing.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType


@dataclass(frozen=True, kw_only=True)
class Plugins:
    """The plug-ins of one package.

    Attributes:
        package: dotted name of the folder they lie in ("pipeline.encoders").
        part: the file that a folder `NAME/` needs to be a plug-in ("encoder"); None where only `NAME.py` is one.
        noun: what an error calls one of them ("encoder").
    """

    package: str
    part: str | None = None
    noun: str

    def names(self) -> tuple[str, ...]:
        """The plug-ins there are, sorted; none is imported."""
        return tuple(sorted({name for folder in self._folders() for name in self._names_in(folder)}))

    def load(self, name: str) -> ModuleType:
        """The module of a plug-in. `name` may come from another's file: only a name that exists is imported.

        Raises:
            ValueError: no plug-in of this name; the message lists those that exist.
        """
        names = self.names()
        if name not in names:
            raise ValueError(f"there is no {self.noun} {name!r}; there are {', '.join(names) or 'none'}")
        return importlib.import_module(self._module(name))

    def _module(self, name: str) -> str:
        single = any((folder / f"{name}.py").is_file() for folder in self._folders())
        return f"{self.package}.{name}" if single else f"{self.package}.{name}.{self.part}"

    def _names_in(self, folder: Path) -> Iterator[str]:
        for path in folder.iterdir():
            if path.suffix == ".py" and path.stem.isidentifier() and not path.stem.startswith("_"):
                yield path.stem
            elif self.part is not None and path.name.isidentifier() and (path / f"{self.part}.py").is_file():
                yield path.name

    def _folders(self) -> tuple[Path, ...]:
        return _folders(self.package)


def _folders(package: str) -> tuple[Path, ...]:
    module = importlib.import_module(package)
    return tuple(Path(folder) for folder in module.__path__ if Path(folder).is_dir())
