"""The forms that a profile is written in are those that their readers take, whatever functions are called."""

from __future__ import annotations

import json
import re
from typing import Any
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forkserver.cli.profile.collapsed import collapsed
from forkserver.cli.profile.flame_graph import WIDTH, flame_graph
from forkserver.cli.profile.profile import MOST_STACKS, OTHERS, Function, StackTimes, merged
from forkserver.cli.profile.speedscope import speedscope
from forkserver.cli.profile.summary import as_json, summary
from forkserver.linux.common.escaping import printable

SERVER = Function("forkserver.server.wsgi.run", "run", "/x/forkserver/server/wsgi/run.py", 27)
VIEW = Function("shop.views", "basket", "/srv/shop/views.py", 12)
QUERY = Function("shop.db", "Cursor.execute", "/srv/shop/db.py", 90)
ODD = Function("", "<a href='x'>&\"; rm -rf")
SVG = "{http://www.w3.org/2000/svg}"
MS = 1_000_000


@pytest.fixture
def times() -> StackTimes:
    made = StackTimes()
    made.add((SERVER, VIEW, QUERY), 700 * MS)
    made.add((SERVER, VIEW), 200 * MS)
    made.add((SERVER,), 60 * MS)
    made.add((SERVER, ODD), 40 * MS)
    return made


def test_collapsed_stacks_are_those_of_flamegraph(times: StackTimes) -> None:
    """Functions with semicolons between them, a blank, a whole number: stackcollapse's form."""
    lines = collapsed(times).splitlines()
    assert "forkserver.server.wsgi.run:run;shop.views:basket;shop.db:Cursor.execute 700000" in lines
    assert all(re.fullmatch(r"[^;]+(;[^;]+)* \d+", line) for line in lines)
    assert sum(int(line.rpartition(" ")[2]) for line in lines) == 1_000_000


def check_speedscope(text: str) -> dict[str, Any]:
    """The rules of speedscope's file-format-spec.ts that a sampled profile has to meet."""
    file: dict[str, Any] = json.loads(text)
    assert file["$schema"] == "https://www.speedscope.app/file-format-schema.json"
    assert set(file) <= {"$schema", "shared", "profiles", "name", "activeProfileIndex", "exporter"}
    frames = file["shared"]["frames"]
    for frame in frames:
        assert set(frame) <= {"name", "file", "line", "col"}
        assert isinstance(frame["name"], str)
        assert isinstance(frame.get("file", ""), str)
        assert isinstance(frame.get("line", 0), int)
    assert 0 <= file["activeProfileIndex"] < len(file["profiles"])
    for profile in file["profiles"]:
        assert set(profile) == {"type", "name", "unit", "startValue", "endValue", "samples", "weights"}
        assert profile["type"] == "sampled"
        assert profile["unit"] in ("none", "nanoseconds", "microseconds", "milliseconds", "seconds", "bytes")
        assert len(profile["samples"]) == len(profile["weights"])
        assert all(type(frame) is int and 0 <= frame < len(frames) for stack in profile["samples"] for frame in stack)
        assert profile["endValue"] - profile["startValue"] == sum(profile["weights"])
    return file


def test_speedscopes_file_meets_its_rules(times: StackTimes) -> None:
    file = check_speedscope(speedscope("a profile", [("all", times), ("worker=1", times)]))
    assert [each["name"] for each in file["profiles"]] == ["all", "worker=1"]
    assert {"name": "shop.views:basket", "file": "/srv/shop/views.py", "line": 12} in file["shared"]["frames"]
    check_speedscope(speedscope("nothing", [("all", StackTimes())]))


def boxes(text: str) -> dict[str, tuple[float, float, float]]:
    """Of a flame graph: left, top and width of each box, by the first line of its title."""
    root = ElementTree.fromstring(text)
    found = {}
    for group in root.iter(f"{SVG}g"):
        title, shape = group.find(f"{SVG}title"), group.find(f"{SVG}rect")
        assert title is not None
        assert shape is not None
        found[str(title.text).split("  ")[0]] = (
            float(shape.attrib["x"]),
            float(shape.attrib["y"]),
            float(shape.attrib["width"]),
        )
    return found


