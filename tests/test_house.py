"""The plan of the house, drawn from the code: layers, circles, sizes, names and words.

The lists PENDING hold what does not meet its rule yet. They only shrink: an entry that meets its rule fails the test
until it is deleted here. A file that is renamed or split takes its entry along.
"""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path

import forkserver
from forkserver.http1.headers import ALIKE, environ_key

CIRCLES_PENDING: tuple[str, ...] = ()
UPWARDS_PENDING: tuple[str, ...] = ()
FOLDERS_PENDING: tuple[str, ...] = ()
LONG_PENDING: tuple[str, ...] = ()
CLASSES_PENDING: tuple[str, ...] = ()
WORDS_PENDING: tuple[str, ...] = ()
IDENTIFIERS_PENDING: tuple[str, ...] = ()

TOP = Path(forkserver.__file__).parent
REPOSITORY = Path(__file__).parents[1]
ENTRIES, LINES = 14, 400

# From the top down. A layer imports its own files and the layers below it, not a neighbour in its row.
LAYERS: tuple[tuple[str, ...], ...] = (
    ("__main__",),
    ("cli",),
    ("master",),
    ("worker",),
    ("__init__",),
    ("server",),
    ("http1", "tls", "ipc"),
    ("config",),
    ("logs",),
    ("linux",),
    ("errors",),
)
# Inside server/; neighbours in a row may know each other.
SERVER_LAYERS: tuple[tuple[str, ...], ...] = (
    ("wsgi_server", "request_handler"),
    ("loop",),
    ("handoff", "pressure"),
    ("connection", "blocking"),
    ("context",),
    ("wsgi", "proxy", "buffers", "client_notices"),
    ("threads",),
)

# Words that hide the mechanism, and what is written instead. Parts of identifiers count.
WORDS = {
    "whoever": "name the thing that acts: the caller, the worker, a process that",
    "whom": "which, or name the thing",
    "nobody": "no caller, no process, no worker",
    "somebody": "a caller, a process, a worker",
    "anybody": "any caller, any process",
    "everyone": "each worker, every process",
    "everybody": "each worker, every process",
    "mend": "fix",
    "mends": "fixes",
    "mended": "fixed",
    "is no more": "has exited, was closed",
    "shut in": "sandboxed",
    "by whose hand": "killed by",
    "it promises": "say what the module does, then how it works",
    "refuses to know": "say what the module does, then how it works",
    "lest": "so that ... not",
    "whence": "from which",
    "allowance": "request deadline",
    "appetite": "recycling, memory watch",
    "baton": "loop lock",
    "birth": "WorkerConfig, the fork of a worker",
    "bulletin": "status line",
    "census": "statistics",
    "complaints": "repeated errors",
    "departure": "shutdown",
    "desk": "command handlers",
    "fortunes": "backoff",
    "herald": "reporter",
    "introducers": "the proxies that may send a PROXY header",
    "memo": "cache",
    "nursery": "fork handshake",
    "parcel": "handed connection",
    "patience": "timeout extension, or the seconds of what",
    "provisions": "generation config",
    "pulse": "systemd status",
    "rehearsal": "self request",
    "relieve": "hand off waiting requests",
    "roster": "fleet, rollout",
    "serving room": "the package server",
    "steward": "background driver",
    "successor": "new program",
}
ODD_WORDS = re.compile(
    r"(?<!--kill-)\b({})\b".format("|".join(WORDS).replace(" ", r"\s+")), re.IGNORECASE
)  # --kill-whom is systemctl's
# Names of variables, functions, arguments and classes: as whole names, or as a part of one.
IDENTIFIERS = {
    "given": "what it is: inherited, parsed, order, arguments",
    "held": "snapshot, locked, open, inherited",
    "from_held": "from_snapshot",
    "who": "what it is: process, worker, sender",
}
IDENTIFIER_PARTS = {"judge": "expire timeouts, or the verb of what is decided", "spent": "due for recycling"}
# Names that earlier versions gave to fields of an upgrade's state are read for ever.
OLD_NAMES = re.compile(r"^_RENAMED\b.*?^}", re.MULTILINE | re.DOTALL)


@cache
def files() -> dict[str, Path]:
    return {_module_name(path): path for path in sorted(TOP.rglob("*.py"))}


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


