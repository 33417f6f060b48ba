"""The commands of the control socket: each is carried out, or refused with the way out, and answered once.

A command comes as a line of JSON together with a callback for its answer; sockets are in socket.py. Most answers are
given at once. A caller that waits for a reload or for a worker's stacks is noted with its callback and answered when
the event comes, or when its time is over, while the master serves on.
"""

from __future__ import annotations

import os
import traceback
from collections.abc import Callable
from typing import Any, Final

from forkserver.config import toml_writer
from forkserver.config.accelerator import accelerator
from forkserver.config.version import VERSION
from forkserver.errors import ForkserverError
from forkserver.ipc.messages import BeginProfile
from forkserver.linux import process_info, syscalls
from forkserver.linux.sockets import accept_queue
from forkserver.master.actions import Actions
from forkserver.master.control import profiling, protocol
from forkserver.master.control.protocol import Command, CommandError, Target
from forkserver.master.control.socket import ControlClient
from forkserver.master.model.lifecycle import UNHEARD, State, Worker
from forkserver.master.model.model import Model
from forkserver.master.monitoring.statistics import Statistics
from forkserver.master.processes.worker_table import WorkerTable
from forkserver.master.reporting.reporter import Reporter
from forkserver.master.resources import moved_files
from forkserver.master.resources.resources import Resources
from forkserver.master.shutdown import Shutdown

MOST_WAITING: Final = 256  # callers that ask, go and ask again must not fill the memory
STACKS_SECONDS: Final = 2.0  # a worker that has not answered by then is stopped, or stuck in C code
KILL_SECONDS: Final = 2.0  # for a killed worker to end, until its caller is told that it has not
_SENDER: Final = "forkserverctl"
_ANSWERING: Final = (State.SERVING, State.HUNG, State.DRAINING)
Reply = Callable[..., object]  # takes the answer, and descriptors that go with it


