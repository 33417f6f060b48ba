"""What became of each request, and whether that may be.

It promises that nothing is judged before the journal and the log have had the time to explain it, and that what nobody
explains is a failure. It refuses to cause anything: clients and faults tell it what they do.

A request that was cut is explained by a worker that died by SIGKILL: either the journal says that this worker had begun
it, and then the log's line of that death has to name it (or count it among the answers unsent); or it was never begun,
on a connection that was parked or had just been made. Or a worker that left closed it at the end of graceful_timeout,
because its client had not taken the answer or sent the body: then the log's line names it.
"""

from __future__ import annotations

import re
import time
from collections import Counter
from pathlib import Path
from typing import Final

from harness.journal import Entry
from soak.application import BEGUN, DYING, JOURNAL, SEGMENT_SECONDS
from soak.connection import Answer
from soak.questions import Question, wrong
from soak.records import SETTLE_SECONDS, SLACK_SECONDS, Call, Death, Failure, Loss, Outcome, Request, Window

FORGET_SECONDS: Final = 120.0
_KEPT_SEGMENTS: Final = 5
# Lines of the program that are its own fault, whatever was done to it.
_FAULTS: Final = re.compile(
    "a fault in the loop|is broken, the master kills it|cannot go on|every row of the|exception while serving"
)
_LIED: Final = "is broken, the master kills it"  # no fault of the program where the application has lied to it
_RECYCLED: Final = re.compile(r"is recycled: (its age|its memory|it has served)")
_OVERDUE: Final = re.compile(r"pid=(\d+) graceful_timeout is over; closing what is unfinished: (.*)")
_NO_ROOM: Final = re.compile(r'refused 408 to .* while the worker was short of [^"]*"\w+ /\w+/(\d+)/')
_MORE: Final = re.compile(r"; (\d+) more$")
_SLOW: Final = re.compile(r"\w+ /\w+/(\d+)/\S* from [^;]*\((?:its answer is not taken|its body has not come)\)")
_ENDED: Final = re.compile(r"worker=\d+ gen=\d+ pid=(\d+) .*(?:killed by SIGKILL)")


