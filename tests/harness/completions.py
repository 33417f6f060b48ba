"""Completions of both programs for bash, zsh and fish, made from the settings table and forkserverctl's own parser.

Source: bash(1), "Programmable Completion"; zshcompsys(1), _arguments; https://fishshell.com/docs/current/completions.html
"""

from __future__ import annotations

import argparse
import re
import textwrap
from collections.abc import Iterator
from typing import NamedTuple

from forkserver.cli import control, settings_help
from forkserver.config.settings import TABLE
from harness.man_pages import commands, options

FILE, FOLDER, WORD, NOTHING = "file", "folder", "word", ""
_KINDS = {"FILE": FILE, "FILES": FILE, "PATH": FILE, "PATHS": FILE, "DIR": FOLDER, "DIRS": FOLDER}
_NO_FILES = ("ready_path", "warm_path", "root_path")  # paths of a URL


class Flag(NamedTuple):
    """One flag of a program: its spellings, what its value is, and the words that are offered for it."""

    spellings: tuple[str, ...]
    about: str
    value: str = NOTHING
    words: tuple[str, ...] = ()
    optional: bool = False
    metavar: str = ""


def flags_of_program() -> list[Flag]:
    made = []
    for setting in TABLE:
        if setting.flags:
            kind = FILE if setting.name in ("access_log", "error_log") else _KINDS.get(setting.metavar, WORD)
            kind = WORD if setting.name in _NO_FILES or setting.value_type.choices else kind
            words = setting.value_type.choices
            about = _short(setting.help)
            made.append(Flag(setting.flags, about, kind, words, setting.bare is not None, setting.metavar))
    names = ("all", *(setting.name for setting in TABLE))
    for spelling, what in settings_help.ACTIONS:
        flags = tuple(word for word in spelling.replace(",", " ").split() if word.startswith("-"))
        if "--help" in flags:
            made.append(Flag(flags, _short(what), WORD, names, True, "SETTING"))
        elif "--from" in flags:
            made.append(Flag(flags, _short(what), FILE, (), False, "FILE"))
        else:
            made.append(Flag(flags, _short(what)))
    return [*made, Flag(("--all",), "With --print-config: every setting, explained")]


def flags_of(parser: argparse.ArgumentParser) -> list[Flag]:
    return [
        Flag(
            tuple(action.option_strings),
            _short(action.help or ""),
            NOTHING if action.nargs == 0 else FILE if action.metavar == "PATH" else WORD,
            metavar=str(action.metavar or ""),
        )
        for action in options(parser)
    ]


def _short(text: str) -> str:
    """The first clause of ``text``, without what a shell would read as its own between quotes and brackets."""
    clause = re.split(r"; | \(|\. |: |, such as", text)[0].rstrip(".")
    plain = clause.translate(str.maketrans(dict.fromkeys('"[]`$\\')))
    return textwrap.shorten(plain, 70, placeholder="").rstrip(",")


# bash


def bash_program() -> str:
    flags = flags_of_program()
    every = " ".join(spelling for flag in flags for spelling in flag.spellings)
    return _BASH.format(name="forkserver", cases="\n".join(_bash_cases(flags)), every=every, words="")


def bash_control() -> str:
    parser = control.command_parser()
    flags = flags_of(parser)
    known = commands(parser)
    more = sorted({spelling for each in known.values() for flag in flags_of(each) for spelling in flag.spellings})
    every = " ".join(dict.fromkeys([*(spelling for flag in flags for spelling in flag.spellings), *more, "--help"]))
    cases = [*_bash_cases(flags), '        maintenance) COMPREPLY=($(compgen -W "on off" -- "$cur")); return ;;']
    words = f'    COMPREPLY=($(compgen -W "{" ".join(known)}" -- "$cur"))\n'
    return _BASH.format(name="forkserverctl", cases="\n".join(cases), every=every, words=words)


_BASH = """\
# bash completion for {name}; made by tests/harness/shipped_files.py
_{name}() {{
    local cur=${{COMP_WORDS[COMP_CWORD]}} prev=${{COMP_WORDS[COMP_CWORD-1]}}
    # --flag=value is three words here
    if [[ $cur == = ]]; then
        cur=
    elif [[ $prev == = ]]; then
        prev=${{COMP_WORDS[COMP_CWORD-2]}}
    fi
    COMPREPLY=()
    case $prev in
{cases}
    esac
    if [[ $cur == -* ]]; then
        COMPREPLY=($(compgen -W "{every}" -- "$cur"))
        return
    fi
{words}}}
complete -F _{name} {name}
"""


