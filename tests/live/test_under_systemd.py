"""The shipped units under a real systemd: start, reload, restart, stop."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.clients import Wire, get
from harness.gate import Gate
from harness.load import Load
from harness.service_manager import UNITS, ServiceManager
from harness.site import Site, installed

pytestmark = pytest.mark.as_root
SERVICE, SOCKET = "myapp.service", "myapp.socket"


@pytest.fixture
def site(manager: ServiceManager) -> Iterator[Site]:
    with installed(manager) as made:
        yield made


@pytest.fixture
def held(site: Site) -> Iterator[Gate]:
    """The site with a gate that its application can stand at."""
    gate = Gate(site.folder)
    yield gate
    gate.close()


def variables(gate: Gate) -> str:
    return "".join(f"Environment={name}={value}\n" for name, value in gate.environ.items())


def test_it_is_not_ready_while_the_application_is_imported(site: Site, held: Gate) -> None:
    """What is ordered after a service that said READY too early meets closed doors."""
    (site.folder / "slow.py").write_text("from raw import app, stand_at_gate\nstand_at_gate()\n")
    site.configure("slow:app -w 2", variables(held))
    site.control("start", "--no-block", SERVICE)
    held.wait_for()
    assert site.show("ActiveState") == "activating"
    held.open()
    site.start()  # joins the start that is under way
    assert site.show("ActiveState") == "active"
    assert site.workers() == 2


def test_start_returns_when_every_worker_is_ready(site: Site) -> None:
    site.control("start", SERVICE)
    assert site.workers() == 2
    assert site.show("ActiveState") == "active"
    assert "2 workers" in site.show("StatusText")
    assert get(site.address).status == 200


def test_a_request_sent_before_the_start_is_answered(site: Site) -> None:
    """The socket unit listens before the service exists; the first request starts it."""
    site.control("start", SOCKET)
    assert site.show("ActiveState") == "inactive"
    assert get(site.address).status == 200
    site.control("start", SERVICE)  # joins the start that the request began
    assert site.show("ActiveState") == "active"


def test_systemctl_reload_under_load_loses_nothing(site: Site) -> None:
    site.control("start", SERVICE)
    with Load(site.address, clients=8) as load:
        load.more(500)
        for generation in (2, 3, 4):
            site.control("reload", SERVICE)
            site.log.wait(f"generation {generation} serves")
            load.more(200)
    assert load.lost == []
    assert {answer.status for answer in load.answers} == {200}


def test_broken_code_fails_the_reload_and_the_old_serves_on(site: Site) -> None:
    """Whoever deploys must learn it from the exit status, and why from the journal and from systemctl status."""
    site.control("start", SERVICE)
    good = (site.folder / "raw.py").read_text()
    with Load(site.address, clients=8) as load:
        load.more(200)
        (site.folder / "raw.py").write_text(good + "\nimport no_such_module\n")
        assert site.manager.systemctl("reload", SERVICE).returncode != 0
        site.log.wait("No module named 'no_such_module'")
        assert "no_such_module" in site.show("StatusText")
        assert site.show("ActiveState") == "active"
        load.more(200)
        (site.folder / "raw.py").write_text(good)
        site.control("reload", SERVICE)
        load.more(200)
    assert load.lost == []
    assert {answer.status for answer in load.answers} == {200}
    site.log.wait("generation 3 serves")


def test_a_restart_under_load_refuses_nobody(site: Site) -> None:
    """What is queued at the socket unit belongs to the successor."""
    site.control("start", SERVICE)
    with Load(site.address, clients=8) as load:
        load.more(200)
        site.control("restart", SERVICE)
        load.more(200)
    assert load.lost == []


def test_an_upgrade_keeps_the_unit_active(site: Site) -> None:
    """Same MAINPID, no restart, nobody refused; a later reload and a stop are as ever."""
    site.control("start", SERVICE)
    pid = site.manager.show(SERVICE, "MainPID")
    since = site.log.mark()  # the journal has the other tests' too
    with Load(site.address, clients=8) as load:
        load.more(200)
        for generation in (2, 3):
            site.control("kill", "--signal=USR2", "--kill-whom=main", SERVICE)
            site.log.wait(f"generation {generation} serves", since)
            load.more(200)
        site.control("reload", SERVICE)
        site.log.wait("generation 4 serves", since)
    assert load.lost == []
    site.log.wait("upgraded to forkserver", since)
    for name, value in (("MainPID", pid), ("ActiveState", "active"), ("NRestarts", "0"), ("ExecMainPID", pid)):
        assert site.manager.show(SERVICE, name) == value
    assert "generation 4 serves" in site.manager.show(SERVICE, "StatusText")
    site.control("stop", SERVICE)
    assert site.manager.show(SERVICE, "Result") == "success"


def test_a_refused_upgrade_is_in_the_status(site: Site) -> None:
    site.control("start", SERVICE)
    (site.folder / "forkserver.toml").write_text("threads = 'many'\n")
    site.control("kill", "--signal=USR2", "--kill-whom=main", SERVICE)
    site.log.wait("upgrade refused: ")
    assert site.manager.show(SERVICE, "StatusText").startswith("upgrade refused: ")
    assert site.manager.show(SERVICE, "ActiveState") == "active"
    assert get(site.address).status == 200


def test_stop_is_clean(site: Site) -> None:
    site.control("start", SERVICE)
    with Wire(site.address) as parked:
        assert parked.get().status == 200
        site.control("stop", SERVICE)
        assert parked.ended()
    assert site.show("Result") == "success"
    assert site.show("ExecMainStatus") == "0"
    assert site.workers() == 0


def test_a_stop_during_a_reload_is_clean_too(site: Site, held: Gate) -> None:
    """A deploy that hangs is stopped by hand; a unit that counts as failed then would call somebody for nothing."""
    site.configure("raw:app -w 2", variables(held))
    site.control("start", SERVICE)
    good = (site.folder / "raw.py").read_text()
    (site.folder / "raw.py").write_text(good + "\nstand_at_gate()\n")
    site.control("reload", "--no-block", SERVICE)
    held.wait_for()
    site.control("stop", SERVICE)
    assert site.show("ActiveState") == "inactive"
    assert site.manager.show(SERVICE, "Result") == "success"


def test_a_stop_under_load_keeps_its_limits(site: Site, held: Gate) -> None:
    """A call that never ends costs graceful_timeout, not TimeoutStopSec: systemd has nothing to kill."""
    site.configure("raw:app -w 2 --graceful-timeout 1", variables(held))
    site.control("start", SERVICE)
    with Load(site.address, clients=8) as load, Wire(site.address) as endless:
        load.more(100)
        endless.ask("/gate")
        held.wait_for()
        site.control("stop", SERVICE)
        assert site.show("Result") == "success"
        assert site.show("ExecMainStatus") == "0"
        assert site.workers() == 0
        site.control("start", SERVICE)  # the clients that stand in the queue of the socket unit go on
        load.more(100)


def errors(site: Site) -> str:
    return site.manager.run("journalctl", "--priority=err", "--output=cat", f"--unit={SERVICE}").stdout


def test_the_journal_knows_the_level_of_each_line(site: Site) -> None:
    """`journalctl -p err` is what is looked at in the night: an error with its traceback, and nothing else."""
    site.control("start", SERVICE)
    since = site.log.mark()
    get(site.address, "/fail")
    site.log.wait("fails on purpose", since)
    found = errors(site)
    assert "RuntimeError: the application fails on purpose" in found
    assert "serving raw:app" not in found


def test_a_mistake_is_shown_and_not_tried_again(site: Site) -> None:
    """RestartPreventExitStatus=2: a restart loop does not correct a typo."""
    site.configure("raw:no_such_app")
    assert site.manager.systemctl("start", SERVICE).returncode != 0
    site.log.wait("no_such_app")
    assert "no_such_app" in errors(site)
    assert site.show("ExecMainStatus") == "2"
    assert site.show("ActiveState") == "failed"
    assert site.show("NRestarts") == "0"


def test_a_mistake_is_not_started_for_ever_by_clients_that_wait(site: Site) -> None:
    """The socket unit starts the service as long as a client waits; more than one start a second is an end of that."""
    site.configure("raw:no_such_app")
    site.configure_socket("TriggerLimitBurst=2\n")
    site.control("start", SOCKET)
    with Wire(site.address) as waiting:
        waiting.ask("/")
        assert waiting.ended()
    assert site.manager.show(SOCKET, "Result") == "trigger-limit-hit"
    assert site.show("ExecMainStatus") == "2"


BEYOND_THE_LIMIT = 6  # restarts; systemd's own limit, where no unit sets another, is 5 starts in 10 s


def lacking(site: Site) -> Path:
    """Have the site's application load only where the file returned is there; retries are quick."""
    database = site.folder / "database"
    (site.folder / "shop.py").write_text(f"from raw import app\nopen({str(database)!r}).close()\n")
    site.configure("shop:app -w 2", "RestartSec=0.1\n")
    return database


