"""A connection that the extension accepts is the one that the Python code accepts, to the letter."""

from __future__ import annotations

import errno
import fcntl
import gc
import os
import resource
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from forkserver.linux.descriptor_limit import LOW_NUMBERS, SELECT_LIMIT
from forkserver.linux.sockets.plain_socket import PlainSocket, of_accepted
from harness.alone import alone
from harness.plain_accepting import Accepting, make_context

pytestmark = pytest.mark.extension


@pytest.fixture
def listening() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as made:
        yield made


def connect(address: Any, family: int = socket.AF_INET, bind: Any = None) -> socket.socket:
    client = socket.socket(family)
    if bind is not None:
        client.bind(bind)
    client.connect(address)
    return client


def descriptors() -> set[str]:
    return set(os.listdir("/proc/self/fd"))


# Addresses


@pytest.mark.parametrize("trust", [None, (), ("127.0.0.1",), ("10.0.0.0/8",), ("*",)])
@pytest.mark.parametrize("names", [None, ("a", "80")])
def test_a_client_of_ipv4_is_the_same(
    listening: socket.socket, names: tuple[str, str] | None, trust: tuple[str, ...] | None
) -> None:
    with connect(listening.getsockname()) as client:
        seen, expected = Accepting(listening, names, trust).both_views()
        assert seen == expected
        assert seen[0] == client.getsockname()


@pytest.mark.parametrize("host", ["127.0.0.1", "127.1.20.255", "127.255.255.254"])
def test_each_byte_of_an_address_is_written_as_the_standard_library_does(listening: socket.socket, host: str) -> None:
    with connect(listening.getsockname(), bind=(host, 0)):
        seen, expected = Accepting(listening).both_views()
        assert seen == expected
        assert seen[0][0] == host


@pytest.mark.parametrize("port", [1024, 9999, 10000, 65535])
def test_a_port_has_as_many_digits_as_it_needs(listening: socket.socket, port: int) -> None:
    try:
        client = connect(listening.getsockname(), bind=(f"127.{os.getpid() % 200 + 1}.{port % 251}.9", port))
    except OSError as error:
        pytest.skip(f"port {port} is not to be had: {error}")
    with client:
        seen, expected = Accepting(listening).both_views()
        assert seen == expected
        assert seen[0][1] == port


@pytest.mark.parametrize("host", ["::1", "127.0.0.1"])
def test_a_client_of_ipv6_is_the_same_and_ipv4_within_it_its_own(host: str) -> None:
    if not socket.has_dualstack_ipv6():
        pytest.skip("IPv6 is not to be had here")
    with socket.create_server(("::", 0), family=socket.AF_INET6, dualstack_ipv6=True) as listening:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        with connect((host, listening.getsockname()[1]), family):
            seen, expected = Accepting(listening).both_views()
            assert seen == expected
            assert (seen[0][0], len(seen[0])) == (host, 4 if ":" in host else 2)


@pytest.mark.process
def test_a_client_with_a_scope_id_is_the_same() -> None:
    """An address of one link, which only an interface of a namespace of our own is sure to have."""
    unshare, ip = shutil.which("unshare"), shutil.which("ip", path="/usr/sbin:/sbin:/usr/bin:/bin")
    script = f'{ip} link set lo up && {ip} -6 addr add fe80::7/64 dev lo && exec "$0" -m harness.plain_accepting'
    made = unshare and ip and [unshare, "--user", "--map-root-user", "--net", "sh", "-c"]
    if not made or subprocess.run([*made, "true"], capture_output=True).returncode:
        pytest.skip("a network namespace cannot be made here, or ip is not installed")
    environ = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([*made, script, sys.executable], env=environ, capture_output=True, text=True)
    if "RTNETLINK" in done.stderr:
        pytest.skip("IPv6 is not to be had here")
    assert (done.stdout, done.stderr) == ("equal\n", "")


@pytest.mark.parametrize("bind", [None, b"\0abstract %d", "named", b"\xff\n"])
def test_a_client_of_a_unix_socket_is_the_same(tmp_path: Path, bind: Any) -> None:
    """Without a name, abstract, with a path, and with one that is no text."""
    if isinstance(bind, bytes) and bind.startswith(b"\0"):
        bind = bind % os.getpid()
    elif bind is not None:
        bind = os.path.join(os.fsencode(tmp_path), os.fsencode(bind))
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "listening"))
        listening.listen()
        for names in (None, ("localhost", "80")):
            with connect(listening.getsockname(), socket.AF_UNIX, bind):
                seen, expected = Accepting(listening, names).both_views()
                assert seen == expected
                assert seen[0] == ("", 0)
            if bind is not None and not bind.startswith(b"\0"):
                os.unlink(bind)


# Sockets

OPTIONS = (
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE), (socket.SOL_SOCKET, socket.SO_LINGER),
    (socket.SOL_SOCKET, socket.SO_RCVLOWAT), (socket.SOL_SOCKET, socket.SO_PRIORITY),
    (socket.SOL_SOCKET, socket.SO_BINDTODEVICE), (socket.SOL_SOCKET, socket.SO_INCOMING_CPU),
    (socket.IPPROTO_TCP, socket.TCP_NODELAY), (socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT),
    (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE), (socket.IPPROTO_TCP, socket.TCP_CONGESTION),
)  # fmt: skip


