"""A Dockerfile carried out without an engine: each stage in a root of its own, its steps in a chroot, as root.

A stage begins as a new tmpfs with what a slim Python image has: the machine's own /usr, read-only, in place of a
distribution's, ``python`` on the PATH, and an /etc of two lines. So what is tested are the steps and the command, not
the image that FROM names; nor layers, nor its size.

It knows the instructions that deploy/Dockerfile has, and refuses others. Source: Docker's "Dockerfile reference".
"""

from __future__ import annotations

import json
import os
import re
import shlex
import sys
from dataclasses import dataclass, field
from pathlib import Path

PATH = "/usr/local/bin:/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin"
# $1 is the root; $2 the interpreter, and $3 the folder it lives in where that is not /usr.
BASE = r"""
set -eu
copy() {  # what a folder holds, or a file into a folder; owned by root
    if [ -d "$1" ]; then mkdir -p "$2"; cp -RP --preserve=mode "$1/." "$2"; else cp -P --preserve=mode "$1" "$2"; fi
}
base() {
    mkdir -p "$1"; mount -t tmpfs -o mode=755 tmpfs "$1"
    mkdir -p "$1/usr" "$1/etc" "$1/proc" "$1/dev" "$1/tmp" "$1/var/tmp" "$1/run"; chmod 1777 "$1/tmp" "$1/var/tmp"
    mount --bind /usr "$1/usr"; mount -o remount,bind,ro "$1/usr"
    for name in bin sbin lib lib64; do ln -s "usr/$name" "$1/$name"; done
    if [ "$3" != /usr ]; then mkdir -p "$1$3"; mount --bind "$3" "$1$3"; mount -o remount,bind,ro "$1$3"; fi
    mount -t tmpfs -o mode=755 tmpfs "$1/usr/local"; mkdir "$1/usr/local/bin"
    printf '#!/bin/sh\nexec "%s" "$@"\n' "$2" > "$1/usr/local/bin/python"; chmod 755 "$1/usr/local/bin/python"
    echo root:x:0:0:root:/root:/bin/sh > "$1/etc/passwd"; echo root:x:0: > "$1/etc/group"
    for name in null zero urandom; do touch "$1/dev/$name"; mount --bind "/dev/$name" "$1/dev/$name"; done
}
"""


@dataclass
class Stage:
    name: str
    root: str
    script: list[str]
    folder: str = "/"
    user: str = "0:0"
    environ: dict[str, str] = field(default_factory=lambda: {"PATH": PATH, "HOME": "/"})
    entry: list[str] = field(default_factory=list)
    arguments: list[str] = field(default_factory=list)
    check: list[str] = field(default_factory=list)
    stop_signal: str = "SIGTERM"

    def run(self, command: list[str]) -> str:
        """The line of a script that runs ``command`` in this stage's root, as its user, and in its folder."""
        environ = [f"{name}={value}" for name, value in self.environ.items()]
        inner = ["sh", "-c", f'cd {shlex.quote(self.folder)} && exec "$@"', "sh", *command]
        return shlex.join(["env", "-i", *environ, "chroot", f"--userspec={self.user}", "--groups=", self.root, *inner])


class Image:
    """``context`` is what the build is given; ``environ`` is added to that of RUN; each stage sees ``shown``."""

    def __init__(self, text: str, context: Path, work: Path, environ: dict[str, str], shown: dict[str, Path]) -> None:
        self._context, self._work, self._environ, self._shown = context, work, environ, shown
        self.stages: list[Stage] = []
        joined = re.sub(r"\\\n", " ", re.sub(r"(?m)^\s*#.*\n", "", text))
        for line in filter(None, map(str.strip, joined.splitlines())):
            word, rest = line.split(None, 1)
            getattr(self, f"_{word.lower()}")(rest)

    @property
    def last(self) -> Stage:
        return self.stages[-1]

    @property
    def build(self) -> str:
        """The whole build as a script, to be run in a mount namespace of its own."""
        return BASE + "\n".join(line for stage in self.stages for line in stage.script) + "\n"

    def start(self, *arguments: str) -> str:
        """The line that starts the container's command as process 1 of a namespace; ``arguments`` replace CMD's."""
        command = self.last.run([*self.last.entry, *(arguments or self.last.arguments)])
        script = f"mount -t proc proc {shlex.quote(self.last.root + '/proc')}; exec {command}"
        return shlex.join(["exec", "unshare", "--pid", "--fork", "--mount", "--kill-child", "sh", "-c", script])

    def _from(self, rest: str) -> None:
        name = rest.partition(" AS ")[2]
        root = str(self._work / f"stage-{len(self.stages)}")
        prefix = os.path.realpath(sys.base_prefix)
        python = os.path.realpath(os.path.join(sys.base_prefix, "bin", f"python3.{sys.version_info.minor}"))
        script = [shlex.join(["base", root, python, prefix])]
        for place, source in self._shown.items():
            target = shlex.quote(root + place)
            script.append(f"mkdir -p {target}; mount --bind {shlex.quote(str(source))} {target}")
        self.stages.append(Stage(name, root, script))

    def _workdir(self, rest: str) -> None:
        self.last.folder = rest
        self.last.script.append(f"mkdir -p {shlex.quote(self.last.root + rest)}")

    def _copy(self, rest: str) -> None:
        words = shlex.split(rest)
        base = str(self._context)
        if words[0].startswith("--from="):
            (base,) = (stage.root for stage in self.stages if stage.name == words[0].removeprefix("--from="))
            words = words[1:]
        *sources, target = words
        target = os.path.normpath(self.last.root + os.path.join(self.last.folder, target))
        for source in sources:  # a pattern may match nothing, if another source is there
            paths = map(str, Path(base).glob(source)) if "*" in source else [f"{base}/{source}"]
            self.last.script += (shlex.join(["copy", os.path.normpath(path), target]) for path in paths)

    def _run(self, rest: str) -> None:
        stage = self.last
        before, stage.environ = stage.environ, stage.environ | self._environ
        stage.script.append(stage.run(["sh", "-c", rest]))
        stage.environ = before

    def _env(self, rest: str) -> None:
        self.last.environ |= dict(pair.split("=", 1) for pair in shlex.split(rest))

    def _user(self, rest: str) -> None:
        self.last.user = rest

    def _expose(self, rest: str) -> None:
        assert rest.isdigit()

    def _stopsignal(self, rest: str) -> None:
        self.last.stop_signal = rest

    def _healthcheck(self, rest: str) -> None:
        self.last.check = json.loads(rest.partition("CMD ")[2])

    def _entrypoint(self, rest: str) -> None:
        self.last.entry = json.loads(rest)  # the exec form; the shell form is no JSON

    def _cmd(self, rest: str) -> None:
        self.last.arguments = json.loads(rest)
