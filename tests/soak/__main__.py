"""The program: arguments in, table and exit status out."""

from __future__ import annotations

import argparse
import asyncio
import random
import resource
import shlex
import shutil
import sys
import tempfile
from pathlib import Path

sys.path[0] = str(Path(__file__).parents[1])  # the tests' own modules, in place of this folder's

from harness import processes  # noqa: E402 - only now found
from soak import faults, run  # noqa: E402


def main() -> int:
    options = _options()
    again = ["python", "tests/soak", "--seed", options.seed, *_without_seed(sys.argv[1:])]
    print(f"seed {options.seed}; again: {shlex.join(again)}; its files are in {options.folder}", flush=True)
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 65536), hard))
    processes.adopt_orphans()
    status = asyncio.run(_soak(options))
    if status == 0 and options.throwaway:
        shutil.rmtree(options.folder)
    return status


async def _soak(options: run.Options) -> int:
    soak = run.Soak(options)
    well = await soak.run()
    print(soak.report())
    print("the books balance" if well else f"FAILED, {len(soak.books.failures)} times; seed {options.seed}")
    return 0 if well else 1


def _options() -> run.Options:
    parser = argparse.ArgumentParser(prog="python tests/soak", description="Traffic and faults; then the books.")
    parser.add_argument("--seconds", type=float, default=300)
    parser.add_argument("--seed", default=str(random.SystemRandom().randrange(10**6)))
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--clients", type=int, default=40)
    parser.add_argument("--timeout", type=float, default=4, help="the server's setting of that name, seconds")
    parser.add_argument("--faults", type=_some_faults, default=[], help=f"some of {','.join(faults.WEIGHTS)}, or none")
    parser.add_argument("--folder", type=Path, help="for the log, the journal and the code; a new one by default")
    parser.add_argument("more", nargs="*", help="flags of the program, after --")
    given = vars(parser.parse_args())
    given["throwaway"] = given["folder"] is None
    given["folder"] = (given["folder"] or Path(tempfile.mkdtemp(prefix="forkserver-soak-"))).absolute()
    given["folder"].mkdir(parents=True, exist_ok=True)
    return run.Options(**given)


def _some_faults(text: str) -> list[str]:
    names = text.split(",")
    if unknown := set(names) - {*faults.WEIGHTS, "none"}:
        raise argparse.ArgumentTypeError(f"no such fault: {', '.join(sorted(unknown))}")
    return names


def _without_seed(arguments: list[str]) -> list[str]:
    if "--seed" in arguments:
        at = arguments.index("--seed")
        return arguments[:at] + arguments[at + 2 :]
    return arguments


if __name__ == "__main__":
    sys.exit(main())