def looks(sock: socket.socket) -> list[Any]:
    """What there is to see of a socket, but for its number and its client's."""
    flags = fcntl.fcntl(sock, fcntl.F_GETFL), fcntl.fcntl(sock, fcntl.F_GETFD)
    options = [sock.getsockopt(level, option, 64) for level, option in OPTIONS]
    return [type(sock), sock.family, sock.type, sock.proto, sock.timeout, sock.getblocking(), *flags, *options]


def test_its_socket_is_the_one_that_the_standard_library_accepts(listening: socket.socket) -> None:
    """What the listener was set to is inherited: its device, congestion control, and whether small parts wait."""
    listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 77_000)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"lo")
    accepting = Accepting(listening)
    with connect(listening.getsockname()) as first, connect(listening.getsockname()) as second:
        accepted = accepting.by_extension()
        with of_accepted(accepted) as sock, accepting.by_python() as other:
            assert looks(sock) == looks(other)
            assert sock.timeout == 0.0
            assert not sock.get_inheritable()
            assert accepted.fileno() == -1
            sock.sendall(b"1")
            other.sendall(b"2")
            assert (first.recv(9), second.recv(9)) == (b"1", b"2")


def test_the_default_timeout_of_the_application_is_not_its_own(listening: socket.socket) -> None:
    """Else a read would wait."""
    socket.setdefaulttimeout(7)
    try:
        accepting = Accepting(listening)
        with connect(listening.getsockname()), of_accepted(accepting.by_extension()) as sock:
            assert sock.timeout == 0.0
            with pytest.raises(BlockingIOError):
                sock.recv(1)
    finally:
        socket.setdefaulttimeout(None)


def test_a_closed_one_gives_a_closed_socket(listening: socket.socket) -> None:
    """As a handler of errors gets it, when the connection was closed before."""
    accepting = Accepting(listening)
    with connect(listening.getsockname()) as client:
        accepted = accepting.by_extension()
        for _ in range(2):
            accepted.close()
        assert client.recv(1) == b""
        sock = of_accepted(accepted)
        assert (type(sock), sock.fileno()) == (PlainSocket, -1)


def test_one_that_is_dropped_is_closed(listening: socket.socket) -> None:
    accepting = Accepting(listening)
    with connect(listening.getsockname()) as client:
        accepting.by_extension()
        assert client.recv(1) == b""


def test_one_that_was_detached_is_not_closed(listening: socket.socket) -> None:
    accepting = Accepting(listening)
    with connect(listening.getsockname()) as client:
        accepted = accepting.by_extension()
        number = accepted.detach()
        accepted.close()
        del accepted
        assert os.write(number, b"x") == 1
        assert client.recv(1) == b"x"
        os.close(number)