def wait_for_retries(site: Site, many: int) -> None:
    site.log.until(lambda: int(site.show("NRestarts")) >= many, f"{many} retries")


def test_an_application_that_waits_for_its_database_serves_once_that_is_back(site: Site) -> None:
    """At boot all starts together. A client that came meanwhile stands in the queue of the socket unit."""
    database = lacking(site)
    site.control("start", SOCKET)
    with Wire(site.address) as waiting:
        waiting.ask("/")  # and the socket unit starts the service whenever it has ended
        wait_for_retries(site, BEYOND_THE_LIMIT)
        assert site.manager.show(SOCKET, "ActiveState") == "active"
        database.touch()
        assert waiting.answer().status == 200
    site.start()  # joins the start that is under way
    assert site.show("ActiveState") == "active"


def test_it_does_so_without_a_socket_unit_after_a_start_that_failed_at_once(site: Site) -> None:
    """A person who types `systemctl start` hears of broken code at the first exit, with its reason."""
    site.manager.run("rm", f"{UNITS}/{SOCKET}")
    database = lacking(site)
    assert site.manager.systemctl("start", SERVICE).returncode != 0
    assert "FileNotFoundError" in errors(site)
    wait_for_retries(site, 1)
    database.touch()
    site.log.wait("serving shop:app")
    site.start()  # joins the start that is under way
    assert site.show("ActiveState") == "active"