def test_a_box_of_the_flame_graph_stands_on_its_caller_as_wide_as_its_time(times: StackTimes) -> None:
    found = boxes(flame_graph("a profile", "4 samples", times))
    whole, server, view, query = (found[each] for each in ("all", SERVER.label, VIEW.label, QUERY.label))
    assert whole[2] == server[2] == WIDTH - 20
    assert view[2] == pytest.approx(0.9 * whole[2], abs=0.2)
    assert query[2] == pytest.approx(0.7 * whole[2], abs=0.2)
    assert whole[1] > server[1] > view[1] > query[1]
    assert view[0] <= query[0] <= query[0] + query[2] <= view[0] + view[2] + 0.2


def test_the_flame_graph_needs_nothing_from_elsewhere_and_no_script(times: StackTimes) -> None:
    text = flame_graph("a <profile>", "&", times)
    root = ElementTree.fromstring(text)
    names = {each.tag.removeprefix(SVG) for each in root.iter()}
    assert names == {"svg", "title", "style", "rect", "text", "g"}
    assert not re.search(r"url\(|@import|href=|src=|on\w+=", re.sub(r"<(title|text)[^>]*>[^<]*</\1>", "", text))
    assert "<a href" not in text


def test_the_servers_own_frames_are_told_apart(times: StackTimes) -> None:
    text = flame_graph("a profile", "", times)
    groups: dict[str, str] = dict(re.findall(r"<title>(\S+)  .*?fill=\"([^\"]+)\"", text, re.DOTALL))
    assert groups[SERVER.label] == "#cfcfcf" != groups[VIEW.label]


@given(st.text(max_size=30))
def test_any_name_is_text_in_every_form(name: str) -> None:
    times = StackTimes()
    times.add((Function("m", printable(name), printable(name), 1),), 5 * MS)
    ElementTree.fromstring(flame_graph(printable(name), printable(name), times))
    check_speedscope(speedscope(name, [(name, times)]))
    assert len(collapsed(times).splitlines()) == 1


def test_a_deep_and_a_wide_profile_is_drawn_without_recursion() -> None:
    times = StackTimes()
    times.add(tuple(Function("m", f"f{depth}") for depth in range(2000)), MS)
    for number in range(5000):
        times.add((Function("w", f"g{number}"),), 1)
    ElementTree.fromstring(flame_graph("", "", times))


def test_nothing_is_a_profile_too() -> None:
    nothing = StackTimes()
    ElementTree.fromstring(flame_graph("", "", nothing))
    assert collapsed(nothing) == ""
    assert "no thread was at work" in summary(nothing, False, 80)


def test_the_summary_names_the_functions_that_took_the_time(times: StackTimes) -> None:
    lines = summary(times, False, 100).splitlines()
    own = lines[lines.index("by own time:") + 2]
    assert own.split() == ["70.0", "%", "70.0", "%", "shop.db:Cursor.execute", "/srv/shop/db.py:90"]
    total = lines[lines.index("by time with what they call:") + 2]
    assert total.split()[:5] == ["20.0", "%", "90.0", "%", "shop.views:basket"]
    assert lines[-1] == "the server itself: 6.0 %"


def test_the_summary_fits_the_terminal(times: StackTimes) -> None:
    long = Function("m" * 100, "n" * 100, "/srv/" + "f" * 100, 1)
    times.add((SERVER, long), 500 * MS)
    assert all(len(line) <= 80 for line in summary(times, True, 80).splitlines())


def test_by_path_the_paths_come_first(times: StackTimes) -> None:
    by_path = StackTimes()
    by_path.add((Function("", "GET /a"), SERVER, VIEW), 300 * MS)
    by_path.add((Function("", "GET /b"), SERVER, VIEW), 100 * MS)
    lines = summary(by_path, True, 80).splitlines()
    assert [line.split() for line in lines[2:4]] == [["75.0", "%", "GET", "/a"], ["25.0", "%", "GET", "/b"]]


def test_programs_get_the_functions_with_seconds(times: StackTimes) -> None:
    told = as_json(times)
    view = next(each for each in told["functions"] if each["name"] == "basket")
    assert (view["own_seconds"], view["total_seconds"], told["seconds_at_work"]) == (0.2, 0.9, 1.0)


def test_workers_are_added_up(times: StackTimes) -> None:
    both = merged([times, times])
    assert both.total == 2 * times.total
    assert both.samples == 8


def test_stacks_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("forkserver.cli.profile.profile.MOST_STACKS", 2)
    times = StackTimes()
    for number in range(5):
        times.add((Function("m", f"f{number}"),), 1)
    assert times.weights[Function("", OTHERS),] == 3
    assert MOST_STACKS > 2
