"""`avel VERB`: finds verbs by file name and runs one.

A verb is a module with `HELP` (one line), `EXAMPLES` and `add_arguments(parser)`, and a function
`run(args) -> exit status`. There are two forms:

- `jobs/NAME/verb.py` with the arguments, and `jobs/NAME/run.py` with `run` and ordinary imports on top. `run.py` is
  imported only when the verb runs, so `verb.py` (and what it imports, such as `jobs/cli/*_options.py`) stays light:
  `avel NAME --help` must not import torch, ray, av or transformers. This is the form of every verb that needs them.
- `jobs/NAME.py` with all four, imports on top, for a small verb that needs none of them.

A verb of a group, `avel GROUP NAME`, lies one folder deeper: `jobs/GROUP/NAME/verb.py` or `jobs/GROUP/NAME.py`.
`--json` is added here to the arguments of every verb.
The list of `avel --help` is read from the source text; no verb is imported for it.

Exit status: 0 success; 1 failed; 2 bad arguments; 3 finished with more quarantined videos than allowed;
130 and 143 after SIGINT and SIGTERM.
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import difflib
import importlib
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import NoReturn

from catalog.errors import AvelError, BadArguments, RecipeMismatch

OK, FAILED, BAD_ARGUMENTS, QUARANTINED = 0, 1, 2, 3

_JOBS = Path(__file__).parent.parent

ABOUT = """\
avel: audio-visual event localisation. Media in, a trustworthy feature store out; heads trained from it in minutes.

usage: avel VERB [arguments]      avel VERB --help shows a verb's arguments and examples
"""


@dataclass(frozen=True, kw_only=True)
class Verb:
    """One verb: its words on the command line, its module and its one-line help."""

    words: tuple[str, ...]
    module: str
    help: str


def verbs() -> list[Verb]:
    """Every verb there is, groups last, each in alphabetical order; nothing is imported."""
    found = []
    for path in [*_JOBS.glob("*.py"), *_JOBS.glob("*/*.py"), *_JOBS.glob("*/*/verb.py")]:
        parts = path.relative_to(_JOBS).with_suffix("").parts
        help_line = _help_of(path)
        if help_line is None:
            continue
        spelt = parts[:-1] if parts[-1] == "verb" else parts
        words = tuple(part.rstrip("_").replace("_", "-") for part in spelt)
        found.append(Verb(words=words, module=".".join((_JOBS.name, *parts)), help=help_line))
    return sorted(found, key=lambda verb: (len(verb.words), verb.words))


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the verb that `argv` names; returns the exit status."""
    words = list(sys.argv[1:] if argv is None else argv)
    known = verbs()
    if words and words[0] in ("--version", "-V"):
        from importlib.metadata import version  # slow to import, and needed here alone

        sys.stdout.write(f"avel {version('avel')}\n")
        return OK
    if not words or words[0] in ("-h", "--help", "help"):
        sys.stdout.write(ABOUT + "\n" + _listing(known))
        return OK if words else BAD_ARGUMENTS
    verb = next((v for v in known if tuple(words[: len(v.words)]) == v.words), None)
    if verb is None:
        return _unknown(words, known)
    return _run(verb, words[len(verb.words) :])


class _Parser(argparse.ArgumentParser):
    """One line for what it refuses, which is kept for `--json`."""

    refusal: str | None = None

    def error(self, message: str) -> NoReturn:
        if message.startswith("unrecognized arguments: -"):
            message += "; a name that begins with a dash comes after --"
        elif message.endswith("expected one argument"):
            message += "; a value that begins with a dash is joined to its option by ="
        self.refusal = message
        self.exit(BAD_ARGUMENTS, f"{self.prog}: error: {message}; see `{self.prog} --help`\n")