def test_a_killed_master_is_started_again(site: Site) -> None:
    site.control("start", SERVICE)
    site.log.wait("serving raw:app")
    since = site.log.mark()
    site.manager.systemctl("kill", "--signal=KILL", "--kill-whom=main", SERVICE)
    site.log.wait("serving raw:app", since)
    assert get(site.address).status == 200
    assert site.show("NRestarts") == "1"


HUNGRY = """
from raw import app as plain
taken = b"x" * ({at_import} << 20)

def app(environ, start_response):
    global more
    if environ["PATH_INFO"] == "/grow":
        more = b"x" * (200 << 20)
    return plain(environ, start_response)
"""


def test_a_reload_without_memory_for_two_generations_fails_and_costs_nothing(site: Site) -> None:
    """The kernel chose the largest, which was the worker that served, and the reload went on and returned success."""
    hungry = site.folder / "hungry.py"
    hungry.write_text(HUNGRY.format(at_import=1))
    site.configure("hungry:app -w 1 --preload on", "MemoryMax=300M\nMemorySwapMax=0\n")
    site.control("start", SERVICE)
    if not site.show("MemoryCurrent").isdecimal():
        pytest.skip("systemd cannot limit memory here: no memory controller")
    assert get(site.address, "/grow").status == 200
    before = get(site.address, "/pid").text
    hungry.write_text(HUNGRY.format(at_import=500))
    assert site.manager.systemctl("reload", SERVICE).returncode != 0
    assert "out of memory; raise the memory limit" in site.show("StatusText")
    assert get(site.address, "/pid").text == before