def _module_name(path: Path) -> str:
    parts = path.relative_to(TOP.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def shown(path: Path) -> str:
    return str(path.relative_to(TOP.parent if path.is_relative_to(TOP) else REPOSITORY))


def imported(module: str) -> Iterator[str]:
    """Modules of ours that ``module`` imports, inside functions and for type checkers too."""
    for node in ast.walk(tree(files()[module])):
        if isinstance(node, ast.Import):
            yield from (each.name for each in node.names if each.name in files())
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{module} has a relative import"
            wholes = (f"{node.module}.{each.name}" for each in node.names)
            yield from (at for at in ((w if w in files() else str(node.module)) for w in wholes) if at in files())


@cache
def graph() -> dict[str, set[str]]:
    return {module: set(imported(module)) - {module} for module in files()}


def _reached(start: str) -> set[str]:
    """Every module that ``start`` leads to over one import or more."""
    reached: set[str] = set()
    ahead = list(graph()[start])
    while ahead:
        module = ahead.pop()
        if module not in reached:
            reached.add(module)
            ahead += graph()[module]
    return reached


def _row(name: str, layers: tuple[tuple[str, ...], ...]) -> int:
    rows = [number for number, row in enumerate(layers) if name in row]
    assert rows, f"{name} has no place in the order of layers: give it one"
    return rows[0]


def _goes_up(here: str, there: str) -> bool:
    ours, theirs = ([*module.split(".")[1:], "__init__"] for module in (here, there))
    if ours[0] != theirs[0]:
        return _row(theirs[0], LAYERS) <= _row(ours[0], LAYERS)
    inside_server = ours[0] == "server" and len(ours) > 2 and len(theirs) > 2
    return inside_server and _row(theirs[1], SERVER_LAYERS) < _row(ours[1], SERVER_LAYERS)


def compare(wrong: dict[str, str], pending: Iterable[str], rule: str) -> None:
    """Fail on what is wrong and not pending, and on what is pending and not wrong."""
    new = [f"{entry}: {why}" for entry, why in sorted(wrong.items()) if entry not in pending]
    done = [f"{entry}: meets the rule now, delete it from the PENDING list" for entry in pending if entry not in wrong]
    assert not new + done, "\n".join([rule, *new, *sorted(done)])


def _odd_words(path: Path) -> str:
    """What of WORDS stands in the text of ``path``, with its line and what to write instead."""
    text = OLD_NAMES.sub(lambda found: "\n" * found[0].count("\n"), path.read_text())
    plain = re.sub(r"(?<=[a-z])(?=[A-Z])|_", " ", text)
    shown_words = []
    for found in ODD_WORDS.finditer(plain):
        line, word = plain.count("\n", 0, found.start()) + 1, " ".join(found[0].lower().split())
        shown_words.append(f"line {line}: {word} -> {WORDS[word]}")
    return "; ".join(shown_words)


def _defined(path: Path) -> Iterator[str]:
    """Names that the code of ``path`` gives to something."""
    for node in ast.walk(tree(path)):
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            yield node.name
        elif isinstance(node, ast.arg):
            yield node.arg
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            yield node.attr


def _odd(name: str) -> str:
    plain = name.strip("_").lower()
    parts = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name.strip("_")).lower().split("_")
    advice = [IDENTIFIERS.get(plain, ""), *(IDENTIFIER_PARTS.get(part, "") for part in parts)]
    return next(filter(None, advice), "")


def test_no_circle_among_files() -> None:
    wrong = {}
    for module, path in files().items():
        back = [other for other in _reached(module) if module in _reached(other)]
        if back:
            wrong[shown(path)] = "in a circle with " + ", ".join(sorted(back))
    compare(wrong, CIRCLES_PENDING, "A file and what it imports must not import each other:")


def test_imports_go_down() -> None:
    """A change in a lower layer must not need a look at a higher one."""
    wrong = {}
    for module, path in files().items():
        if up := [other for other in sorted(graph()[module]) if _goes_up(module, other)]:
            wrong[shown(path)] = "imports " + ", ".join(up)
    compare(wrong, UPWARDS_PENDING, "Imports go down:")


def test_the_master_leaves_connections_to_the_workers() -> None:
    """Only worker/ imports server/: a master that parsed requests would hold what it must never need."""
    reaching = [module for module in files() if module.startswith("forkserver.master")]
    wrong = {
        module: up for module in reaching if (up := [to for to in graph()[module] if ".server" in to or ".http1" in to])
    }
    assert not wrong


