"""What is seen and heard when, on a grid of ticks: where a made-up video's events come from.

An event is an object that is seen while its sound is heard. Whatever is added, the classes that are on stay exactly
those whose object is seen and whose sound is heard.
"""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from catalog.event import Event
from catalog.synthetic.scene import Span


class Storyboard:
    """Which kinds are seen and heard, tick by tick; refuses what would make an event that is not annotated."""

    def __init__(self, ticks: int, tick_s: Fraction, classes: Mapping[str, tuple[int, int]], kinds: int) -> None:
        """An empty one.

        Args:
            classes: label -> (object, sound), class number = position.
            kinds: how many objects there are, and sounds.
        """
        self.tick_s, self.ticks = tick_s, ticks
        self.labels, self.classes = tuple(classes), tuple(classes.values())
        self.seen = np.zeros((kinds, ticks), np.bool_)
        self.heard = np.zeros((kinds, ticks), np.bool_)
        self.on = np.zeros((len(classes), ticks), np.bool_)

    @property
    def duration_s(self) -> Fraction:
        return self.ticks * self.tick_s

    def add_event(self, class_: int, start: int, stop: int) -> bool:
        """An event (one with those of its class that it meets); False and no change where another would appear."""
        object_, sound = self.classes[class_]
        return self._try(object_, sound, class_, start, stop)

    def add_distractor(self, object_: int | None, sound: int | None, start: int, stop: int) -> bool:
        """Something only seen, only heard, or both; False and no change where it would make an event."""
        return self._try(object_, sound, None, max(start, 0), min(stop, self.ticks))

    def events(self) -> tuple[Event, ...]:
        """The runs of each class, by start."""
        found = [
            Event(start_s=start_s, end_s=end_s, label=label)
            for label, on_T in zip(self.labels, self.on, strict=True)
            for start_s, end_s in self.spans(on_T)
        ]
        return tuple(sorted(found, key=lambda event: (event.start_s, event.end_s, event.label)))

    def spans(self, on_T: NDArray[np.bool_]) -> tuple[Span, ...]:
        """The runs of True, in seconds."""
        return tuple((start * self.tick_s, stop * self.tick_s) for start, stop in runs(on_T))

    def _try(self, object_: int | None, sound: int | None, class_: int | None, start: int, stop: int) -> bool:
        before = self.seen.copy(), self.heard.copy(), self.on.copy()
        for rows, row in ((self.seen, object_), (self.heard, sound), (self.on, class_)):
            if row is not None:
                rows[row, start:stop] = True
        implied = np.stack([self.seen[i] & self.heard[j] for i, j in self.classes])
        if np.array_equal(implied, self.on):
            return True
        self.seen, self.heard, self.on = before
        return False


def runs(on_T: NDArray[np.bool_]) -> list[tuple[int, int]]:
    """(start, stop) of each stretch of True."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], on_T, [False]]).astype(np.int8)))
    return [(int(a), int(b)) for a, b in edges.reshape(-1, 2)]
