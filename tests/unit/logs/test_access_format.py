"""Formats of the access log: what they say, and that no client can say something in their place."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from forkserver.logs.access_format import ATOMS, AtomFormat, Facts, Format, FormatError, JsonFormat, Line, compiled

COMBINED = '%(h)s %(l)s %(u)s %(t)s "%(r)s" %(s)s %(b)s "%(f)s" "%(a)s"'
DATE = "[27/Nov/2026:21:28:58 +0000] "
MOST = 4096
NAMES = {
    "time", "client", "user", "request", "method", "path", "host", "status", "bytes", "referer", "user_agent",
    "request_id", "seconds", "wait_seconds", "app_seconds", "worker", "generation", "pid",
}  # fmt: skip


def line(**changes: Any) -> Line:
    facts = changes.pop("facts", Facts("0192-a7", "a.example", 1.0, 0.25, 1.5))
    known: dict[str, Any] = {
        "peer": "192.0.2.1", "user": "ann", "request": "GET /x?y=1 HTTP/1.1", "status": 200, "size": 12,
        "referer": "http://a/", "agent": "curl/8", "facts": facts, "seconds": 1.9876543, "now": 1_795_814_938.1239,
        "date": DATE, "worker": 3, "generation": 2, "pid": 4711,
    }  # fmt: skip
    return Line(**known | changes)


def written(text: str, **changes: Any) -> str:
    form = compiled(text)
    assert form is not None
    return form.write(line(**changes), MOST)


@pytest.mark.parametrize(
    ("atom", "shown"),
    [
        ("h", "192.0.2.1"), ("l", "-"), ("u", "ann"), ("t", DATE[:-1]), ("r", "GET\\x20/x?y=1\\x20HTTP/1.1"),
        ("m", "GET"), ("U", "/x"), ("q", "y=1"), ("H", "HTTP/1.1"), ("s", "200"), ("b", "12"), ("B", "12"),
        ("f", "http://a/"), ("a", "curl/8"), ("T", "1"), ("D", "1987654"), ("M", "1987"), ("L", "1.987654"),
        ("p", "<4711>"), ("wait", "0.250000"), ("app", "1.500000"), ("id", "0192-a7"), ("worker", "3"),
        ("generation", "2"),
    ],
)  # fmt: skip
def test_each_atom_says_what_the_manual_says(atom: str, shown: str) -> None:
    assert written(f"%({atom})s") == f"{shown}\n"


def test_no_atom_is_without_a_test() -> None:
    (mark,) = test_each_atom_says_what_the_manual_says.pytestmark  # type: ignore[attr-defined]
    assert {atom for atom, _ in mark.args[1]} == set(ATOMS)


def test_what_is_not_known_is_a_dash() -> None:
    nothing = line(peer="", user="", request="", size=0, referer="", agent="", facts=Facts(), seconds=None)
    for atom in set(ATOMS) - {"t", "s", "B", "p", "worker", "generation"}:
        assert AtomFormat(f"%({atom})s").write(nothing, MOST) == "-\n", atom
    assert AtomFormat("%({x}i)s %({y}o)s %({z}e)s").write(nothing, MOST) == "- - -\n"


def test_values_are_asked_for_by_name() -> None:
    form = AtomFormat('%({X-Tenant}i)s "%({Content-Type}o)s" %({wsgi.url_scheme}e)s %({content-type}i)s')
    assert form.named == (
        ("i", "HTTP_X_TENANT"), ("o", "content-type"), ("e", "wsgi.url_scheme"), ("i", "CONTENT_TYPE"),
    )  # fmt: skip
    shown = form.write(line(facts=Facts(values=("a b", "text/plain", None, "x"))), MOST)
    assert shown == 'a\\x20b "text/plain" - x\n'


def test_the_combined_format_is_known_by_its_name_and_by_its_atoms() -> None:
    assert compiled("combined") is compiled(COMBINED) is None


def test_a_percent_sign_and_braces_stand_for_themselves() -> None:
    assert written("{%(s)s} %% {0}\t%%") == "{200} % {0}\t%\n"


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("json2", "no format: use auto, combined, json, or atoms"),
        ("", "no format"),
        ("%%", "no format"),
        ("%(h)s %(x)s", r"column 7: there is no %\(x\)s: use one of h, u"),
        ("%(h)s %h", r"column 7: '%h' is no atom"),
        ("%(h)s 100%", "column 10: '%' is no atom"),
        ("%(h)d %(s)s", r"column 1: '%\(h\)d %\(s\)s' is no atom"),
        ("%(h)s\n", r"column 6: '\\n' cannot stand there"),
        ("%(h)s é", "column 7: 'é' cannot"),
        ("%({a b}i)s %(s)s", "column 1: "),
        ("%({x}x)s %(s)s", "column 1: "),
    ],
)
def test_a_format_that_cannot_be_meant_is_refused_with_its_place(text: str, complaint: str) -> None:
    with pytest.raises(FormatError, match=complaint):
        compiled(text)


def test_json_has_its_names() -> None:
    assert json.loads(written("json")) == {
        "time": "2026-11-27T21:28:58.123Z", "client": "192.0.2.1", "user": "ann", "request": "GET /x?y=1 HTTP/1.1",
        "method": "GET", "path": "/x", "host": "a.example", "status": 200, "bytes": 12, "referer": "http://a/",
        "user_agent": "curl/8", "request_id": "0192-a7", "seconds": 1.987654, "wait_seconds": 0.25, "app_seconds": 1.5,
        "worker": 3, "generation": 2, "pid": 4711,
    }  # fmt: skip


def test_json_has_null_for_what_is_not_known() -> None:
    found = json.loads(written("json", peer="", user="", request="", facts=Facts(), seconds=None))
    assert {name for name, value in found.items() if value is None} == {
        "client", "user", "request", "method", "path", "host", "request_id", "seconds", "wait_seconds", "app_seconds",
    }  # fmt: skip


def test_json_shows_utf_8_as_it_is_and_other_bytes_escaped() -> None:
    """What came off the wire was decoded as latin-1."""
    agent = "caf\u00e9 \u202e".encode().decode("latin-1") + "\xff\x1b[2J\x7f"
    text = written("json", agent=agent)
    assert text.isascii()
    assert text[:-1].isprintable()
    assert json.loads(text)["user_agent"] == "caf\u00e9 \u202e\\xff\x1b[2J\x7f"


texts = st.one_of(st.text(max_size=40), st.binary(max_size=40).map(lambda raw: raw.decode("latin-1")), st.sampled_from(
    ['" 200 9 "', '","status":500,"x":"', "a\r\nb", "\\", '\\"', "\u202e", "%(h)s", "{0}", "a|b,c;d\te", "x" * 9000]
))  # fmt: skip
anything = st.builds(
    line,
    peer=texts,
    user=texts,
    request=texts,
    referer=texts,
    agent=texts,
    facts=st.builds(lambda *texts: Facts(*texts[:2], values=texts[2:]), texts, texts, texts, texts),
)


@given(anything)
@example(
    line(agent="\x00" * 100_000, referer='"' * 100_000, request="\\" * 100_000, user="€" * 9000, peer="\x7f" * 9000)
)
def test_no_client_forges_a_field_of_json(found: Line) -> None:
    text = JsonFormat().write(found, MOST)
    assert len(text) <= MOST
    assert text.isascii()
    assert text[:-1].isprintable()
    assert text.endswith("\n")
    pairs = json.loads(text, object_pairs_hook=list)
    assert [name for name, _ in pairs] == list(json.loads(written("json")))
    assert dict(pairs).keys() == NAMES
    assert dict(pairs)["status"] == 200


@pytest.mark.parametrize(
    ("form", "shape"),
    [
        ('%(h)s %(u)s "%(r)s" %(s)s "%(f)s" "%(a)s" %({x}i)s', r'\S+ \S+ "[^"]*" 200 "[^"]*" "[^"]*" \S+'),
        ("%(h)s|%(r)s|%(a)s|%({x}i)s|%({y}o)s|%(s)s", r"[^| ]+\|[^| ]+\|[^| ]+\|[^| ]+\|[^| ]+\|200"),
        ("%(h)s,'%(r)s',%(s)s", r"[^,' ]+,'[^,' ]+',200"),
        ("[%(a)s] %(m)s\t%(U)s\t%(q)s\t%(H)s %(id)s", r"\[\S+\] [^\t ]+\t[^\t ]+\t[^\t ]+\t[^\t ]+ .+"),
    ],
)
@given(found=anything)
def test_no_client_ends_a_field_of_atoms(form: str, shape: str, found: Line) -> None:
    found = found._replace(facts=found.facts._replace(request_id="an-id"))
    text = AtomFormat(form).write(found, MOST)
    assert len(text) <= MOST
    assert text.isascii()
    assert text[:-1].replace("\t", "").isprintable()
    assert re.fullmatch(shape, text[:-1])


@pytest.mark.parametrize("form", [AtomFormat(" ".join(f"%({atom})s" for atom in ATOMS)), JsonFormat()])
def test_a_line_that_is_too_long_is_cut_in_its_fields(form: Format) -> None:
    """Above PIPE_BUF lines of several processes would mix."""
    long = line(peer="p" * 9000, user="u" * 9000, request="GET /" + "r" * 9000, referer="f" * 9000, agent="a" * 9000)
    text = form.write(long, MOST)
    assert 2000 < len(text) <= MOST
    assert text.count("...") >= 5
    assert "4711" in text


def test_a_format_of_very_many_fields_keeps_to_the_length_and_whole_escapes() -> None:
    """Each field has a least size, and literals theirs: together they may have no room."""
    for literal in (" ", "  ", "   ", "    "):  # so that the end falls on each character of an escape
        text = AtomFormat(literal.join(["%(a)s"] * 2000)).write(line(agent="\xe9" * 40), MOST)
        assert len(text) <= MOST
        assert re.search(r"(?:[^\\x]|\\xe9)\.\.\.\n$", text)


def test_only_what_divides_fields_is_escaped() -> None:
    """An agent or an address is to be read as it came, as far as that can be."""
    assert written("%(h)s - %(a)s %(u)s", agent="a-b (c)", user="") == "192.0.2.1 - a-b\\x20(c) -\n"
    assert written("%(h)s-%(a)s", agent="a-b (c)", user="") == "192.0.2.1-a\\x2db\\x20(c)\n"
    assert written("%(u)s-%(s)s", user="") == "--200\n"
