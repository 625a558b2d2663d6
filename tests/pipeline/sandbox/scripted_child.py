"""A decoding child that opens nothing: it answers each request with the messages that lie at the request's path."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

from pipeline.sandbox import wire

MODULE = "tests.pipeline.sandbox.scripted_child"
# In the environment: the child never says that it is ready.
SILENT = "SCRIPTED_CHILD_IS_SILENT"


def main(arguments: list[str]) -> None:
    requests, answers = int(arguments[0]), int(arguments[1])
    if SILENT not in os.environ:
        wire.send(answers, {"kind": "ready"})
    while True:
        try:
            request, _ = wire.receive(requests)
        except EOFError:
            return
        for message in json.loads(Path(request["path"]).read_text(encoding="utf-8")):
            wire.send(answers, message)


if __name__ == "__main__":
    main(sys.argv[1:])
