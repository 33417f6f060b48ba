"""systemd/notify-reload.conf under a real systemd, which itself sends the HUP and waits for the end of the reload.

``Type=notify-reload`` exists since systemd 253 (systemd.service(5)).
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from harness import needs
from harness.clients import get
from harness.load import Load
from harness.service_manager import ServiceManager
from harness.site import SHIPPED, Site, installed

pytestmark = pytest.mark.as_root
SERVICE = "myapp.service"
LEAST_SYSTEMD = 253
RELEASE = """
def app(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", "1")])
    return [b"{version}"]
"""


def release(site: Site, version: int, before: str = "") -> None:
    """Write version ``version`` of the application, which runs ``before`` when it is imported."""
    (site.folder / "release.py").write_text(before + RELEASE.format(version=version))


@pytest.fixture(scope="session", autouse=True)
def _new_enough() -> None:
    """Of the manager's scope, so that an old one is not even started."""
    needs.systemd(LEAST_SYSTEMD)


@pytest.fixture
def site(manager: ServiceManager) -> Iterator[Site]:
    """The shipped unit with the shipped drop-in, started, serving version 1."""
    with installed(manager, SERVICE) as made:
        release(made, 1)
        manager.write(f"{SERVICE}.d/zz-notify-reload.conf", (SHIPPED / "notify-reload.conf").read_text())
        made.configure("release:app -w 2 --log-level debug")
        made.start()
        assert made.show("Type") == "notify-reload"
        assert made.show("ExecReload") == ""
        yield made


def versions(site: Site) -> set[str]:
    """What new connections are answered with."""
    return {get(site.address).text for _ in range(20)}


def test_systemctl_reload_returns_when_only_the_new_code_answers(site: Site) -> None:
    with Load(site.address, clients=4) as load:
        for version in (2, 3, 4):
            load.more(50)
            release(site, version)
            site.control("reload", SERVICE)
            assert versions(site) == {str(version)}
            assert site.show("ActiveState") == "active"
            site.log.wait(f"generation {version} serves")
        load.more(50)
    assert load.lost == []
    assert {answer.status for answer in load.answers} == {200}
    assert site.show("NRestarts") == "0"


def test_a_refused_reload_ends_with_the_reason_in_the_status(site: Site) -> None:
    """The protocol has no word for a refusal: systemctl returns 0, and the old code answers."""
    release(site, 2, before="import no_such_module\n")
    site.control("reload", SERVICE)
    status = site.show("StatusText")
    assert status.startswith("reload failed: ")
    assert "no_such_module" in status
    assert site.show("ActiveState") == "active"
    assert versions(site) == {"1"}
    release(site, 3)
    site.control("reload", SERVICE)
    assert versions(site) == {"3"}
    assert site.show("StatusText").startswith("generation")


def test_a_reload_longer_than_timeoutstartsec_is_waited_for(site: Site) -> None:
    """The drop-in's TimeoutStartSec= bounds a reload without progress; an import under way asks for more."""
    impatient = (SHIPPED / "notify-reload.conf").read_text().replace("TimeoutStartSec=135", "TimeoutStartSec=2")
    site.manager.write(f"{SERVICE}.d/zz-notify-reload.conf", impatient)
    site.control("daemon-reload")
    assert site.show("TimeoutStartUSec") == "2s"
    # It is time itself that is tried here.
    release(site, 2, before="import select\nselect.select([], [], [], 5.0)\n")
    site.control("reload", SERVICE)
    assert versions(site) == {"2"}
