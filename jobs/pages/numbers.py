"""Numbers as pages show them."""

from __future__ import annotations


def grouped(count: int) -> str:
    """`count` with commas between thousands."""
    return f"{count:,}"


def length_text(seconds: float) -> str:
    """A length of time in its fitting unit: hours, minutes or seconds."""
    if seconds >= 3600:
        return f"{seconds / 3600:.1f} h"
    return f"{seconds / 60:.1f} min" if seconds >= 60 else f"{seconds:.0f} s"
