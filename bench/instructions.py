"""How many instructions a request takes in a worker, as valgrind counts them: the same in each run, whatever else runs.

The kernel's are not among them. Source: cachegrind's page in the manual of valgrind.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from bench import machine
from bench.questions import fields, of_a_proxy
from bench.servers import make_certificate

FEW, MANY = 200, 1200  # requests of the two runs: what starting costs is in both
FEW_SHAKEN, MANY_SHAKEN = 20, 120  # where each takes a handshake, which costs as much as thirty others
_COUNTED = re.compile(r"I +refs: +([0-9,]+)")
_DIFFERENT = 500  # questions, then the same again
_PROGRAM = Path(__file__).with_name("counted.py")


def costs_more(scenario: str, here: Path, base: Path, allowed: float) -> bool:
    """Print what a request of ``scenario`` takes in both trees; whether it is over ``allowed`` times as much here.

    Raises MissingError where a tree cannot be counted.
    """
    worse = False
    for accelerator in ("auto", "off"):
        for tree in (here, base):
            _run([], tree, scenario, accelerator, 1)  # so that none of those that are counted compiles modules
        least, most = (FEW_SHAKEN, MANY_SHAKEN) if scenario == "handshakes" else (FEW, MANY)
        runs = [(tree, scenario, accelerator, requests) for tree in (here, base) for requests in (least, most)]
        with ThreadPoolExecutor(len(machine.CORES)) as pool:
            few, many, few_there, many_there = pool.map(_count, *zip(*runs, strict=True))
        one, other = (many - few) / (most - least), (many_there - few_there) / (most - least)
        worse |= one > allowed * other
        served = f"{scenario:10} {'without' if accelerator == 'off' else 'with   '} the extension"
        verdict = f"{(one / other - 1) * 100:+.1f} %: {'WORSE' if one > allowed * other else 'good'}"
        print(f"{served}: {one:,.0f} instructions here, {other:,.0f} there: {verdict}", flush=True)
    return worse


def _question(scenario: str, number: int) -> str:
    own = f"X-Request-Id: {number}\r\n" if scenario == "fresh" else of_a_proxy(number) if scenario == "proxied" else ""
    common = fields(close=scenario in ("close", "handshakes"), proxied=scenario == "proxied")
    return f"GET /item/{number}?page={number % 7} HTTP/1.1\r\n{common}{own}\r\n"


def _count(tree: Path, scenario: str, accelerator: str, requests: int) -> int:
    valgrind = ["valgrind", "--tool=cachegrind", "--cache-sim=no", "--cachegrind-out-file=/dev/null"]
    said = _run(valgrind, tree, scenario, accelerator, requests)
    found = _COUNTED.search(said)
    if found is None:
        raise machine.MissingError(f"valgrind counts nothing: {said.strip()[-1000:]}")
    return int(found[1].replace(",", ""))


def _run(before: list[str], tree: Path, scenario: str, accelerator: str, requests: int) -> str:
    """What the program, behind the words ``before``, says on stderr."""
    variables = machine.environment(PYTHONHASHSEED="0", FORKSERVER_ACCELERATOR=accelerator)
    command = [*before, sys.executable, str(_PROGRAM), str(tree), str(requests)]
    command += ["--access-log"] if scenario == "access-log" else []
    asked = json.dumps([_question(scenario, number) for number in range(_DIFFERENT)])
    with tempfile.TemporaryDirectory() as folder:
        if scenario in ("tls", "handshakes"):
            make_certificate(Path(folder))
            command += ["--tls", folder]
        done = subprocess.run(
            command, env=variables, cwd=machine.APPS, input=asked, capture_output=True, text=True, check=False
        )
    if done.returncode:
        raise machine.MissingError(f"{tree} cannot be counted: {done.stderr.strip()[-1000:]}")
    return done.stderr
