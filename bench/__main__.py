"""``python -m bench [SCENARIO...]``: forkserver beside its peers, as tables, raw figures and plots; see README.md.

    python -m bench                                     the scenarios that matter
    python -m bench --all                               every one
    python -m bench keepalive --peers gunicorn,granian  one, beside some
    python -m bench list | install | docs               what there is; the peers; results into docs/performance.md
    python -m bench guard | parsers                     this tree against another commit; raw requests (--help has more)
    python -m bench breakdown                           where a request spends its time
    python -m bench profiled                            what a profile costs while it runs
    python -m bench saving                              from saving a file to the new answer, in development

Results are left in build/bench: NAME.json, NAME.md, NAME.svg.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Callable

from bench import breakdown, guard, install, machine, page, plots, profiled, results, saving, servers
from bench.peers import PEERS, USUAL, PeerError, chosen
from bench.scenario import Scenario, run
from bench.scenarios import MAIN, SCENARIOS


def main() -> int:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        return dispatch(sys.argv[1:])
    except (machine.MissingError, PeerError, ValueError) as error:
        print(f"bench: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    finally:
        servers.end_all()


def dispatch(arguments: list[str]) -> int:
    first = arguments[0] if arguments else ""
    if first in COMMANDS:
        return COMMANDS[first](arguments[1:])
    return measure(arguments)


def measure(arguments: list[str]) -> int:
    options = parse(arguments)
    named = words(" ".join(options.scenarios))
    names = [*SCENARIOS] if options.all else named or [*MAIN]
    if unknown := [name for name in names if name not in SCENARIOS]:
        raise ValueError(f"no scenario is called {', '.join(unknown)}; there are {', '.join(SCENARIOS)}")
    chosen(options.peers, ())  # says which names it does not know before anything is measured
    machine.prepare()
    machine.need("wrk")
    print(machine.description(), flush=True)
    for name in names:
        one(SCENARIOS[name], options)
    return 0


def parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        "python -m bench", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("scenarios", nargs="*", metavar="SCENARIO", help=", ".join(SCENARIOS))
    parser.add_argument("--all", action="store_true", help="every scenario")
    parser.add_argument("--peers", type=words, default=[], help=f"beside forkserver: {', '.join(USUAL)}; default: all")
    parser.add_argument("--rounds", type=int, help="in place of the scenario's own number")
    parser.add_argument("--seconds", type=int, help="of each measurement, likewise")
    return parser.parse_args(arguments)


def words(text: str) -> list[str]:
    return [word for word in text.replace(",", " ").split() if word]


def one(scenario: Scenario, options: argparse.Namespace) -> None:
    """Run a scenario, keep its results, and show the table."""
    rounds, seconds = options.rounds or scenario.rounds, options.seconds or scenario.seconds
    outcomes = run(scenario, chosen(options.peers, scenario.peers), rounds, seconds, say)
    result = results.of_run(scenario, rounds, seconds, again(scenario, options), outcomes)
    path = results.save(result)
    text = f"## {scenario.title}\n\n{scenario.about}\n\n{results.table(result)}\n\n{results.footnote(result)}\n"
    path.with_suffix(".md").write_text(text)
    plots.draw(result, path.with_suffix(".svg"))
    print(f"\n{text}", flush=True)


def say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def again(scenario: Scenario, options: argparse.Namespace) -> str:
    """The command that makes this result again."""
    command = f"make bench ONLY={scenario.name}"
    if options.peers:
        command += f" PEERS={','.join(options.peers)}"
    given = {"--rounds": options.rounds, "--seconds": options.seconds}
    flags = " ".join(f"{name} {value}" for name, value in given.items() if value)
    return f"{command} FLAGS='{flags}'" if flags else command


def show_list(_: list[str]) -> int:
    for name, scenario in SCENARIOS.items():
        print(f"{name:14} {'*' if scenario.main else ' '} {scenario.title}")
    print(f"\n* are run by default. Peers: {', '.join(PEERS)}")
    return 0


def install_peers(_: list[str]) -> int:
    install.main()
    return 0


def put_docs(_: list[str]) -> int:
    if gaps := page.missing():
        raise ValueError(f"{page.PAGE.name} has no markers for {', '.join(gaps)}")
    print(f"{os.path.relpath(page.PAGE)}: {', '.join(page.put()) or 'no results to put there yet'}")
    return 0


def show_parsers(arguments: list[str]) -> int:
    from bench import parsers  # needs the tests' folder

    machine.prepare()
    return parsers.main(arguments)


COMMANDS: dict[str, Callable[[list[str]], int]] = {
    "list": show_list,
    "install": install_peers,
    "docs": put_docs,
    "guard": guard.main,
    "breakdown": breakdown.main,
    "parsers": show_parsers,
    "saving": saving.main,
    "profiled": profiled.main,
}

if __name__ == "__main__":
    sys.exit(main())