def _is_source(entry: Path) -> bool:
    """Not what a build has left, nor a folder in which only the interpreter's caches are."""
    if entry.is_file():
        return entry.suffix != ".so"
    return any(path.is_file() and path.suffix != ".pyc" for path in entry.rglob("*"))


def test_a_folder_is_seen_at_a_glance() -> None:
    wrong = {}
    for folder in (TOP, *(path for path in TOP.rglob("*") if path.is_dir() and path.name != "__pycache__")):
        entries = [entry for entry in folder.iterdir() if _is_source(entry)]
        if len(entries) > ENTRIES:
            wrong[shown(folder)] = f"{len(entries)} entries"
    compare(wrong, FOLDERS_PENDING, f"A folder has at most {ENTRIES} entries:")


def test_a_module_is_read_in_one_go() -> None:
    lengths = {path: len(path.read_text().splitlines()) for path in files().values()}
    wrong = {shown(path): f"{lines} lines" for path, lines in lengths.items() if lines > LINES}
    compare(wrong, LONG_PENDING, f"A module has at most {LINES} lines:")


def test_a_class_name_has_one_meaning() -> None:
    homes = defaultdict(list)
    for module, path in files().items():
        for node in ast.walk(tree(path)):
            if isinstance(node, ast.ClassDef):
                homes[node.name].append(module)
    wrong = {name: ", ".join(modules) for name, modules in homes.items() if len(modules) > 1}
    compare(wrong, CLASSES_PENDING, "A class name is defined once:")


def test_words_are_those_of_the_field() -> None:
    documents = (REPOSITORY / "README.md", *sorted((REPOSITORY / "docs").rglob("*.md")))
    texts = [path for path in TOP.rglob("*") if path.suffix in (".py", ".c", ".template")]
    wrong = {shown(path): found for path in (*documents, *texts) if (found := _odd_words(path))}
    compare(wrong, WORDS_PENDING, "Plain technical English:")


def test_names_say_what_a_thing_is() -> None:
    wrong = {}
    for path in files().values():
        if odd := {name: advice for name in _defined(path) if (advice := _odd(name))}:
            wrong[shown(path)] = "; ".join(f"{name} -> {advice}" for name, advice in sorted(odd.items()))
    compare(wrong, IDENTIFIERS_PENDING, "A name says what it holds:")


def test_records_are_made_in_one_way() -> None:
    """typing's and the dataclasses take a start a third of its time: forkserver.linux.common.records."""
    wrong = {}
    for path in files().values():
        names = {
            f"{node.module}.{each.name}" if isinstance(node, ast.ImportFrom) else each.name
            for node in ast.walk(tree(path))
            if isinstance(node, ast.Import | ast.ImportFrom)
            for each in node.names
        }
        slow = {name for name in names if name == "typing.NamedTuple" or name.startswith("dataclasses")}
        if slow and path.name != "records.py":
            wrong[shown(path)] = f"imports {', '.join(sorted(slow))}"
    compare(wrong, (), "Records come from linux/common/records.py:")


# What a master needs later or never, or only its template: each of these takes milliseconds to load.
LATER = {
    *("shutil", "tempfile", "importlib.metadata", "tomllib", "difflib", "encodings.idna"),
    *("ssl", "http", "email", "wsgiref", "forkserver.server", "platform", "datetime", "pathlib"),
    *("inspect", "ast", "dataclasses", "logging", "urllib", "pkgutil", "copy"),
}


def test_a_start_does_not_wait_for_what_is_needed_later() -> None:
    """The first answer comes when master, template and worker have loaded what they need, one after the other."""
    loading = (
        "import forkserver.cli.serve, forkserver.config.settings, forkserver.master.builder, sys; print(*sys.modules)"
    )
    paths = f"import sys; sys.path[:] = {sys.path!r}; "  # without .pth files, which tools for tests load themselves by
    command = [sys.executable, "-I", "-S", "-c", paths + loading]
    listed = subprocess.run(command, capture_output=True, text=True, check=True)
    assert LATER.isdisjoint(listed.stdout.split())


def test_the_extension_remembers_lines_of_the_same_fields_as_the_python_code() -> None:
    """Those of a client alone, such as cookies, would be told by the time that comparing takes."""
    names = (REPOSITORY / "forkserver/server/wsgi/accelerator/names.c").read_text()
    assert {environ_key(name) for name in re.findall(r'\{"([a-z-]+)", \w+, true\}', names)} == ALIKE
