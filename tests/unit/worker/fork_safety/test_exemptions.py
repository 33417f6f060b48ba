"""What is let pass is what was meant, and nothing beside it."""

from __future__ import annotations

import ctypes
import random
import sys
import tempfile
from types import ModuleType, SimpleNamespace

import pytest

from forkserver.worker.fork_safety import exemptions
from forkserver.worker.fork_safety.exemptions import Exemption


def pretend(monkeypatch: pytest.MonkeyPatch, name: str, **attributes: object) -> None:
    module = ModuleType(name)
    vars(module).update(attributes)
    monkeypatch.setitem(sys.modules, name, module)


@pytest.mark.parametrize(
    ("name", "is_exempt"),
    [("a.b", True), ("a.b.c", True), ("a", False), ("a.bc", False), ("x.a.b", False)],
)
def test_an_exemption_is_for_a_name_and_what_is_below_it(name: str, is_exempt: bool) -> None:
    assert exemptions.exempt((Exemption("a.b", "a reason"),), name) is is_exempt


def test_each_exemption_has_its_reason() -> None:
    for each in (*exemptions.EXIT_CALLBACKS, *exemptions.FINALIZERS, *exemptions.IDENTITIES):
        assert len(each.reason.split()) > 3, each


def test_generators_that_know_of_forks_are_let_pass() -> None:
    tempfile.mktemp()
    own = vars(tempfile)["_name_sequence"]._rng
    assert all(map(exemptions.generator, (vars(random)["_inst"], random.SystemRandom(), own)))
    assert not exemptions.generator(random.Random())


class Numpy:
    """Its global generator, as far as it is asked."""

    def __init__(self, position: int = 623, name: str = "MT19937", seeds: object = 1) -> None:
        self._bit_generator = SimpleNamespace(seed_seq=seeds)
        self.state: dict[str, object] = {"bit_generator": name, "state": {"pos": position}}
        self.seeded = 0

    def get_state(self, legacy: bool) -> dict[str, object]:
        assert not legacy
        return self.state

    def seed(self) -> None:
        self.seeded += 1


@pytest.mark.parametrize(
    ("held", "is_changed"),
    [
        (Numpy(), False),
        (Numpy(position=2), True),
        (Numpy(seeds=None), True),
        (Numpy(name="PCG64"), True),
        (SimpleNamespace(), False),
    ],
    ids=["fresh", "used", "seeded", "replaced", "unknown"],
)
def test_numpy_s_global_generator_is_seeded_anew_unless_the_application_has(
    monkeypatch: pytest.MonkeyPatch, held: Numpy | SimpleNamespace, is_changed: bool
) -> None:
    pretend(monkeypatch, "numpy.random.mtrand", _rand=held)
    assert exemptions.generator(held)
    assert exemptions.numpy_state_is_changed() is is_changed
    if isinstance(held, Numpy):
        exemptions.reseed_numpy()
        assert held.seeded == (0 if is_changed else 1)


def test_without_numpy_nothing_is_seeded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "numpy.random.mtrand", raising=False)
    assert not exemptions.numpy_state_is_changed()
    exemptions.reseed_numpy()


def test_threads_of_openblas_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each copy has one fewer than it computes with, and none after a fork."""
    libraries = {
        "/lib/libscipy_openblas64_.so": SimpleNamespace(scipy_openblas_get_num_threads64_=lambda: 4),
        "/lib/libopenblas.so.0": SimpleNamespace(openblas_get_num_threads=lambda: 2),
        "/lib/libopenblas-other.so": SimpleNamespace(),
        "/lib/libopenblas-forked.so": SimpleNamespace(openblas_get_num_threads=lambda: 64),
    }
    forked = libraries["/lib/libopenblas-forked.so"]
    monkeypatch.setattr(exemptions, "_openblas_runs", lambda library: library is not forked)
    monkeypatch.setattr(exemptions, "_mapped_libraries", lambda name: set(libraries) if name == "openblas" else set())
    monkeypatch.setattr(ctypes, "CDLL", libraries.__getitem__)
    assert exemptions.pool_threads() == 4


def test_a_build_that_does_not_tell_is_taken_to_have_its_threads() -> None:
    assert exemptions._openblas_runs(ctypes.CDLL(None))


def test_mapped_libraries_are_found_by_their_file_s_name() -> None:
    assert any("libc" in path for path in exemptions._mapped_libraries("libc"))
    assert exemptions._mapped_libraries("no such library") == set()
