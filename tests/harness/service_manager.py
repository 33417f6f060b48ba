"""A real systemd for the tests, on a machine that was not booted with it.

It is PID 1 of a PID namespace of its own, in a control group of its own, with a private /run, /srv, /var/log, folders
of state and /etc (a copy); the rest of the file system and the network are the machine's. It sees a few targets, the
journal, and the units that a test puts there. Root only.

It says READY=1 to the NOTIFY_SOCKET it was started with when it has booted, as it does in any container (see
https://systemd.io/CONTAINER_INTERFACE), so nothing here polls.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

from harness import processes
from harness.journal import Journal, Manager, from_lines

SHIPPED = Path("/lib/systemd/system")
UNITS = Path("/run/systemd/system")
NEEDED = (
    *(f"{name}.target" for name in ("basic", "sysinit", "sockets", "timers", "paths", "slices", "shutdown", "umount")),
    *("final.target", "multi-user.target", "local-fs.target", "network.target"),
    *("systemd-journald.service", "systemd-journald.socket", "systemd-journald-dev-log.socket"),
)
BOOT = """
set -e
mount --make-rprivate /
{mounts}
mount -t tmpfs tmpfs /run
mkdir -p /run/systemd/system /run/lock
cp -a /etc /run/etc
mount --bind /run/etc /etc
mount --bind /run/systemd/system /etc/systemd/system
for folder in /srv /var/log; do mount -t tmpfs -o mode=755 tmpfs $folder; done
# Not all of /var/lib, where the interpreter may be; these two stay behind empty, for another manager may live in them.
mkdir -p -m 700 /var/lib/private; mount -t tmpfs -o mode=700 tmpfs /var/lib/private
mkdir -p /var/lib/forkserver; mount -t tmpfs -o mode=755 tmpfs /var/lib/forkserver
cp -a {units}/. /run/systemd/system/
# systemd hands credentials over by mounts that a child of its makes; cut off from the machine's by the line at the top.
mount --make-rshared /
export container=forkserver-tests SYSTEMD_UNIT_PATH=/run/systemd/system
exec /lib/systemd/systemd --system --unit=basic.target --log-target=console --log-level=warning --show-status=no
"""
JOIN = 'for home in $HOMES; do echo $$ > "$home/cgroup.procs"; done; unset HOMES; exec "$@"'


def _hierarchies() -> list[tuple[Path, str]]:
    """Where control groups are mounted, each with the command that mounts the same for a namespace of its own."""
    found = []
    for line in Path("/proc/self/mounts").read_text().splitlines():
        _, where, kind, options, *_ = line.split()
        if kind == "cgroup2":
            found.append((Path(where), f"mkdir -p {where}; mount -t cgroup2 cgroup2 {where}"))
        elif kind == "cgroup" and "cpuset" not in options:  # a cpuset group starts without CPUs and takes no process
            which = [word for word in options.split(",") if word not in ("rw", "ro", "nosuid", "nodev", "noexec")]
            which = [word for word in which if word not in ("relatime", "xattr") and not word.startswith("release")]
            which = [*(["none"] if which[0].startswith("name=") else []), *which]
            found.append((Path(where), f"mkdir -p {where}; mount -t cgroup -o {','.join(which)} cgroup {where}"))
    return found


class ServiceManager:
    def __init__(self) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="forkserver-systemd-"))
        hierarchies = _hierarchies()
        # The folder's name is drawn at random: a pid is not the only one of its number where there are PID namespaces.
        self._homes = [where / self._folder.name for where, _ in hierarchies]
        mounts = [command for _, command in hierarchies]
        if Path("/sys/fs/cgroup") not in [where for where, _ in hierarchies]:
            mounts.insert(0, "mount -t tmpfs tmpfs /sys/fs/cgroup")
        self._write_boot(mounts)
        manager = Manager()
        try:
            self._outer = self._start(manager.address)
            manager.said.until(lambda: manager.said.find(r"(?m)^READY=1$"), "systemd's READY=1")
        finally:
            manager.close()
        (inner,) = psutil.Process(self._outer.pid).children()
        self.pid = inner.pid

    def _write_boot(self, mounts: list[str]) -> None:
        units = self._folder / "units"
        wanted = units / "sysinit.target.wants"
        wanted.mkdir(parents=True)
        for name in NEEDED:
            if (SHIPPED / name).exists():
                shutil.copy(SHIPPED / name, units)
            if name.startswith("systemd-journald"):
                (wanted / name).symlink_to(UNITS / name)
        (self._folder / "boot").write_text(BOOT.format(mounts="\n".join(mounts), units=units))

    def _start(self, notify: str) -> subprocess.Popen[bytes]:
        for home in self._homes:
            home.mkdir()
        # Where the tests are killed, the manager ends with them, and --kill-child ends all that it has started.
        ending = ["setpriv", "--pdeathsig", "KILL"]
        inside = ["unshare", "--pid", "--fork", "--mount", "--cgroup", "--mount-proc", "--kill-child", "sh"]
        with (self._folder / "log").open("wb") as log:
            return subprocess.Popen(
                [*ending, "sh", "-c", JOIN, "sh", *inside, str(self._folder / "boot")],
                env={"PATH": os.environ["PATH"], "HOMES": " ".join(map(str, self._homes)), "NOTIFY_SOCKET": notify},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    def command(self, *command: str) -> list[str]:
        """``command`` as it is run beside the manager, seeing its /run, its processes and its control groups."""
        status = self._outer.poll()
        assert status is None, f"systemd has ended\n{self.log()}"
        return ["nsenter", "-t", str(self.pid), "-m", "-p", "-C", "--", *command]

    def run(self, *command: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(self.command(*command), capture_output=True, text=True, stdin=subprocess.DEVNULL)

    def systemctl(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return self.run("systemctl", "--no-pager", *arguments)

    def show(self, unit: str, name: str) -> str:
        return self.systemctl("show", "--value", "-p", name, unit).stdout.strip()

    def log(self) -> str:
        """What the manager itself complained of, as of a service that could not even be executed."""
        return (self._folder / "log").read_text()

    def remove_state(self) -> None:
        """Remove what StateDirectory= has made: systemd cannot move it, over two mounts, to its next account."""
        self.run("sh", "-c", "rm -rf /var/lib/forkserver/* /var/lib/private/forkserver")

    def path(self, seen: str) -> Path:
        """Where the file that the manager sees as ``seen`` can be reached from here."""
        return Path(f"/proc/{self.pid}/root{seen}")

    def write(self, name: str, text: str) -> None:
        """Put a unit, or a drop-in (``a.service.d/b.conf``), where the manager looks at ``daemon-reload``."""
        path = self.path(f"{UNITS}/{name}")
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)

    @contextmanager
    def follow(self, unit: str) -> Iterator[Journal]:
        """The unit's log from its beginning, line by line as it comes."""
        reader, writer = os.pipe()
        command = self.command("journalctl", "--follow", "--lines=all", "--output=cat", f"--unit={unit}")
        entering = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=writer, stderr=subprocess.DEVNULL)
        os.close(writer)
        journal = from_lines(f"the journal of {unit}", reader)
        try:
            yield journal
        finally:
            # nsenter waits for the journalctl that it forked into the namespace; that one has to be ended.
            processes.end({child.pid for child in psutil.Process(entering.pid).children()})
            entering.wait()
            journal.join()

    def close(self) -> None:
        """End the manager and all it started: with PID 1 of a namespace ends everything in it."""
        processes.end({self.pid})
        self._outer.wait()
        for home in self._homes:
            for folder, _, _ in os.walk(home, topdown=False):
                os.rmdir(folder)
        shutil.rmtree(self._folder)