class CommandHandlers:
    """Carries out commands, and keeps the callers that wait for stacks.

    ``clients_wait`` says whether a client waits where the first free worker takes it, ``admin`` what is to be told of
    the admin process, ``slow_requests`` the last slow ones, ``log_writer`` the pid of the process that
    writes the error log, or keeps pipes open.
    """

    def __init__(
        self,
        resources: Resources,
        model: Model,
        table: WorkerTable,
        reporter: Reporter,
        actions: Actions,
        shutdown: Shutdown,
        statistics: Statistics,
        clients_wait: Callable[[], bool],
        admin: Callable[[], dict[str, Any] | None] = lambda: None,
        slow_requests: Callable[[float], list[dict[str, Any]]] = lambda _: [],
        log_writer: Callable[[], int | None] = lambda: None,
    ) -> None:
        self._resources = resources
        self._fleet, self._rollout, self._transitions = model
        self._table = table
        self._reporter = reporter
        self._actions = actions
        self._shutdown = shutdown
        self._statistics = statistics
        self._clients_wait = clients_wait
        self._admin = admin
        self._slow_requests = slow_requests
        self._log_writer = log_writer
        self._stacks: dict[int, tuple[Worker, Reply, float]] = {}  # callers that wait for a worker's stacks, until when
        self._kills: list[tuple[Worker, Reply, float]] = []  # callers that wait for the end of a worker, until when
        self._serial = 0

    def turn(self, now: float) -> None:
        """Answer the questions that have come, now or later, and callers whose worker has ended or does not answer."""
        for client in self._resources.control.turn(now):
            self.ask(client.line, self._reply_to(client), now)
        self._answer_for_workers(now)
        self._answer_for_kills(now)

    @staticmethod
    def _reply_to(client: ControlClient) -> Reply:
        return lambda reply, descriptors=(): client.answer(reply, syscalls.clock(), descriptors)

    def ask(self, line: bytes, reply: Reply, now: float) -> None:
        """Obey the command in ``line``; ``reply`` is called once, with what is said to it."""
        try:
            self._obey(protocol.parse(line), reply, now)
        except (CommandError, ForkserverError) as error:
            reply({"ok": False, "error": str(error)})
        except Exception as error:  # a fault of ours in answering must not end the service
            self._resources.log.error("a fault in answering a command", details=traceback.format_exc())
            reply({"ok": False, "error": f"a fault of forkserver's: {error!r}; the error log has more"})

    def _obey(self, command: Command, reply: Reply, now: float) -> None:
        if not isinstance(command, protocol.StatusCommand | protocol.ConfigCommand | protocol.SlowCommand):
            self._resources.log.info(f"{_SENDER}: {protocol.written(command)}")
        match command:
            case protocol.StatusCommand():
                reply(self.status(now))
            case protocol.ConfigCommand():
                # Pid file and control socket are those of the last reload, refused or not.
                in_force = self._table.in_force.with_values_of(self._resources.settings, moved_files.SETTINGS)
                reply({"ok": True, "config": toml_writer.as_toml(in_force)})
            case protocol.SlowCommand():
                reply({"ok": True, "limit": self._table.in_force.slow_log, "slow": self._slow_requests(now)})
            case protocol.ReloadCommand(wait):
                self._reload(reply, wait)
            case protocol.ScaleCommand(workers):
                reply(self._scale(workers))
            case protocol.RetireCommand(target):
                reply(self._retire(target, now))
            case protocol.KillCommand(target):
                self._kill(target, reply, now)
            case protocol.StacksCommand(target):
                self._ask_for_stacks(target, reply, now)
            case protocol.ProfileCommand():
                reply(*self._profile(command))
            case protocol.DrainCommand():
                reply(self._drain())
            case protocol.MaintenanceCommand(on):
                reply(self._maintain(on))
            case protocol.StopCommand(at_once):
                reply(self._stop(at_once, now))

    def status(self, now: float) -> dict[str, Any]:
        """What the command ``status`` is answered."""
        fleet, rollout, resources = self._fleet, self._rollout, self._resources
        unreachable = self._unreachable()
        return {
            "ok": True,
            "version": VERSION,
            "app": resources.settings.app,
            "state": self._state(),
            "text": self._reporter.status(),
            "generation": rollout.serving_generation,
            "maintenance": fleet.maintenance,
            "files_changed": rollout.files_changed,
            "last_failure": self._reporter.reloads.last_failure,
            "seconds": round(now - self._statistics.since, 3),
            "listeners": [listener.name for listener in resources.listeners],
            "unreachable": [name for name, _ in unreachable],
            "unreachable_way_out": [way_out for _, way_out in unreachable],
            "backlogs": [accept_queue.length(listener) for listener in resources.listeners],
            "wanted": fleet.wanted,
            "serving": len(fleet.serving()),
            "threads": self._table.in_force.threads,
            "requests": self._statistics.requests,
            "clients_wait": self._statistics.all_busy and self._clients_wait(),
            "accelerator": accelerator(),
            "ends": self._statistics.ends,
            "last_deaths": self._statistics.deaths(now),
            "reloads": {"done": self._statistics.reloads_done, "refused": self._statistics.reloads_refused},
            "generation_seconds": self._statistics.generation_seconds(now),
            "figures": self._statistics.figures.shown(),
            "lost_log_lines": self._statistics.lost_lines,
            "workers": self._statistics.workers(now),
            "master": {"pid": os.getpid(), "memory": self._statistics.memory_of_master()},
            "admin": self._admin(),
            "log_writer": self._log_writer(),
        }

    def admin_status(self, now: float) -> dict[str, Any]:
        """What a question of the admin process is answered: the status, and what its page shows besides."""
        return {**self.status(now), "slow": self._slow_requests(now)}

    def _unreachable(self) -> list[tuple[str, str]]:
        """The listeners at which no client can connect, and what helps: a stop ends them itself."""
        return [] if self._fleet.stopping else self._resources.listener_set.unreachable()

    def _state(self) -> str:
        fleet, rollout = self._fleet, self._rollout
        if fleet.stopping:
            return "stopping"
        if fleet.draining:
            return "draining"
        if rollout.broken:
            return "broken"
        if rollout.reloading or rollout.reload_wanted:
            return "reloading"
        return "serving" if rollout.serving_generation else "starting"

    def _reload(self, reply: Reply, wait: bool) -> None:
        self._refuse_at_the_end()
        if wait and self._reporter.reloads.waiting >= MOST_WAITING:
            raise CommandError(f"{MOST_WAITING} wait for a reload already; reload without wait, and ask for the status")
        self._rollout.want_reload()
        if wait:
            self._reporter.reloads.wait(reply)
        else:
            reply({"ok": True, "text": "a reload begins; status, or the error log, says how it went"})

    def _scale(self, workers: int) -> dict[str, Any]:
        self._refuse_at_the_end()
        most = self._table.most_workers
        if workers > max(most, self._fleet.wanted):
            raise CommandError(
                f"workers {workers}: more than max_workers, {most}; raise that, or workers, in the settings and reload"
            )
        why = self._actions.resize(workers - self._fleet.wanted)
        said = f"workers wanted: {self._fleet.wanted}; a reload goes back to the settings"
        return {"ok": True, "text": f"{said}\n{why}" if why else said}

    def _retire(self, target: Target, now: float) -> dict[str, Any]:
        self._refuse_at_the_end()
        worker = self._find(target)
        if worker.state is not State.SERVING:
            raise CommandError(f"{worker} is {worker.state.value} and need not be told; kill ends it at once")
        if self._rollout.files_changed:
            raise CommandError(
                f"{worker} is not replaced: the new worker would load the files on disk, which a reload that failed "
                "may have left changed; reload first, or kill it"
            )
        self._transitions.worker_due(worker, f"{_SENDER} retire", now)
        return {"ok": True, "text": f"{worker} leaves when the new worker is ready"}

    def _kill(self, target: Target, reply: Reply, now: float) -> None:
        worker = self._find(target)
        if not worker.pid:
            raise CommandError(f"{worker} has no process yet; ask again in a moment")
        if worker.state is State.SERVING:
            self._actions.kill(worker, f"{_SENDER} kill", now)
        else:  # it has a deadline already
            worker.sentence = f"{_SENDER} kill"
            self._actions.end(worker)
        self._kills.append((worker, reply, now + KILL_SECONDS))

    def _answer_for_kills(self, now: float) -> None:
        waiting, self._kills = self._kills, []
        for worker, reply, until in waiting:
            if worker not in self._fleet.workers:
                reply({"ok": True, "text": f"{worker} is killed"})
            elif now >= until:
                why = process_info.why_unended(worker.pid)
                reply({"ok": False, "error": f"{worker} was sent SIGKILL and has not ended: {why}"})
            else:
                self._kills.append((worker, reply, until))

    def _profile(self, command: protocol.ProfileCommand) -> tuple[dict[str, Any], list[int]]:
        """The answer to it, and the descriptors that go with it: what the client reads the samples from."""
        workers = [self._find(command.worker)] if command.worker else self._fleet.workers
        able = [each for each in workers if each.state in _ANSWERING]
        if not able:
            states = "; ".join(f"{each} is {each.state.value}" for each in workers) or "there is no worker"
            raise CommandError(f"no worker that serves can be sampled: {states}; ask again in a moment"[:1000])
        order = BeginProfile(command.seconds, command.rate, command.paths)
        return profiling.begin(able, order, self._actions.begin_profile)

    def _drain(self) -> dict[str, Any]:
        self._refuse_at_the_end()
        self._shutdown.drain(_SENDER)
        return {"ok": True, "text": "answers close their connections from now on; stop ends the service"}

    def _maintain(self, on: bool) -> dict[str, Any]:
        self._actions.maintain(on)
        self._reporter.maintenance()
        return {"ok": True, "text": f"maintenance is {'on' if on else 'off'}"}

    def _stop(self, at_once: bool, now: float) -> dict[str, Any]:
        if at_once:
            self._shutdown.quickly(f"{_SENDER} stop --now", now)
            return {"ok": True, "text": "stopping at once"}
        if self._fleet.departing:
            raise CommandError("it is stopping already; stop --now does not wait for open requests")
        self._shutdown.ask(f"{_SENDER} stop", now)
        return {"ok": True, "text": "stopping: open requests are finished"}

    def _refuse_at_the_end(self) -> None:
        if self._fleet.stopping or self._fleet.draining:
            raise CommandError(f"the service is {self._state()}; only stop may follow")

    # Stacks

    def _ask_for_stacks(self, target: Target, reply: Reply, now: float) -> None:
        worker = self._find(target)
        if worker.state not in _ANSWERING:
            way_out = "" if worker.state in UNHEARD else f"; kill -USR2 {worker.pid} has them written to the error log"
            raise CommandError(f"{worker} is {worker.state.value} and hears no orders{way_out}")
        if len(self._stacks) >= MOST_WAITING:
            raise CommandError(f"{MOST_WAITING} wait for stacks already; ask again in a moment")
        self._serial = (self._serial + 1) % 2**32
        if not self._actions.ask_for_stacks(worker, self._serial):
            raise CommandError(f"{worker} takes no orders; it is stopped, or stuck in C code: kill ends it")
        self._stacks[self._serial] = worker, reply, now + STACKS_SECONDS

    def stacks_came(self, worker: Worker, serial: int, text: str) -> None:
        """``worker`` has said where its threads are."""
        asked = self._stacks.get(serial)
        if asked is not None and asked[0] is worker:
            del self._stacks[serial]
            asked[1]({"ok": True, "worker": worker.slot + 1, "pid": worker.pid, "stacks": text})

    @property
    def next_look(self) -> float:
        """When ``turn`` is due although nothing has happened."""
        return min(
            [self._resources.control.next_look, *(until for _, _, until in (*self._stacks.values(), *self._kills))]
        )

    def _answer_for_workers(self, now: float) -> None:
        for serial, (worker, reply, until) in list(self._stacks.items()):
            ended = worker not in self._fleet.workers
            if ended or now >= until:
                why = "has ended" if ended else "does not answer: it is stopped, or in C code that holds the GIL"
                del self._stacks[serial]
                reply({"ok": False, "error": f"{worker} {why}; py-spy dump --pid {worker.pid} looks from outside"})

    def close(self, why: str) -> None:
        """Answer every caller that waits: the service ends."""
        self._reporter.reloads.stop(why)
        self.close_questions(why)

    def restore_waiting(self, client: ControlClient) -> None:
        """Have ``client``, which asked the program before, wait for the next reload that begins."""
        self._reporter.reloads.wait(self._reply_to(client))

    def close_questions(self, why: str) -> None:
        """Answer every caller that waits for a worker's stacks, or for its end."""
        waiting = [*self._stacks.values(), *self._kills]
        self._stacks, self._kills = {}, []
        for _, reply, _ in waiting:
            reply({"ok": False, "error": why})

    # Workers

    def _find(self, target: Target) -> Worker:
        """The one worker that ``target`` names. Raises CommandError where it is none, or not clear which."""
        by_pid = [each for each in self._fleet.workers if each.pid == target.number and target.by != "worker"]
        by_slot = [each for each in self._fleet.workers if each.slot + 1 == target.number and target.by != "pid"]
        found = list(dict.fromkeys([*by_pid, *by_slot]))
        if not found:
            known = ", ".join(map(str, self._fleet.workers)) or "none"
            raise CommandError(f"{target}: no such worker; there are {known}"[:1000])
        if len(found) > 1:
            raise CommandError(f"{target}: that may be {' or '.join(map(str, found))}; name one as pid=NUMBER")
        return found[0]
