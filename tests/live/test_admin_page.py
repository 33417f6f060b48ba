"""The page of the admin process in a real browser: what happens to the service is seen happening."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.admin_clients import admin_of
from harness.browser import Browser
from harness.controlled import ControlledProgram, StartControlled
from harness.gate import Gate

HOSTILE = "/gate/<img/src=x/onerror=document.title=1>&amp;"
WORKER = "[...document.querySelectorAll('#workers > li')]"


@pytest.fixture
def service(controlled: StartControlled, gate: Gate) -> ControlledProgram:
    return controlled("raw:app", "-w", "2", "--admin-bind", "127.0.0.1:0", environ=gate.environ)


@pytest.fixture
def address(service: ControlledProgram) -> str:
    host, port = admin_of(service).address
    return f"http://{host}:{port}/"


@pytest.fixture
def chromium() -> Iterator[Browser]:
    made = Browser()
    yield made
    made.close()


@pytest.fixture
def page(chromium: Browser, address: str) -> Iterator[Browser]:
    """The page, once it shows both workers; in the end it has asked nothing elsewhere and found no fault."""
    chromium.open(address)
    chromium.until("document.querySelectorAll('#workers > li').length === 2")
    yield chromium
    assert {each.partition("?")[0].rpartition("/")[0] + "/" for each in chromium.requests} <= {address, "data:,/", "/"}
    assert chromium.complaints == []


def test_it_shows_each_worker_and_the_service(page: Browser, service: ControlledProgram) -> None:
    text = page.text()
    assert "raw:app" in text
    assert "serving, 2 of 2 workers serve" in text
    for worker in service.workers():
        assert f"worker {worker['worker']}: serving" in text
        assert f"pid {worker['pid']}" in text


def test_a_slow_call_is_seen_with_its_request_as_text(page: Browser, service: ControlledProgram, gate: Gate) -> None:
    """A request line is what a client has sent: nothing in it becomes an element or runs."""
    with service.program.connect() as wire:
        wire.ask(HOSTILE)
        gate.wait_for()
        page.until(f"{WORKER}.some(each => each.className === 'busy' && each.innerText.includes('onerror'))")
        assert HOSTILE in page.text()
        assert page.evaluate("document.querySelectorAll('img').length") == 0
        gate.open()
        assert wire.answer().status == 200
    page.until(f"{WORKER}.every(each => each.className === 'good')")


def test_a_reload_and_a_death_are_seen_as_they_happen(page: Browser, service: ControlledProgram) -> None:
    victim = service.workers()[0]["pid"]
    os.kill(victim, signal.SIGKILL)
    page.until("document.getElementById('ends').innerText.includes('SIGKILL')")
    page.until(f"!document.body.innerText.includes('pid {victim},') && {WORKER}.length === 2")
    service.program.send(signal.SIGHUP)
    page.until(f"{WORKER}.length === 2 && {WORKER}.every(each => each.innerText.includes('generation 2'))")
    page.until("document.getElementById('about').innerText.startsWith('generation 2')")


def test_a_refused_reload_is_told_with_its_reason(
    chromium: Browser, controlled: StartControlled, tmp_path: Path
) -> None:
    (tmp_path / "mysite.py").write_text("from raw import app\n")
    service = controlled("mysite:app", "--admin-bind", "127.0.0.1:0")
    host, port = admin_of(service).address
    (tmp_path / "mysite.py").write_text("raise RuntimeError('<b>broken</b>')\n")
    service.program.send(signal.SIGHUP)
    service.program.log.wait("reload failed")
    chromium.open(f"http://{host}:{port}/")
    chromium.until("document.getElementById('failuretext').innerText.includes('<b>broken</b>')")


def test_its_curves_have_what_happened_before_it_was_opened(page: Browser, service: ControlledProgram) -> None:
    with service.program.connect() as wire:
        for _ in range(50):
            assert wire.get("/hello").status == 200
        assert wire.get("/fail").status == 500
    page.until("Number(document.getElementById('v-rate').innerText) > 0")
    page.until("Number(document.getElementById('v-errors').innerText) > 0")
    page.until("/ms|s/.test(document.getElementById('v-latency').innerText)")
    page.until(r"/^[1-9]\d* MiB, .\d+ MiB in /.test(document.getElementById('v-memory').innerText)")
    page.reload()
    page.until("document.querySelector('#c-rate polyline')?.getAttribute('points').split(' ').length > 1")
    assert re.match(
        r"Answers a second: \d", page.evaluate("document.getElementById('c-rate').getAttribute('aria-label')")
    )


@pytest.mark.parametrize("dark", [False, True])
def test_it_fits_a_phone_and_is_read_by_day_and_night(page: Browser, address: str, dark: bool) -> None:
    """No sideways scrolling at 320 pixels (WCAG 1.4.10), and a contrast of 4.5 to 1 for text (WCAG 1.4.3)."""
    page.open(address, width=320, dark=dark)
    page.until("document.querySelectorAll('#workers > li').length === 2")
    assert page.evaluate("document.documentElement.scrollWidth") <= 320
    least = page.evaluate(
        """(() => {
          const numbers = color => color.match(/[\\d.]+/g).map(Number);
          const light = color => {
            const [r, g, b] = numbers(color).map(v => (v /= 255) <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
            return 0.2126 * r + 0.7152 * g + 0.0722 * b;
          };
          const behind = it => {
            for (; it; it = it.parentElement) {
              const color = getComputedStyle(it).backgroundColor;
              if (numbers(color)[3] !== 0) return color;
            }
            return "rgb(255, 255, 255)";
          };
          const ratios = [...document.querySelectorAll(
            "h1, h2, h3, p, span, a, b, figcaption, code, th, td"
          )].map(it => {
            const pair = [light(getComputedStyle(it).color), light(behind(it))].sort((a, b) => b - a);
            return (pair[0] + 0.05) / (pair[1] + 0.05);
          });
          return Math.min(...ratios);
        })()"""
    )
    assert least >= 4.5


def test_a_reader_of_the_screen_has_names_for_all_of_it(page: Browser) -> None:
    """Every section and picture has a name, changes of the state are told, and the tab key reaches the links."""
    page.until("document.querySelector('#c-rate').getAttribute('aria-label')")
    tree = page.call("Accessibility.getFullAXTree")["nodes"]
    named = {(node["role"]["value"], node.get("name", {}).get("value", "")) for node in tree if not node["ignored"]}
    for role, name in (
        ("region", "Workers"),
        ("region", "Ends of workers"),
        ("heading", "raw:app"),
        ("link", "/metrics"),
    ):
        assert (role, name) in named
    assert {name for role, name in named if role in ("image", "img")} >= {
        page.evaluate("document.querySelector('#c-rate').getAttribute('aria-label')")
    }
    assert ("status", "") in {(role, "") for role, _ in named}


def test_a_page_whose_service_has_stopped_says_so(page: Browser, service: ControlledProgram) -> None:
    assert service.program.stop() == 0
    page.until("document.getElementById('state').innerText.includes('no answer')")
    page.complaints.clear()  # the browser's own, on connections that are refused


def test_slow_requests_and_deaths_are_told_one_by_one(
    chromium: Browser, controlled: StartControlled, gate: Gate
) -> None:
    """While the call runs, and when it is over; and what a worker was at when it died."""
    service = controlled("raw:app", "--admin-bind", "127.0.0.1:0", "--slow-log", "200ms", environ=gate.environ)
    host, port = admin_of(service).address
    chromium.open(f"http://{host}:{port}/")
    chromium.until("document.getElementById('noslow').offsetParent !== null")
    row = "(document.querySelector('#slow > li')?.innerText ?? '')"
    with service.program.connect() as wire:
        wire.ask(HOSTILE, headers="X-Request-Id: slow-one\r\n")
        gate.wait_for()
        chromium.until(f"{row}.includes('so far') && {row}.includes('raw.py')")
        shown = chromium.evaluate(row)
        for text in (HOSTILE, "client 127.0.0.1, request slow-one", f"worker 1, pid {service.workers()[0]['pid']}"):
            assert text in shown
        gate.open()
        assert wire.answer().status == 200
    chromium.until(f"{row}.includes('slow-one') && !{row}.includes('so far')")
    assert chromium.evaluate("document.querySelectorAll('img').length") == 0
    victim = service.workers()[0]["pid"]
    os.kill(victim, signal.SIGKILL)
    chromium.until(f"document.getElementById('deaths').innerText.includes('pid {victim} ended: killed by SIGKILL')")
    assert chromium.complaints == []
