"""For the time of an import, calls are noted; afterwards everything is as it was."""

from __future__ import annotations

import _thread
import atexit
import inspect
import os
import pickle
import queue
import random
import secrets
import socket
import sys
import threading
import uuid
import weakref
from collections.abc import Callable
from importlib import _bootstrap
from pathlib import Path

import pytest

from forkserver.worker.fork_safety import import_watch
from forkserver.worker.fork_safety.import_watch import ImportWatch

REPLACED = (
    *((os, name) for name in ("getpid",)),
    *((secrets, name) for name in ("choice", "token_bytes", "token_hex", "token_urlsafe", "randbelow")),
    *((uuid, name) for name in ("uuid1", "uuid4")),
    *((atexit, name) for name in ("register", "unregister")),
    (random, "seed"),
    (random.Random, "__init__"),
    (weakref.finalize, "__init__"),
    (threading.Thread, "start"),
)


@pytest.fixture(autouse=True)
def _no_audit_hook(monkeypatch: pytest.MonkeyPatch) -> None:
    """It would stay in this process; what it does is tested in children, see test_fork_safety.py."""
    monkeypatch.setattr(import_watch, "_add_hook", lambda: None)


def look(owner: object, name: str) -> tuple[object, object]:
    function = getattr(owner, name)
    return function, getattr(function, "__code__", None)


def test_all_is_put_back() -> None:
    before = [look(*each) for each in REPLACED]
    with ImportWatch().active():
        assert all(look(*each) != old for each, old in zip(REPLACED, before, strict=True))
    assert [look(*each) for each in REPLACED] == before


def test_all_is_put_back_after_an_import_that_failed() -> None:
    before = [look(*each) for each in REPLACED]
    with pytest.raises(ZeroDivisionError), ImportWatch().active():
        _ = 1 / 0
    assert [look(*each) for each in REPLACED] == before


def test_functions_do_what_they_did() -> None:
    """Their arguments, their results and their signatures."""
    signatures = [inspect.signature(function) for function in (uuid.uuid1, uuid.uuid4, secrets.token_hex)]
    watch = ImportWatch()
    with watch.active():
        assert os.getpid() == int(os.readlink("/proc/self"))
        assert uuid.uuid1(5, clock_seq=6).fields[-2:] == (6, 5)
        assert uuid.uuid4().version == 4
        assert (len(secrets.token_bytes()), len(secrets.token_hex(3)), len(secrets.token_urlsafe(3))) == (32, 6, 4)
        assert secrets.randbelow(1) == 0
        assert secrets.choice("a") == "a"
        assert random.Random(5).random() == 0.6229016948897019
        assert [inspect.signature(each) for each in (uuid.uuid1, uuid.uuid4, secrets.token_hex)] == signatures
        for later in ("uuid6", "uuid7"):
            if made := getattr(uuid, later, None):
                assert made().version == int(later[-1])
    assert {call.name for call in watch.calls} >= {"os.getpid", "uuid.uuid4", "secrets.token_hex", "secrets.choice"}
    assert {call.module for call in watch.calls} == {__name__}


def test_a_function_that_was_taken_during_the_import_is_the_very_same_after_it() -> None:
    """A model's default, which is compared, pickled and looked at for years."""
    with ImportWatch().active():
        from uuid import uuid4 as taken
    assert taken is uuid.uuid4
    assert pickle.loads(pickle.dumps(taken)) is taken


def test_a_builtin_that_was_taken_during_the_import_works_on() -> None:
    watch = ImportWatch()
    with watch.active():
        from os import getpid as taken
    assert taken() == os.getpid()
    assert watch.calls == []


def test_the_standard_library_s_own_calls_are_not_noted() -> None:
    watch = ImportWatch()
    with watch.active():
        import logging

        logging.makeLogRecord({})
        logging.LogRecord("x", 10, "p", 1, "m", (), None)  # asks for the pid
    assert watch.calls == []


def test_a_call_without_a_caller_of_its_own_is_noted_once_a_line() -> None:
    watch = ImportWatch()
    with watch.active():
        for _ in range(3):
            os.getpid()
    assert len(watch.calls) == 1


def test_an_exit_callback_that_is_taken_back_is_forgotten() -> None:
    def goodbye() -> None: ...

    watch = ImportWatch()
    with watch.active():
        atexit.register(goodbye)
        assert [callback for callback, _ in watch.exits] == [goodbye]
        atexit.unregister(goodbye)
    assert watch.exits == []


