"""A comparison with published features, in words, per stream and as a table."""

from __future__ import annotations

from typing import Any

from catalog.exchange.compare import VERDICTS, Comparison
from jobs.cli.console import note, say, table

_SENTENCES = {
    "equal": "equal",
    "other values": "shapes and times agree, values do not (other weights or another decoder)",
    "other times": "shapes agree, times do not",
    "other shape": "shapes differ",
    "unreadable": "files cannot be read",
}


def sentence(compared: Comparison) -> str:
    """The verdict in words."""
    is_part = compared.verdict == "equal" and compared.missing_there
    return "equal (of those there)" if is_part else _SENTENCES[compared.verdict]


def by_stream(compared: Comparison) -> dict[str, dict[str, Any]]:
    """Each stream's number of videos, how many of them are equal, and its worst differences."""
    streams: dict[str, dict[str, Any]] = {}
    for item in compared.compared:
        worst = streams.setdefault(
            item.stream, {"videos": 0, "equal": 0, "max_abs": None, "max_relative": None, "least_cosine": None}
        )
        worst["videos"] += 1
        worst["equal"] += item.verdict == "equal"
        for name, worse in (("max_abs", max), ("max_relative", max), ("least_cosine", min)):
            value = getattr(item, name)
            if value is not None:
                worst[name] = value if worst[name] is None else worse(worst[name], value)
    return streams


def print_comparison(compared: Comparison, *, title: str, shown: int) -> None:
    """The table of the worst `shown` files, what is wrong with them, and one line of counts."""
    worst = sorted(compared.compared, key=lambda item: -VERDICTS.index(item.verdict))
    columns = ("max_abs", "max_relative", "mean_cosine", "least_cosine", "times_off_s")
    table(
        f"{title}: here/published",
        ["video", "stream", "rows", "width", *(name.replace("_", " ") for name in columns), "verdict"],
        [
            (
                item.video_id,
                item.stream,
                f"{item.rows}/{item.published_rows}" + (f" ({item.one_sided_rows} NaN)" if item.one_sided_rows else ""),
                f"{item.width}/{item.published_width}",
                *(_number(getattr(item, name)) for name in columns),
                item.verdict,
            )
            for item in worst[:shown]
        ],
    )
    if len(worst) > shown:
        note(f"{len(worst) - shown:,} more, none worse; --json lists all")
    for item in worst[:shown]:
        if item.problem:
            note(item.problem)
    equal = ", ".join(
        f"{counts['equal']:,} of {counts['videos']:,} {stream}" for stream, counts in by_stream(compared).items()
    )
    missing = f"{compared.missing_there:,} files missing there"
    apart = f"{missing}, {compared.only_here:,} videos only here, {compared.only_there:,} only there"
    say(f"{title}: {sentence(compared)}; equal: {equal}; {apart}")


def _number(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.4g}"