def _bash_cases(flags: list[Flag]) -> Iterator[str]:
    for flag in flags:
        head = f"        {'|'.join(flag.spellings)})"
        if flag.words:
            otherwise = "[[ $cur == -* ]] || { %s; return; }" if flag.optional else "%s; return"
            offer = f'COMPREPLY=($(compgen -W "{" ".join(flag.words)}" -- "$cur"))'
            yield f"{head} {otherwise % offer} ;;"
        elif flag.value in (FILE, FOLDER):
            kind = "-f" if flag.value == FILE else "-d"
            yield f'{head} compopt -o filenames; mapfile -t COMPREPLY < <(compgen {kind} -- "$cur"); return ;;'
        elif flag.value == WORD and not flag.optional:
            yield f"{head} return ;;"


# zsh


def zsh_program() -> str:
    lines = [*(line for flag in flags_of_program() for line in _zsh(flag)), "'1:MODULE\\:APP: '"]
    return _zsh_file("forkserver", lines)


def zsh_control() -> str:
    parser = control.command_parser()
    lines = [*(line for flag in flags_of(parser) for line in _zsh(flag))]
    named = " ".join(f"{name}\\:'{_short(each.description or '')}'" for name, each in commands(parser).items())
    lines += [f'"1:command:(({named}))"', "'*:argument: '"]
    for name, command in commands(parser).items():
        for flag in flags_of(command):
            if flag.spellings != ("--json",):
                lines += [_quoted_for_zsh(f"{flag.spellings[0]}[{name} - {flag.about}]")]
    return _zsh_file("forkserverctl", lines)


def _zsh_file(name: str, lines: list[str]) -> str:
    arguments = " \\\n    ".join(lines)
    return f"#compdef {name}\n# made by tests/harness/shipped_files.py\n\n_arguments -s \\\n    {arguments}\n"


def _quoted_for_zsh(text: str) -> str:
    return "'" + text.replace("'", "'\\''") + "'"


def _zsh(flag: Flag) -> Iterator[str]:
    action = {FILE: "_files", FOLDER: "_files -/", WORD: " "}.get(flag.value, "")
    action = f"({' '.join(flag.words)})" if flag.words else action
    value = f"{'::' if flag.optional else ':'}{flag.metavar.replace(':', chr(92) + ':')}:{action}" if flag.value else ""
    for spelling in flag.spellings:
        joined = "=" if value and spelling.startswith("--") else ""
        joined += "-" if flag.optional and not joined else ""
        yield _quoted_for_zsh(f"*{spelling}{joined}[{flag.about}]{value}")


# fish


def fish_program() -> str:
    lines = [_fish("forkserver", flag) for flag in flags_of_program()]
    return "\n".join(["# made by tests/harness/shipped_files.py", "complete -c forkserver -f", *lines]) + "\n"


def fish_control() -> str:
    parser = control.command_parser()
    lines = [_fish("forkserverctl", flag) for flag in flags_of(parser)]
    known = commands(parser)
    for name, command in known.items():
        lines.append(
            f"complete -c forkserverctl -n __fish_use_subcommand -a {name} "
            f"-d {_quoted_for_fish(_short(command.description or ''))}"
        )
        wanted = f"-n '__fish_seen_subcommand_from {name}'"
        lines += [_fish("forkserverctl", flag, wanted) for flag in flags_of(command) if flag.spellings != ("--json",)]
    lines.append("complete -c forkserverctl -n '__fish_seen_subcommand_from maintenance' -a 'on off'")
    return "\n".join(["# made by tests/harness/shipped_files.py", "complete -c forkserverctl -f", *lines]) + "\n"


def _fish(program: str, flag: Flag, wanted: str = "") -> str:
    parts = [f"complete -c {program}", *([wanted] if wanted else [])]
    parts += [f"-l {name[2:]}" if name.startswith("--") else f"-s {name[1:]}" for name in flag.spellings]
    if flag.words:
        parts.append(f"-x -a '{' '.join(flag.words)}'")
    elif flag.value == FILE:
        parts.append("-r -F")
    elif flag.value == FOLDER:
        parts.append("-x -a '(__fish_complete_directories)'")
    elif flag.value == WORD and not flag.optional:
        parts.append("-x")
    return " ".join([*parts, f"-d {_quoted_for_fish(flag.about)}"])


def _quoted_for_fish(text: str) -> str:
    return "'" + text.replace("'", "\\'") + "'"
