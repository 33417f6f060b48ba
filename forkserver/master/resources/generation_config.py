"""What each generation runs by: its settings, its keys, its folders, and its template's scoreboard.

A generation keeps all of them for as long as it is known, whatever a later reload brings. A scoreboard is closed with
the last generation that uses it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Container, Iterable
from typing import TYPE_CHECKING

from forkserver.config import loading
from forkserver.config.settings import Settings
from forkserver.ipc.scoreboard import Scoreboard, Shape
from forkserver.linux.common.records import NamedTuple
from forkserver.worker.loading.release_paths import Release

if TYPE_CHECKING:
    from forkserver.tls.contexts import TlsContexts


class GenerationConfig(NamedTuple):
    """A generation's; ``release`` is None where an older program has begun it."""

    settings: Settings
    board: Scoreboard
    tls: TlsContexts | None
    release: Release | None


class GenerationConfigsSnapshot(NamedTuple):
    """A generation's as the next program is told of it; ``board`` is a descriptor, ``shape`` its geometry."""

    generation: int
    settings: loading.SettingsSnapshot
    board: int
    shape: Shape | None = None
    release: Release | None = None


class GenerationConfigs:
    """Settings, scoreboards and keys by generation; ``newest`` is the scoreboard that there is already."""

    def __init__(self, newest: Scoreboard) -> None:
        self._known: dict[int, GenerationConfig] = {}
        self._newest = newest

    def restore(
        self,
        snapshots: Iterable[GenerationConfigsSnapshot],
        current: int,
        tls_of: Callable[[Settings], TlsContexts | None],
    ) -> None:
        """Take over those of the program before; of ``current``, ``tls_of`` reads the keys again, from its release.

        From no other will a template be started: their workers have what they speak.
        """
        boards = {self._newest.fd: self._newest}
        for generation, plain, number, shape, release in snapshots:
            if number not in boards:
                boards[number] = Scoreboard.restore(number, shape)
            settings = loading.from_snapshot(plain)
            pinned = settings if release is None else release.pin_certificates(settings)
            tls = tls_of(pinned) if generation == current else None
            self._known[generation] = GenerationConfig(settings, boards[number], tls, release)

    def __getitem__(self, generation: int) -> GenerationConfig:
        return self._known[generation]

    def fewest_rows(self, known: Container[int]) -> int:
        """How many rows the scoreboard of every generation has that is ``known`` still."""
        return min((each.board.rows for number, each in self._known.items() if number in known), default=0)

    def add(self, generation: int, config: GenerationConfig, known: Container[int], newest: Scoreboard) -> None:
        """Note the ``config`` of ``generation``; forget those that are not ``known`` any more."""
        before = {each.board for each in self._known.values()}
        self._known = {number: each for number, each in self._known.items() if number in known} | {generation: config}
        for board in before - {newest, *(each.board for each in self._known.values())}:
            os.close(board.fd)  # its memory lives on as long as a row of it is held

    def snapshot(self, known: Container[int]) -> list[GenerationConfigsSnapshot]:
        """What the next program is told of the generations that are ``known``."""
        return [
            GenerationConfigsSnapshot(
                number, loading.snapshot(each.settings), each.board.fd, each.board.shape, each.release
            )
            for number, each in self._known.items()
            if number in known
        ]
