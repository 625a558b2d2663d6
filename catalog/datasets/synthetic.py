"""Made-up videos: what is seen and heard when, as a plan; `pipeline/render.py` makes real files of it.

An event is an object that is seen while its sound is heard. Each class is a pair (object, sound), and the classes lie
on a grid such that neither alone names one: with 3 objects and 3 sounds the classes are the pairs (i, i) and
(i, i + 1), so every object and every sound belongs to two of them; the pairs (i, i + 2) are background. Background
also holds objects that are only seen, sounds that are only heard, shapes and noises that never are a class, or nothing.

What an event sounds like tells of what it looks like: a bigger object sounds deeper, a brighter one louder, so that a
picture and a sound can be known to belong to one event and not to another of its class.

Law: at every instant the classes that are truly on are exactly those whose object is seen and whose sound is heard.

Layouts: "ave" and "ovavebench" (ten seconds, whole-second boundaries, one class a video; the latter with unseen
classes, the pairs (i, i + 2) of 4 objects and 4 sounds) and "unav100" (10 to 60 s, events of several classes that
overlap, boundaries on multiples of 0.2 s, which are whole frames at 25 fps and whole samples at 44.1 kHz).

A folder of them holds `synth.json` (the settings), the layout's official annotation files and `videos/ID.mp4`; the
plan is a function of the settings. `load` reads `synth.json`; the layout's own plug-in reads the annotation files.

Ingredients follow the planted-signal benchmarks of audio-visual event localisation: confusable pairs that differ by
modality, single-modality evidence in the background, one modality that outlasts the other at an event's edges.
"""

from __future__ import annotations

import colorsys
import itertools
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from catalog.annotation import need_file, read_json
from catalog.dataset import Dataset, Item
from catalog.errors import AnnotationError
from catalog.fingerprint import plain
from catalog.media import locate, media_folder, uri_of
from catalog.synthetic.scene import Actor, Scene, Span, Voice
from catalog.synthetic.storyboard import Storyboard, runs
from catalog.video import Video

FILE = "synth.json"
LAYOUTS = ("ave", "ovavebench", "unav100")
BACKGROUND = {"ave": "background", "ovavebench": "other", "unav100": None}

# Raised whenever the same settings give another plan or other pictures and sounds.
REVISION = 2

SIZES_PX = ((160, 120), (192, 144), (240, 180), (320, 240))  # width, height

