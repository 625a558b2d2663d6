"""What a person should know of splits that were read: missing features, events after their end, another grid."""

from __future__ import annotations

from collections.abc import Mapping

from catalog.dataset import Dataset
from heads.data.split import Split


def split_warnings(dataset: Dataset, read: Mapping[str, Split], *, training: bool) -> list[str]:
    """What a person should know about the splits read: items without features, a grid that is not the protocol's."""
    warnings = []
    for name, split in read.items():
        if split.absent:
            reasons: dict[str, int] = {}
            for why in split.absent.values():
                reasons[why] = reasons.get(why, 0) + 1
            counts = ", ".join(f"{why} {count}" for why, count in sorted(reasons.items(), key=lambda r: (-r[1], r[0])))
            fate = "left out of training" if training and name == "train" else "counted as background"
            warnings.append(
                f"{name}: {len(split.absent)} of {len(split.items)} items without features, {fate} ({counts})"
            )
        warnings += _beyond(name, split)
    grid = next(iter(read.values())).recipe.grid
    if dataset.num_segments is not None and (grid.window_s != 1 or grid.hop_s != 1):
        warnings.append(
            f"{dataset.name} is scored by the second; this recipe's segments last {float(grid.window_s):g} s "
            f"every {float(grid.hop_s):g} s, so the numbers are by the segment and not comparable with published ones"
        )
    return warnings


def _beyond(name: str, split: Split) -> list[str]:
    """Of events that begin where a video's features have ended already: another cut of it, or half a download."""
    window_s, hop_s = split.recipe.grid.window_s, split.recipe.grid.hop_s
    late: list[tuple[str, float, float]] = []
    for n in split.present.tolist():
        ends_s = (int(split.mask_NT[n].sum()) - 1) * hop_s + window_s
        item = split.items[n]
        late += [(item.id, float(event.start_s), float(ends_s)) for event in item.events if event.start_s >= ends_s]
    if not late:
        return []
    first, starts_s, known_s = late[0]
    return [
        f"{name}: {len(late)} events of {len({row[0] for row in late})} items begin after the features of their videos "
        f"end, and nothing can find them (such as {first}: an event at {starts_s:g} s, features until {known_s:g} s); "
        "are the videos whole, and those that were annotated?"
    ]