def test_what_dies_has_no_place() -> None:
    class Thing: ...

    places = import_watch.Places()
    thing, other = Thing(), Thing()
    places.add(thing, "here")
    places.add(7, "not kept alive for it")
    assert (places.of(thing), places.of(other), places.of(7)) == ("here", "", "")
    del thing
    assert list(places.alive()) == []


def call_without_a_frame(call: Callable[..., object], *arguments: object) -> None:
    """As a compiled module calls what it needs while it is imported: beneath the import system's own frame."""
    _bootstrap._call_with_frames_removed(call, *arguments)  # type: ignore[attr-defined]


def test_what_a_compiled_module_calls_while_it_is_imported_is_noted() -> None:
    """Cython's and mypyc's modules: their calls were taken for the standard library's."""
    watch, made = ImportWatch(), random.Random.__new__(random.Random)
    with watch.active():
        call_without_a_frame(os.getpid)
        call_without_a_frame(uuid.uuid4)
        call_without_a_frame(atexit.register, int)
        call_without_a_frame(random.Random.__init__, made, 1)
    atexit.unregister(int)
    assert [call.name for call in watch.calls] == ["os.getpid", "uuid.uuid4"]
    assert [callback for callback, _ in watch.exits] == [int]
    assert watch.generators.of(made) != import_watch.STDLIB


def test_a_function_works_in_a_thread_that_begins_in_c_code() -> None:
    """Above it is no frame that could be noted."""
    given: queue.SimpleQueue[int] = queue.SimpleQueue()
    with ImportWatch().active():
        _thread.start_new_thread(map(given.put, iter(os.getpid, 0)).__next__, ())
        assert given.get(timeout=60) == os.getpid()


def test_events_are_noted_with_the_line_that_raised_them(tmp_path: Path) -> None:
    """As the interpreter raises them, for an audit hook that is not in place here."""
    watch = ImportWatch()
    here = f"{__name__}:"
    with watch.active(), socket.socket() as made:
        import_watch._hook("open", (b"read", "r", 0))
        import_watch._hook("open", (7, "r", 0))
        import_watch._hook("sqlite3.connect", (tmp_path / "rows.db",))
        import_watch._hook("socket.__new__", (made, 1, 1, 0))
        import_watch._hook("tempfile.mkdtemp", (str(tmp_path / "made"),))
        import_watch._hook("subprocess.Popen", ("sleep", ["sleep", b"9"], None, None))
        import_watch._hook("os.posix_spawn", ("true", "true", None))
        import_watch._hook("os.fork", ())
        import_watch._hook("import", ("a.native", "/lib/a.so", None, None, None))
        import_watch._hook("import", ("a.module", None, None, None, None))
        import_watch._hook("what.nothing.asks.for", ())
        assert watch.sockets.of(made).startswith(here)
    import_watch._hook("open", ("too late", "r", 0))
    assert set(watch.opened) == {"read", str(tmp_path / "rows.db")}
    assert set(watch.temporary) == {str(tmp_path / "made")}
    assert [child.command for child in watch.children] == [("sleep", "9"), ("true",), ()]
    assert [module for module, _ in watch.native_threads] == ["a.native"]
    places = [*watch.opened.values(), *watch.temporary.values(), *(child.place for child in watch.children)]
    assert all(place.startswith(here) for place in places)


def test_places_of_generators_finalizers_and_seeds_are_noted() -> None:
    class Thing: ...

    watch, thing, state = ImportWatch(), Thing(), random.getstate()
    try:
        with watch.active():
            generator = random.Random()
            weakref.finalize(thing, int)
            random.seed(1)
        assert watch.generators.of(generator).startswith(f"{__name__}:")
        assert [place.partition(":")[0] for _, place in watch.finalizers] == [__name__]
        assert watch.seeded.startswith(f"{__name__}:")
    finally:
        random.setstate(state)


def test_a_module_that_comes_with_the_import_is_watched_from_then_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """No start loads it for the watch alone."""
    for name in ("uuid", "secrets"):
        monkeypatch.delitem(sys.modules, name)
    watch = ImportWatch()
    with watch.active():
        assert not {"uuid", "secrets"} & sys.modules.keys()
        from secrets import token_hex
        from uuid import uuid4

        codes = uuid4.__code__, token_hex.__code__
        uuid4(), token_hex()
    assert {call.name for call in watch.calls} >= {"uuid.uuid4", "secrets.token_hex"}
    assert uuid4.__code__ is not codes[0]
    assert token_hex.__code__ is not codes[1]