# Objects: name, shape, hue in degrees. Sounds: name.
OBJECTS = (
    ("red square", "square", 0),
    ("green ring", "ring", 125),
    ("blue cross", "cross", 225),
    ("pink kite", "kite", 310),
)
SOUNDS = ("humming", "whistling", "rattling", "beeping")
RADIUS = (0.18, 0.3)  # of objects, as a share of the frame height
BRIGHTNESS = (0.55, 0.95)  # the V of their colour's HSV
CLUTTER_SHAPES = ("disc", "bar", "diamond")


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What a folder of made-up videos was made from."""

    layout: str
    videos: int
    seed: int
    revision: int = REVISION

    def __post_init__(self) -> None:
        if self.layout not in LAYOUTS:
            raise ValueError(f"layout must be one of {', '.join(LAYOUTS)}, got {self.layout!r}")
        if self.videos < 1 or self.seed < 0:
            raise ValueError(f"needs at least 1 video and a seed of 0 or more, got {self.videos} and {self.seed}")


@dataclass(frozen=True, kw_only=True)
class Scenario:
    """Annotations and the scenes that they are true of, in the same order as `dataset.videos`."""

    settings: Settings
    dataset: Dataset
    scenes: tuple[Scene, ...]


def pairs(layout: str) -> tuple[tuple[int, int], ...]:
    """(object, sound) of each class, seen classes first."""
    kinds, offsets = (4, (0, 1, 2)) if layout == "ovavebench" else (3, (0, 1))
    seen = [(i, (i + offset) % kinds) for i in range(kinds) for offset in offsets[:2]]
    return (*seen, *((i, (i + offset) % kinds) for offset in offsets[2:] for i in range(kinds)))


def label(pair: tuple[int, int]) -> str:
    """The name of a class: "red square humming"."""
    return f"{OBJECTS[pair[0]][0]} {SOUNDS[pair[1]]}"


def plan(settings: Settings, root: str | Path) -> Scenario:
    """What is seen and heard when, in every video of a folder.

    Args:
        settings: equal settings give equal plans, on every machine.
        root: the folder; only where the videos are expected depends on it.

    Returns:
        The data set as the layout's own plug-in reads it back, and its scenes.
    """
    layout = settings.layout
    classes = pairs(layout)
    cast = [_cast(layout, number, settings.videos) for number in range(settings.videos)]
    if layout != "ovavebench":
        # As many classes as there are videos to show them; a class nobody has seen cannot be named in the files.
        classes = classes[: settings.videos]
    items, videos, scenes = [], [], []
    for number, (main, split, seen) in enumerate(cast):
        # A generator a video: one more video changes none of the others' dice.
        rng = np.random.default_rng([settings.seed, LAYOUTS.index(layout), number])
        id_ = f"synth{number:05d}"
        line = _draw_unav(rng, main, classes) if layout == "unav100" else _draw_clip(rng, main, classes, layout)
        scenes.append(_scene(rng, id_, line))
        items.append(
            Item(
                id=f"{number:05d}" if layout == "ave" else id_,
                video_id=id_,
                split=split,
                events=line.events(),
                category=None if layout == "unav100" else label(classes[main]),
                seen=seen,
            )
        )
        duration_s = line.duration_s if layout == "unav100" else None
        videos.append(Video(id=id_, uri=uri_of(Path(root) / "videos" / f"{id_}.mp4"), duration_s=duration_s))
    dataset = Dataset(
        name=layout,
        classes=tuple(label(pair) for pair in classes),
        items=tuple(items),
        videos=tuple(videos),
        num_segments=None if layout == "unav100" else 10,
        background=BACKGROUND[layout],
    )
    return Scenario(settings=settings, dataset=dataset, scenes=tuple(scenes))


def read_settings(root: str | Path) -> Settings:
    """The settings in `root/synth.json`.

    Raises:
        AnnotationError: missing, damaged, or of another revision of the generator.
    """
    path = need_file(Path(root), (FILE,), "the settings of `avel synth`")
    value = read_json(path)
    fields = {"layout": str, "videos": int, "seed": int, "revision": int}
    if not isinstance(value, dict) or set(value) != set(fields):
        raise AnnotationError(f"{path}: needs an object of {', '.join(fields)}; make the folder again")
    for name, kind in fields.items():
        if not isinstance(value[name], kind) or isinstance(value[name], bool):
            raise AnnotationError(f"{path}, field {name!r}: needs {kind.__name__}, got {value[name]!r}")
    try:
        return Settings(**value)
    except ValueError as error:
        raise AnnotationError(f"{path}: {error}") from error


def settings_json(settings: Settings) -> str:
    """The content of `synth.json`."""
    return json.dumps(plain(settings), indent=2) + "\n"


def load(root: str | Path, *, media: str | Path | None = None) -> Dataset:
    """The data set of a folder that `avel synth` made, whatever its layout.

    Raises:
        AnnotationError: `synth.json` is missing, damaged or of another revision.
    """
    settings = read_settings(root)
    if settings.revision != REVISION:
        raise AnnotationError(
            f"{Path(root) / FILE}: made by revision {settings.revision} of the generator, this is revision {REVISION}; "
            f"read the folder as --dataset {settings.layout}, or make it again"
        )
    made = plan(settings, root).dataset
    durations_s = {video.id: video.duration_s for video in made.videos}
    videos, absent = locate(durations_s, media_folder(root, media))
    fields: dict[str, Any] = {name: getattr(made, name) for name in ("classes", "items", "num_segments", "background")}
    return Dataset(name="synthetic", videos=videos, oddities=absent, **fields)


def write(dataset: Dataset, root: Path) -> None:
    """Always refuses: made-up videos keep their layout's official files, and the plan follows from the settings.

    Raises:
        ValueError: always.
    """
    raise ValueError(f"{dataset.name}: `avel synth {root}` writes made-up data sets, in the format of another data set")


def _cast(layout: str, number: int, videos: int) -> tuple[int, str, bool | None]:
    """Class, split and whether the class is seen, of video `number`. Blocks of one class each, as in AVE."""
    classes = len(pairs(layout))
    if layout == "ovavebench":
        # Of 10: 5 train, 2 val, 3 test, one each of the last two of unseen classes ("*"). Each of these five takes its
        # classes in turn, so that training meets every seen one.
        turns = ("train", "val", "train", "test*", "train", "test", "train", "val*", "train", "test")
        kind = turns[number % 10]
        rank = number // 10 * turns.count(kind) + turns[: number % 10].count(kind)
        unseen = kind.endswith("*")
        return (8 + rank % 4 if unseen else rank % 8), kind.rstrip("*"), not unseen
    # Of 15: 10 train, 2 val, 3 test, spread so that every class has its share.
    split = {2: "test", 4: "val", 7: "test", 11: "val", 12: "test"}.get(number % 15, "train")
    return number * min(classes, videos) // videos, split, None


def _draw_clip(rng: np.random.Generator, main: int, classes: Sequence[tuple[int, int]], layout: str) -> Storyboard:
    """Ten seconds of one class: "ave" has one event, "ovavebench" none to two."""
    line = Storyboard(10, Fraction(1), {label(pair): pair for pair in classes}, len(OBJECTS))
    runs = 1 if layout == "ave" else int(rng.choice(3, p=(0.15, 0.6, 0.25)))
    if runs == 1 and rng.random() < 0.3:
        line.add_event(main, 0, 10)
    elif runs:
        # Runs lie in equal parts of the clip, so that two of them cannot meet.
        part = 10 // runs
        for run in range(runs):
            size = int(rng.integers(2, 8 if runs == 1 else 4))
            start = run * part + int(rng.integers(0, part - size + (runs == 1)))
            line.add_event(main, start, start + size)
    object_, sound = classes[main]
    kinds = 1 + max(max(pair) for pair in classes)
    for start, stop in _pieces(rng, ~line.on[main]):
        # Half of the time what distracts is the class's own object or sound: the other half of an event.
        other_object = object_ if rng.random() < 0.5 else int(rng.integers(kinds))
        other_sound = sound if rng.random() < 0.5 else int(rng.integers(kinds))
        state = rng.choice(("nothing", "heard", "seen", "both"), p=(0.15, 0.3, 0.3, 0.25))
        if state == "both":
            # An object with the sound that never goes with it.
            if rng.random() < 0.5:
                other_sound = (object_ + kinds - 1) % kinds
                other_object = object_
            else:
                other_object = (sound + 1) % kinds
                other_sound = sound
            line.add_distractor(other_object, other_sound, start, stop)
        elif state == "seen":
            line.add_distractor(other_object, None, start, stop)
        elif state == "heard":
            line.add_distractor(None, other_sound, start, stop)
    return line


def _draw_unav(rng: np.random.Generator, main: int, classes: Sequence[tuple[int, int]]) -> Storyboard:
    """10 to 60 s, one to six events of several classes."""
    second = 5  # ticks of 0.2 s
    ticks = round(float(rng.triangular(10, 18, 60)) * second)
    line = Storyboard(ticks, Fraction(1, second), {label(pair): pair for pair in classes}, len(OBJECTS))
    wanted = 1 + int(rng.binomial(5, 0.4))
    for number in range(6 * wanted):
        class_ = main if number == 0 else int(rng.integers(len(classes)))
        size = int(np.clip(np.exp(rng.normal(1.5, 0.6)) * second, 1.2 * second, 0.8 * ticks))
        start = int(rng.integers(0, ticks - size + 1))
        line.add_event(class_, start, start + size)
        if len(line.events()) >= wanted:
            break
    for event_class, start, stop in [(c, *run) for c, on_T in enumerate(line.on) for run in runs(on_T)]:
        # One modality outlasts the other: the event is where both are.
        object_, sound = classes[event_class]
        early, late = (int(rng.integers(0, second * 2)) for _ in range(2))
        if rng.random() < 0.4:
            line.add_distractor(object_, None, start - early, stop)
            line.add_distractor(None, sound, start, stop + late)
        elif rng.random() < 0.6:
            line.add_distractor(None, sound, start - early, stop)
            line.add_distractor(object_, None, start, stop + late)
    for _ in range(int(rng.poisson(1.5 * wanted))):
        size = int(np.clip(np.exp(rng.normal(1.2, 0.6)) * second, second, ticks))
        start = int(rng.integers(0, ticks - size + 1))
        kind = int(rng.integers(3))
        seen = rng.random() < 0.5
        line.add_distractor(kind if seen else None, None if seen else kind, start, start + size)
    return line


def _pieces(rng: np.random.Generator, free_T: NDArray[np.bool_]) -> list[tuple[int, int]]:
    """The runs of free ticks; those of 4 and more cut in two somewhere."""
    pieces = []
    for start, stop in runs(free_T):
        cuts = [int(rng.integers(start + 2, stop - 1))] if stop - start >= 4 else []
        edges = [start, *cuts, stop]
        pieces += list(itertools.pairwise(edges))
    return pieces


def _scene(rng: np.random.Generator, id_: str, line: Storyboard) -> Scene:
    width_px, height_px = SIZES_PX[int(rng.choice(len(SIZES_PX), p=(0.35, 0.3, 0.25, 0.1)))]
    always = ((Fraction(0), line.duration_s),)
    actors = [
        _actor(rng, -1, str(rng.choice(CLUTTER_SHAPES)), float(rng.uniform(0, 360)), always, radius=(0.07, 0.14))
        for _ in range(int(rng.integers(0, 3)))
    ]
    for kind, (_, shape, hue) in enumerate(OBJECTS):
        if line.seen[kind].any():
            actors.append(
                _actor(rng, kind, shape, hue + rng.uniform(-10, 10), line.spans(line.seen[kind]), radius=RADIUS)
            )
    happening = {pair for pair, on_T in zip(line.classes, line.on, strict=True) if on_T.any()}
    voices = tuple(
        _in_keeping(
            Voice(
                kind=kind,
                spans=line.spans(line.heard[kind]),
                level_db=float(rng.uniform(-26, -16)),
                pitch=float(np.exp(rng.uniform(-0.15, 0.15))),
                pan=float(rng.uniform(-0.8, 0.8)),
            ),
            [actor for actor in actors if (actor.kind, kind) in happening],
        )
        for kind in range(len(SOUNDS))
        if line.heard[kind].any()
    )
    return Scene(
        id=id_,
        duration_s=line.duration_s,
        width_px=width_px,
        height_px=height_px,
        actors=tuple(actors),
        voices=voices,
        noise_db=float(rng.uniform(-52, -40)),
        noise_slope=float(rng.uniform(0, 6)),
        grain=int(rng.integers(2, 9)),
        seed=int(rng.integers(2**31)),
    )


def _in_keeping(voice: Voice, partners: Sequence[Actor]) -> Voice:
    """The voice as its first partner's look wants it; as it is without one."""
    if not partners:
        return voice
    small, big = RADIUS
    size = (partners[0].radius - small) / (big - small)
    low, high = BRIGHTNESS
    light = (max(partners[0].colour) - low) / (high - low)
    return replace(voice, pitch=float(np.exp(0.15 - 0.3 * size)), level_db=float(-26 + 10 * light))


def _actor(
    rng: np.random.Generator, kind: int, shape: str, hue: float, spans: tuple[Span, ...], *, radius: tuple[float, float]
) -> Actor:
    # Clutter is paler and slower than what counts, though it may have the same hue.
    moving, strongest = (1.0, 0.95) if kind >= 0 else (0.3, 0.6)
    saturation, value = float(rng.uniform(strongest - 0.3, strongest)), float(rng.uniform(*BRIGHTNESS))
    red, green, blue = colorsys.hsv_to_rgb(hue / 360 % 1, saturation, value)
    return Actor(
        kind=kind,
        shape=shape,
        colour=(red, green, blue),
        spans=spans,
        radius=float(rng.uniform(*radius)),
        x=float(rng.uniform(0.3, 0.7)),
        y=float(rng.uniform(0.35, 0.65)),
        reach_x=moving * float(rng.uniform(0.05, 0.25)),
        reach_y=moving * float(rng.uniform(0.05, 0.2)),
        speed_hz=moving * float(rng.uniform(0.1, 0.6)),
        phase=float(rng.uniform(0, 2 * np.pi)),
        spin_hz=moving * float(rng.uniform(-0.15, 0.15)),
    )