class Books:
    """``timeout`` is the server's, ``threads`` how many calls one worker can be in.

    ``shared`` says that workers share an import: a generation is one version of the code then. Else a worker in place
    of one that was killed loads the files on disk, whatever its generation (docs/workers.md).
    """

    def __init__(self, folder: Path, timeout: float, threads: int, shared: bool = True) -> None:
        self._shared = shared
        self.failures: list[Failure] = []
        self.kinds: Counter[str] = Counter()
        self.outcomes: Counter[Outcome] = Counter()
        self.losses: Counter[Loss] = Counter()
        self.recycled: Counter[str] = Counter()  # workers, by the reason
        self.idle_ends: Counter[str] = Counter()  # kept connections that the server ended while nothing was asked
        self.unexplained = 0  # requests in the call of a killed worker, whose line in the log says nothing of calls
        self.longest = 0.0  # wait of a small request outside of faults
        self.longest_of_all = 0.0
        self.disturbances = 0  # faults under way
        self.calm_since = 0.0
        self.floor = 1
        self._timeout = timeout
        self._threads = threads
        self._folder = folder
        self._offsets: dict[Path, int] = {}
        self.answering: set[int] = set()  # pids that have answered a request
        self._last = 0
        self._requests: dict[int, Request] = {}
        self._begun: dict[int, Call] = {}
        self._ended: dict[int, Call] = {}
        self._open: list[Request] = []  # not judged
        self._deaths: list[Death] = []
        self._judged_deaths = 0
        self._windows: list[Window] = []
        self._lies: list[Window] = []
        self._overdue: set[int] = set()  # requests that a leaving worker has closed for their client's slowness
        self._no_room: set[int] = set()  # requests that a worker has refused because it was short of something
        self._overdue_unnamed: Counter[int] = Counter()  # how many more, by the worker's pid
        self._versions: dict[int, int] = {}  # of the code, by generation

    # What clients tell

    def number(self) -> int:
        self._last += 1
        return self._last

    def asked(self, question: Question, connected: float, earlier: int) -> Request:
        now = time.monotonic()
        made = Request(question.number, question.kind, question.path, connected, earlier, now, self.floor)
        self._requests[made.number] = made
        self._open.append(made)
        self.kinds[made.kind] += 1
        return made

    def answered(self, request: Request, question: Question, answer: Answer) -> None:
        if answer.status != 200:
            self._over(request, Outcome.REFUSED, f"{answer.status} {answer.headers}")
            return
        fault = wrong(question, answer) or self._wrong_code(request, answer)
        self._over(request, Outcome.WRONG if fault else Outcome.RIGHT, fault)
        request.pid = int(answer.headers["x-pid"])
        self.answering.add(request.pid)
        waited = request.ended - request.asked
        if not fault and request.kind == "small":
            self.longest_of_all = max(self.longest_of_all, waited)
            if not self.disturbances and self.calm_since < request.asked:
                self.longest = max(self.longest, waited)

    def _wrong_code(self, request: Request, answer: Answer) -> str:
        """What is wrong with the code that has answered."""
        generation, version = int(answer.headers["x-generation"]), int(answer.headers["x-version"])
        if generation < request.floor:
            return f"generation {generation} answers, but the log had said that {request.floor} serves"
        known = self._versions.setdefault(generation, version)
        if version == known or not self._shared:
            return ""
        return f"generation {generation} answers as version {version} and as {known}"

    def cut(self, request: Request, error: Exception) -> None:
        self._over(request, Outcome.CUT, str(error))

    def turned_away(self, request: Request) -> None:
        """The answer before it was the connection's last."""
        self._over(request, Outcome.TURNED_AWAY)

    def vanished(self, request: Request) -> None:
        self._over(request, Outcome.VANISHED)

    def broken(self, request: Request, what: str) -> None:
        """The client cannot make sense of what came, or nothing comes."""
        self._over(request, Outcome.WRONG, what)

    def _over(self, request: Request, outcome: Outcome, what: str = "") -> None:
        request.ended, request.outcome, request.what = time.monotonic(), outcome, what
        self.outcomes[outcome] += 1

    def ended_idle(self, since: float, stopping: bool) -> None:
        """The server has closed a kept connection some time after ``since``, when it was last used."""
        now = time.monotonic()
        if stopping:
            why = "at the stop"
        elif any(since - SLACK_SECONDS <= death.killed <= now for death in self._deaths):
            why = "by a kill"
        elif any(window.holds(since) or window.holds(now) for window in self._windows):
            why = "for want of room"
        else:
            why = "by itself"
        self.idle_ends[why] += 1

    # What faults tell

    def killed(self, pid: int) -> None:
        """SIGKILL is about to be sent."""
        self._deaths.append(Death(pid, time.monotonic()))

    def fail(self, text: str, at: float | None = None) -> None:
        self.failures.append(Failure(time.monotonic() if at is None else at, text))

    def crowd(self) -> Window:
        self._windows.append(Window(time.monotonic()))
        return self._windows[-1]

    def lies(self) -> Window:
        """The application is about to lie to the master."""
        self._lies.append(Window(time.monotonic()))
        return self._lies[-1]

    def _lies_at(self, moment: float) -> bool:
        return any(window.holds(moment) for window in self._lies)

    @property
    def deaths(self) -> int:
        return sum(1 for death in self._deaths if death.said)

    # What the log tells

    def read_line(self, entry: Entry) -> None:
        if serves := re.search(r"generation (\d+) serves", entry.text):
            if "still" not in entry.text:
                self.floor = max(self.floor, int(serves[1]))
        elif death := _ENDED.search(entry.text):
            self._died(int(death[1]), entry)
        elif overdue := _OVERDUE.search(entry.text):
            self._overdue.update(int(number) for number in _SLOW.findall(overdue[2]))
            more = _MORE.search(overdue[2])
            self._overdue_unnamed[int(overdue[1])] = int(more[1]) if more else 0
        elif no_room := _NO_ROOM.search(entry.text):
            self._no_room.add(int(no_room[1]))
        elif recycled := _RECYCLED.search(entry.text):
            self.recycled[recycled[1]] += 1
        elif _FAULTS.search(entry.text) and not (_LIED in entry.text and self._lies_at(entry.at)):
            self.fail(f"the log says what must not be: {entry.text}", entry.at)

    def _died(self, pid: int, entry: Entry) -> None:
        known = [death for death in self._deaths if death.pid == pid and not death.said]
        if not known:  # by the master's hand; it says so at once
            known = [Death(pid, entry.at)]
            self._deaths += known
        known[0].said, known[0].line = entry.at, entry.text

    def _crashes(self, call: Call) -> None:
        """A worker has killed itself: its line in the log may have been read before, or not yet."""
        for death in self._deaths:
            if death.pid == call.pid and call.at <= (death.said or call.at) <= call.at + SETTLE_SECONDS:
                death.killed = min(death.killed, call.at)
                return
        self._deaths.append(Death(call.pid, call.at))

    # Judgement

    def judge(self, *, finally_: bool = False) -> None:
        """Judge what is ripe; everything that has ended, ``finally_``."""
        self._read_journal()
        now = time.monotonic()
        ripe = now if finally_ else now - SETTLE_SECONDS
        for request in self._open:
            if request.outcome is not Outcome.OPEN and request.ended <= ripe:
                self._judge(request)
                request.judged = True
        self._open = [request for request in self._open if not request.judged]
        if finally_:
            for request in self._open:
                self._blame(request, "it was never answered")
        self._judge_deaths(now, finally_)
        self._forget(now)

    def _judge(self, request: Request) -> None:
        call = self._begun.get(request.number)
        match request.outcome:
            case Outcome.RIGHT if call is None:
                self._blame(request, "answered, but the journal has no such call")
            case Outcome.RIGHT if call is not None and call.pid != request.pid:
                self._blame(request, f"answered by {request.pid}, but the journal says that {call.pid} was called")
            case Outcome.WRONG:
                self._blame(request, request.what)
            case Outcome.TURNED_AWAY if call is not None:
                self._blame(request, "called after an answer that was the connection's last")
            case Outcome.REFUSED:
                self._judge_refusal(request, call)
            case Outcome.CUT:
                self._judge_loss(request, call)

    def _judge_refusal(self, request: Request, call: Call | None) -> None:
        status = int(request.what.split()[0])
        if status == 504 and call is not None and request.ended - call.at >= self._timeout - SLACK_SECONDS:
            self.losses[Loss.REFUSED_504] += 1
        elif status == 503 and self._crowded(request):
            self.losses[Loss.REFUSED_503] += 1
        elif status == 408 and call is None and (self._crowded(request) or request.number in self._no_room):
            self.losses[Loss.REFUSED_408] += 1
        else:
            self._blame(request, f"answered with {request.what}")

    def _judge_loss(self, request: Request, call: Call | None) -> None:
        if request.number in self._overdue:
            self.losses[Loss.OVERDUE] += 1
            return
        if request.number in self._no_room:
            self.losses[Loss.NAMED_408] += 1
            return
        if call is not None:
            self._judge_call(request, call)
            return
        deaths = [death for death in self._deaths if death.explains(request.ended)]
        if deaths:
            self.losses[Loss.PARKED] += 1
            if len(deaths) == 1 and not self._crowded(request):
                deaths[0].parked.add(request.connected)
        elif self._crowded(request):
            self.losses[Loss.CROWDED] += 1
        else:
            self._blame(request, "cut, and no worker was killed at that time")

    def _judge_call(self, request: Request, call: Call) -> None:
        for death in self._deaths:
            if death.pid == call.pid and death.covers(call, request.ended):
                death.losses.append(request)
                return
        if self._overdue_unnamed[call.pid] > 0:
            self._overdue_unnamed[call.pid] -= 1
            self.losses[Loss.OVERDUE] += 1
            return
        self._blame(request, f"cut while worker {call.pid} was called for it, and that was not killed")

    def _crowded(self, request: Request) -> bool:
        return any(window.holds(request.ended) or window.holds(request.asked) for window in self._windows)

    def _judge_deaths(self, now: float, finally_: bool) -> None:
        while self._judged_deaths < len(self._deaths):
            death = self._deaths[self._judged_deaths]
            if not finally_ and now < death.killed + FORGET_SECONDS / 2:
                return
            self._judged_deaths += 1
            self._judge_death(death)

    def _judge_death(self, death: Death) -> None:
        """What was lost with one worker, against the line of its death."""
        if not death.strict:
            self.unexplained += len(death.losses)
            return
        cut = death.parked | {request.connected for request in death.losses}
        if len(cut) > death.count("connection"):
            self.fail(f"{len(cut)} connections were cut by one death, which tells of fewer: {death.line}", death.said)
        named = [request for request in death.losses if request.number in death.named]
        unsent = [request for request in death.losses if request.number not in death.named]
        self.losses[Loss.NAMED] += len(named)
        self.losses[Loss.UNSENT] += len(unsent)
        if len(named) > self._threads:
            self.fail(f"more calls lost than a worker has threads: {death.line}", death.said)
        if len(unsent) > death.count("answers? unsent"):
            for request in unsent:
                self._blame(request, f"lost in a call that its worker's last line does not tell of:\n  {death.line}")

    def _blame(self, request: Request, why: str) -> None:
        call = self._begun.get(request.number)
        origin = "a new connection" if not request.earlier else f"a connection with {request.earlier} answers before"
        begun = f"begun by pid {call.pid} at {call.at:.3f}" if call else "never begun"
        ended = "and ended" if request.number in self._ended else "and not ended"
        self.fail(
            f"request {request.number} ({request.kind}) {request.path}: {why}\n"
            f"  asked {request.asked:.3f} on {origin}, made {request.connected:.3f}; over {request.ended:.3f} "
            f"({request.ended - request.asked:.3f} s later), {request.outcome.value}: {request.what}\n"
            f"  the journal: {begun} {ended if call else ''}",
            request.ended or None,
        )

    # The journal

    def _read_journal(self) -> None:
        segments = sorted(self._folder.glob(f"{JOURNAL}.*"), key=lambda path: int(path.suffix[1:]))
        for path in segments:
            self._read_segment(path)
        for path in segments:
            if int(path.suffix[1:]) < time.monotonic() // SEGMENT_SECONDS - _KEPT_SEGMENTS:
                self._offsets.pop(path, None)
                path.unlink()

    def _read_segment(self, path: Path) -> None:
        with path.open("rb") as file:
            file.seek(self._offsets.get(path, 0))
            data = file.read()
        whole = data[: data.rfind(b"\n") + 1]
        self._offsets[path] = self._offsets.get(path, 0) + len(whole)
        for line in whole.decode().splitlines():
            what, number, pid, at = line.split()
            self._note(what, int(number), Call(int(pid), float(at)))

    def _note(self, what: str, number: int, call: Call) -> None:
        if number not in self._requests:
            self.fail(f"the journal has a call of {call.pid} for request {number}, which nobody waits for any more")
            return
        if what == DYING:
            self._crashes(call)
            return
        calls = self._begun if what == BEGUN else self._ended
        if number in calls:
            self._blame(self._requests[number], f"its call {what} twice, in {calls[number]} and in {call}")
        calls[number] = call

    def _forget(self, now: float) -> None:
        """Let go of the oldest requests; the last look at each."""
        while self._requests:
            request = next(iter(self._requests.values()))
            if not request.judged or request.ended > now - FORGET_SECONDS:
                return
            begun, ended = self._begun.pop(request.number, None), self._ended.pop(request.number, None)
            if ended is not None and (begun is None or begun.pid != ended.pid):
                self._blame(request, f"its call began as {begun} and ended as {ended}")
            self._overdue.discard(request.number)
            self._no_room.discard(request.number)
            del self._requests[request.number]