def _run(verb: Verb, arguments: list[str]) -> int:
    # Icechunk prints a warning on standard output otherwise, which would spoil --json.
    os.environ.setdefault("ICECHUNK_LOG", "error")
    module = importlib.import_module(verb.module)
    name = "avel " + " ".join(verb.words)
    parser = _Parser(
        prog=name,
        description=verb.help,
        epilog=module.EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    module.add_arguments(parser)
    parser.add_argument("--json", action="store_true", help="print one JSON object on standard output")
    try:
        args = parser.parse_args(arguments)
    except SystemExit as stop:  # argparse has said what is wrong
        if parser.refusal is not None and "--json" in arguments:
            from jobs.cli.console import print_json  # imports rich

            print_json({"error": parser.refusal, "kind": "BadArguments"})
        return stop.code if isinstance(stop.code, int) else BAD_ARGUMENTS

    try:
        status = _run_module(module).run(args)
        if sys.stdout is not None:  # closed by whoever started us
            sys.stdout.flush()
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # The reader of our output went away (`avel ... | head`): nothing more can be said, and nothing is wrong.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except (AvelError, ValueError, OSError, MemoryError, RuntimeError) as error:
        if os.environ.get("AVEL_DEBUG"):
            raise
        if isinstance(error, MemoryError | RuntimeError) and not isinstance(error, AvelError):
            if not _is_of_memory(error):
                raise
            error = AvelError(
                f"not enough memory for this: {error}; ask for smaller sizes, or fewer at a time (--batch)"
            )
        bad_arguments = isinstance(error, BadArguments | RecipeMismatch)
        status = BAD_ARGUMENTS if bad_arguments else FAILED
        _explain(name, error, as_json=bool(args.json))
    assert isinstance(status, int)
    return status


def _run_module(verb: ModuleType) -> ModuleType:
    """The module that holds the verb's `run`: its own, or `run.py` beside its `verb.py`, imported only now."""
    return verb if hasattr(verb, "run") else importlib.import_module(f"{verb.__package__}.run")


def _is_of_memory(error: Exception) -> bool:
    """Did an allocation fail? Libraries have types and words of their own for it."""
    words = ("can't allocate memory", "out of memory", "Unable to allocate")
    return isinstance(error, MemoryError) or any(word in str(error) for word in words)


def _explain(name: str, error: Exception, *, as_json: bool) -> None:
    from jobs.cli.console import note, print_json, visible  # imports rich

    text = str(error) or type(error).__name__
    if as_json:
        with contextlib.suppress(OSError):  # where nothing can be written the line below is all that can be said
            print_json({"error": text, "kind": type(error).__name__})
    note("\n".join(visible(line) for line in f"{name}: error: {text}".splitlines()))


def _unknown(words: list[str], known: list[Verb]) -> int:
    group = [verb for verb in known if len(verb.words) == 2 and verb.words[0] == words[0]]
    if group and (len(words) == 1 or words[1] in ("-h", "--help", "help")):
        sys.stdout.write(f"usage: avel {words[0]} VERB [arguments]\n\n" + _listing(group))
        return OK if len(words) > 1 else BAD_ARGUMENTS
    asked = " ".join(words[:2]) if group else words[0]
    near = difflib.get_close_matches(asked, [" ".join(verb.words) for verb in known], n=3)
    hint = f"; did you mean {' or '.join(near)}?" if near else "; `avel --help` lists them"
    sys.stderr.write(f"avel: there is no verb {asked!r}{hint}\n")
    return BAD_ARGUMENTS


def _listing(known: list[Verb]) -> str:
    width = max((len(" ".join(verb.words)) for verb in known), default=0)
    return "".join(f"  {' '.join(verb.words):{width}}  {verb.help}\n" for verb in known)


def _help_of(path: Path) -> str | None:
    text = path.read_text(encoding="utf-8")
    if "HELP = " not in text:
        return None
    for statement in ast.parse(text).body:
        if (
            isinstance(statement, ast.Assign)
            and isinstance(statement.targets[0], ast.Name)
            and statement.targets[0].id == "HELP"
            and isinstance(statement.value, ast.Constant)
        ):
            return str(statement.value.value)
    return None


if __name__ == "__main__":
    sys.exit(main())
