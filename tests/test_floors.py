"""Imports only go down: jobs -> pipeline, heads -> catalog. Read from the source of every file, run or not."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from jobs.cli import main as cli

PROJECT = Path(__file__).resolve().parent.parent
FLOORS = ("catalog", "pipeline", "heads", "jobs", "bench", "tests")
MAY_IMPORT = {
    "catalog": {"catalog"},
    "pipeline": {"pipeline", "catalog"},
    "heads": {"heads", "catalog"},
    "jobs": {"jobs", "pipeline", "heads", "catalog", "bench"},
    "bench": {"bench", "jobs", "pipeline", "heads", "catalog"},
}
NOT_IN_CATALOG = {"torch", "ray", "decord", "av", "librosa", "soundfile", "cv2", "PIL"}
# Decoders die of hostile files: only a process that may die opens media.
READERS_LIVE_IN = ("pipeline/decode/", "pipeline/sandbox/child.py")
RAY_LIVES_IN = {"pipeline/executors/ray_cluster.py", "jobs/cluster.py"}
ICECHUNK_LIVES_IN = {"catalog/store/storage.py", "catalog/store/reader.py", "catalog/store/writer.py"}
# LoCo with an open vocabulary is LoCo with another classifier.
FAMILY = {"loco_texts": "loco"}
# The only verb that may import another one: a table trains its rows as `avel train` does.
VERB_MAY_IMPORT: dict[str | None, str] = {"jobs.ablate": "jobs.train"}
# A plug-in imports its own folder's shared types, never another plug-in.
PLUGIN_FOLDERS = (
    "catalog/datasets",
    "catalog/exchange/formats",
    "catalog/synthetic/planted",
    "pipeline/encoders",
    "heads/metrics",
    "heads/models",
    "heads/ablation/papers",
)

# Walls inside a floor: a room (folder or file) -> what it may import of its own floor beside itself. Rooms that are not
# here are free.
ROOMS = {
    "pipeline/clips.py": set[str](),
    "pipeline/encoder.py": {"pipeline.weights.asset", "pipeline.clips"},
    "pipeline/preprocess": {"pipeline.clips"},
    "pipeline/networks": {"pipeline.clips", "pipeline.preprocess"},
    "pipeline/encoders": {
        "pipeline.clips",
        "pipeline.encoder",
        "pipeline.networks",
        "pipeline.preprocess",
        "pipeline.weights.asset",
    },
    "pipeline/weights": set[str](),
    "pipeline/finetune": {"pipeline.clips", "pipeline.preprocess", "pipeline.sandbox"},
    "pipeline/decode": {"pipeline.clips"},
    "pipeline/sandbox/wire.py": set[str](),
    "pipeline/sandbox/fetch.py": set[str](),
    "pipeline/sandbox/child.py": {"pipeline.clips", "pipeline.decode", "pipeline.sandbox.wire"},
    "pipeline/sandbox/parent.py": {"pipeline.clips", "pipeline.sandbox.wire"},
    "pipeline/plan.py": set[str](),
    "pipeline/run_summary.py": set[str](),
    "pipeline/unit.py": {"pipeline.clips", "pipeline.plan", "pipeline.sandbox.parent"},
    "pipeline/write.py": {"pipeline.unit", "pipeline.sandbox.parent"},
    "pipeline/ledger.py": {"pipeline.plan", "pipeline.run_summary", "pipeline.unit", "pipeline.write"},
    "pipeline/executors": {
        "pipeline.encode",
        "pipeline.encoder",
        "pipeline.plan",
        "pipeline.sandbox",
        "pipeline.unit",
        "pipeline.weights.node",
    },
    "heads/data": {"heads.features", "heads.spec"},
    "heads/dense": {"heads.blocks", "heads.data", "heads.features", "heads.spec"},
    "heads/evaluation": {
        "heads.blocks",
        "heads.data",
        "heads.dense",
        "heads.features",
        "heads.metrics",
        "heads.runs",
        "heads.spec",
    },
    "heads/metrics": set[str](),
    "heads/runs": {"heads.registry", "heads.spec"},
    "heads/training": {
        "heads.data",
        "heads.dense",
        "heads.evaluation",
        "heads.features",
        "heads.registry",
        "heads.runs",
        "heads.spec",
    },
}


def sources(*folders: str) -> list[Path]:
    return [path for folder in folders for path in sorted((PROJECT / folder).rglob("*.py"))]


def imports(path: Path) -> set[str]:
    """Every module that the file names in an import, wherever it stands."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: relative imports hide the floor; name the package"
            names |= {node.module or ""} | {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def breaches(path: Path, project: Path = PROJECT) -> list[str]:
    where = path.relative_to(project).as_posix()
    floor = where.split("/")[0]
    found = []
    for name in sorted(imports(path)):
        top = name.split(".")[0]
        if top in FLOORS and top not in MAY_IMPORT[floor]:
            found.append(f"{where} imports {name}: {floor} may import {sorted(MAY_IMPORT[floor])} only")
        if floor == "catalog" and top in NOT_IN_CATALOG:
            found.append(f"{where} imports {name}: catalog holds no torch, ray or decoder")
        if top == "ray" and where not in RAY_LIVES_IN and floor != "bench":
            found.append(f"{where} imports {name}: ray lives in {sorted(RAY_LIVES_IN)}")
        if f"{name}.".startswith("pipeline.decode.") and not where.startswith(READERS_LIVE_IN) and floor != "bench":
            found.append(f"{where} imports {name}: media are opened in pipeline/sandbox/child.py alone")
        if top == "icechunk" and where not in ICECHUNK_LIVES_IN:
            found.append(f"{where} imports {name}: icechunk lives in {sorted(ICECHUNK_LIVES_IN)}")
        if top == "pickle":
            found.append(f"{where} imports {name}: nothing that comes from outside is unpickled")
    return found


@pytest.mark.parametrize("floor", ["catalog", "pipeline", "heads", "jobs"])
def test_imports_of_a_floor_only_go_down(floor: str) -> None:
    files = sources(floor)
    assert len(files) > 1, f"no sources under {floor}"
    assert [breach for path in files for breach in breaches(path)] == []


@pytest.mark.parametrize("folder", PLUGIN_FOLDERS)
def test_plugins_import_no_other_plugin_of_their_folder(folder: str) -> None:
    package = folder.replace("/", ".")
    names = {path.stem for path in (PROJECT / folder).glob("*.py")} | {p.name for p in (PROJECT / folder).iterdir()}
    names -= {"__init__", "__pycache__"}
    for path in (PROJECT / folder).rglob("*.py"):
        own = path.relative_to(PROJECT / folder).with_suffix("").parts[0]
        foreign = tuple(f"{package}.{name}." for name in names - {own, FAMILY.get(own)})
        others = sorted(name for name in imports(path) if f"{name}.".startswith(foreign))
        assert not others, f"{path}: imports {others}: plug-ins meet in what they share"


def wall_breaches(path: Path, room: str, project: Path = PROJECT) -> list[str]:
    """Imports of a room's file that go to other rooms of its floor than `ROOMS` allows."""
    where = path.relative_to(project).as_posix()
    floor = room.split("/")[0]
    open_rooms = {room.removesuffix(".py").replace("/", "."), *ROOMS[room]}
    doors = tuple(f"{name}." for name in open_rooms)
    return [
        f"{where} imports {name}: {room} may import {', '.join(sorted(ROOMS[room])) or 'nothing'} of {floor}"
        for name in sorted(imports(path))
        # `from pipeline.weights import asset` names the package too; what counts is the file.
        if name.startswith(f"{floor}.")
        and not f"{name}.".startswith(doors)
        and not any(door.startswith(f"{name}.") for door in doors)
    ]


@pytest.mark.parametrize("room", sorted(ROOMS))
def test_a_room_imports_only_what_its_walls_let_through(room: str) -> None:
    files = [PROJECT / room] if room.endswith(".py") else sources(room)
    assert files, f"no room {room}"
    assert [breach for path in files for breach in wall_breaches(path, room)] == []


@pytest.mark.parametrize("room", sorted(ROOMS))
def test_wall_breaches_of_a_planted_wrong_import_are_found(room: str, tmp_path: Path) -> None:
    floor = room.split("/")[0]
    bad = tmp_path / room / "x.py"
    bad.parent.mkdir(parents=True)
    allowed = "".join(f"    import {name}\n" for name in sorted(ROOMS[room]))
    bad.write_text(f"def f():\n{allowed}    from {floor}.elsewhere import y\n    from {floor} import other\n")
    assert [line.split(":")[0].split(" imports ")[1] for line in wall_breaches(bad, room, tmp_path)] == [
        f"{floor}.elsewhere",
        f"{floor}.elsewhere.y",
        f"{floor}.other",
    ]


def verb_breaches(path: Path, verbs: list[str], project: Path = PROJECT) -> list[str]:
    """Imports of a file of `jobs/` that a verb may not have. `verbs`: each verb's module or folder, dotted."""
    where = path.relative_to(project).with_suffix("").as_posix().replace("/", ".")

    def verb_of(module: str) -> str | None:
        return next((verb for verb in verbs if f"{module}.".startswith(f"{verb}.")), None)

    own = verb_of(where)
    found = []
    for name in sorted(imports(path)):
        if verb_of(name) not in (None, own, VERB_MAY_IMPORT.get(own)):
            found.append(f"{where} imports {name}: a verb imports no other verb; share through jobs/cli or below")
        if name.split(".")[0] == "bench" and own != "jobs.bench":
            found.append(f"{where} imports {name}: only the bench verb reaches bench")
    return found


def test_verbs_import_no_other_verb_and_only_bench_reaches_bench() -> None:
    verbs = [verb.module.removesuffix(".verb") for verb in cli.verbs()]
    assert [breach for path in sources("jobs") for breach in verb_breaches(path, verbs)] == []


def test_verb_breaches_of_planted_wrong_imports_are_found(tmp_path: Path) -> None:
    bad = tmp_path / "jobs" / "ablate" / "x.py"
    bad.parent.mkdir(parents=True)
    bad.write_text("from jobs.train.seeds import a\nfrom jobs.store.log import run\nimport bench.heads\n")
    found = verb_breaches(bad, ["jobs.ablate", "jobs.train", "jobs.store.log"], tmp_path)
    assert [line.split(":")[0] for line in found] == [
        "jobs.ablate.x imports bench.heads",
        "jobs.ablate.x imports jobs.store.log",
        "jobs.ablate.x imports jobs.store.log.run",
    ]


def test_packages_hold_a_docstring_and_nothing_else() -> None:
    for path in [p for p in sources(*MAY_IMPORT) if p.name == "__init__.py"]:
        body = ast.parse(path.read_text(encoding="utf-8")).body
        assert len(body) == 1, f"{path}: import from the file that defines the name"
        assert isinstance(body[0], ast.Expr), f"{path}: needs a docstring"


def test_no_file_is_called_utils() -> None:
    named = {path.stem for path in sources(*FLOORS)}
    assert not named & {"utils", "util", "helpers", "helper", "common", "misc"}


def test_breaches_of_a_planted_wrong_import_are_found(tmp_path: Path) -> None:
    bad = tmp_path / "catalog" / "x.py"
    bad.parent.mkdir()
    bad.write_text("def f():\n    import torch\n    from heads.data.split import read_split\n    import ray.util\n")
    found = "\n".join(breaches(bad, tmp_path))
    for culprit in (
        "imports torch: catalog holds",
        "imports heads.data.split: catalog may",
        "imports ray.util: ray lives",
    ):
        assert culprit in found
    for where, opens in (("pipeline/encode.py", True), ("pipeline/sandbox/child.py", False)):
        reader = tmp_path / where
        reader.parent.mkdir(parents=True, exist_ok=True)
        reader.write_text("def f():\n    import pipeline.decode.probe\n")
        assert [line for line in breaches(reader, tmp_path) if "media are opened" in line] == [
            f"{where} imports pipeline.decode.probe: media are opened in pipeline/sandbox/child.py alone"
        ] * opens