def test_low_numbers_are_left_to_the_application(listening: socket.socket) -> None:
    """As the Python code does it: select(2) has no higher ones than 1023."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < 2 * SELECT_LIMIT:
        pytest.skip("the limit of open files is too low")
    accepting = Accepting(listening)
    taken: list[int] = []
    resource.setrlimit(resource.RLIMIT_NOFILE, (2 * SELECT_LIMIT, hard))
    try:
        with connect(listening.getsockname()):
            accepted = accepting.by_extension()
            assert accepted.fileno() < LOW_NUMBERS
        while not taken or taken[-1] < LOW_NUMBERS:
            taken.append(os.dup(0))
        with connect(listening.getsockname()) as client:
            accepted = accepting.by_extension()
            assert accepted.fileno() >= SELECT_LIMIT
            assert fcntl.fcntl(accepted.fileno(), fcntl.F_GETFD) == fcntl.FD_CLOEXEC
            os.write(accepted.fileno(), b"x")
            assert client.recv(9) == b"x"
        resource.setrlimit(resource.RLIMIT_NOFILE, (SELECT_LIMIT, hard))
        with connect(listening.getsockname()):
            accepted = accepting.by_extension()
            assert LOW_NUMBERS < accepted.fileno() < SELECT_LIMIT, "no higher one is to be had"
    finally:
        for number in taken:
            os.close(number)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


# Errors


def test_where_no_client_waits_there_is_none(listening: socket.socket) -> None:
    accepting = Accepting(listening)
    assert accepting.context.accept(listening.fileno(), (2, 1, 0), None) is None


def test_an_error_is_the_one_that_the_standard_library_raises(listening: socket.socket) -> None:
    with socket.socket() as idle, open("/dev/null") as file:
        for number, code in ((idle.fileno(), errno.EINVAL), (file.fileno(), errno.ENOTSOCK), (-1, errno.EBADF)):
            with pytest.raises(OSError, match=os.strerror(code)) as raised:
                make_context(None).accept(number, (2, 1, 0), None)
            assert (type(raised.value), raised.value.errno) == (OSError, code)


def test_a_sandbox_without_accept4_has_the_standard_library_accept(listening: socket.socket) -> None:
    """Which does with accept(2)."""

    class Context:
        def accept(self, *_arguments: object) -> Any:
            raise OSError(errno.ENOSYS, "no such system call")

    accepting = Accepting(listening)
    unsafe: Any = Context()
    assert accepting.listener.accept_plain(unsafe, (2, 1, 0)) is None
    assert accepting.listener.plain_kind is None
    with connect(listening.getsockname()), accepting.by_python() as sock:
        assert type(sock) is PlainSocket


@pytest.mark.parametrize(
    "arguments", [(), (0,), (0, (2, 1, 0)), (0, [2, 1, 0], None), (0, (2, 1, 0), "ab"), (0, (2, 1, 0), ("a",))]
)
def test_what_is_not_meant_so_is_refused(arguments: tuple[Any, ...]) -> None:
    with pytest.raises(TypeError, match="accept takes"):
        make_context(None).accept(*arguments)
    with pytest.raises(TypeError):
        make_context(None).accept("0", (2, 1, 0), None)


def test_a_fault_in_the_list_of_proxies_closes_the_connection(listening: socket.socket) -> None:
    def trusts(host: str) -> bool:
        raise LookupError(host)

    accepting = Accepting(listening)
    before = descriptors()
    with connect(listening.getsockname()) as client:
        accepting.await_client()
        with pytest.raises(LookupError, match=r"^127\.0\.0\.1$"):
            make_context(trusts).accept(listening.fileno(), (2, 1, 0), None)
        assert client.recv(1) == b""
    assert descriptors() == before


def test_a_signal_whose_handler_returns_does_not_end_it(listening: socket.socket) -> None:
    """PEP 475. The listener blocks here, so that the signal finds accept(2) waiting."""
    accepting = Accepting(listening)
    listening.setblocking(True)
    clients: list[socket.socket] = []
    before = signal.signal(signal.SIGALRM, lambda *_signal: clients.append(connect(listening.getsockname())))
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.01)
        accepted = accepting.context.accept(listening.fileno(), (2, 1, 0), None)
        assert accepted.peer == clients[0].getsockname()
    finally:
        signal.signal(signal.SIGALRM, before)
        for client in clients:
            client.close()


def test_a_signal_whose_handler_raises_ends_it(listening: socket.socket) -> None:
    def interrupt(*_signal: object) -> None:
        raise InterruptedError("by the handler")

    accepting = Accepting(listening)
    listening.setblocking(True)
    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.01)
        with pytest.raises(InterruptedError, match="by the handler"):
            accepting.context.accept(listening.fileno(), (2, 1, 0), None)
    finally:
        signal.signal(signal.SIGALRM, before)


# Memory


def test_an_allocation_that_fails_costs_one_connection(tmp_path: Path) -> None:
    """It is closed, and the next client is accepted as ever."""
    _testcapi = pytest.importorskip("_testcapi", exc_type=ImportError)
    with ExitStack() as stack:
        ipv4 = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        local = stack.enter_context(socket.socket(socket.AF_UNIX))
        local.bind(str(tmp_path / "listening"))
        local.listen()
        servers = [ipv4, local]
        if socket.has_dualstack_ipv6():
            servers.append(stack.enter_context(socket.create_server(("::1", 0), family=socket.AF_INET6)))

        def check() -> None:
            gc.disable()
            sys.settrace(None)
            for listening in servers:
                accepting = Accepting(listening, trust=("127.0.0.1", "::1", "unix"))  # found without parsing
                before = descriptors()
                failed = sum(_fails(accepting, start, _testcapi) for start in range(20))
                assert 2 <= failed < 20
                assert descriptors() == before

        alone(check)


def _fails(accepting: Accepting, start: int, _testcapi: Any) -> bool:
    listening = accepting.listening
    number, accept = listening.fileno(), accepting.context.accept
    with connect(listening.getsockname(), listening.family) as client:
        accepting.await_client()
        gc.collect()  # no tuple is kept for the next one
        _testcapi.set_nomemory(start, start + 1)
        try:
            accepted = accept(number, (2, 1, 0), None)
        except MemoryError:
            accepted = None
        finally:
            _testcapi.remove_mem_hooks()
        failed = accepted is None
        del accepted
        assert client.recv(1) == b"", "it is closed in either case"
    return failed


def test_references_are_flat_over_many_connections(listening: socket.socket) -> None:
    accepting = Accepting(listening, ("a", "80"))
    names, kind = accepting.listener.names, accepting.listener.plain_kind
    watched = [names, kind, accepting.context, None, True, False, ("a", "80")]

    def counts() -> list[int]:
        gc.collect()
        return [*(sys.getrefcount(each) for each in watched), sys.getallocatedblocks()]

    def accept(times: int) -> None:
        for _ in range(times):
            with connect(listening.getsockname()):
                accepting.by_extension()

    def grown() -> set[int]:
        before = counts()
        accept(500)
        return {at for at, (more, less) in enumerate(zip(counts(), before, strict=True)) if more - less >= 100}

    accept(50)
    found = grown()
    for _ in range(3 if found else 0):  # blocks are those of the whole process; a leak of ours grows each time
        found &= grown()
    assert found == set()
