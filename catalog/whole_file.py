"""Files that are replaced as a whole: whoever reads one finds the old content or the new, never a part."""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Iterator
from pathlib import Path


def write_atomically(path: Path, text: str) -> None:
    """Replaces `path` by a file of `text` in UTF-8."""
    with replacing(path) as draft:
        draft.write_text(text, encoding="utf-8")


@contextlib.contextmanager
def replacing(path: Path, *, draft: Path | None = None) -> Iterator[Path]:
    """Yields a path beside `path`; the file that the block writes there replaces `path` at the end of the block.

    On an error or an interrupt inside the block `path` stays as it is, and nothing is left beside it.

    Args:
        draft: None is a name of its own, as several may write `path` at once. A fixed name is for large files with one
            writer: killed again and again it leaves one draft behind.
    """
    draft = draft or path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        yield draft
        os.replace(draft, path)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise
