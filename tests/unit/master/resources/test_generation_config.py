"""A generation keeps what it was begun with for as long as it is known."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from forkserver.config import settings as settings_table
from forkserver.config.settings import Settings
from forkserver.ipc.scoreboard import Scoreboard
from forkserver.master.resources.generation_config import GenerationConfig, GenerationConfigs
from forkserver.worker.loading.release_paths import Release


def config(board: Scoreboard, workers: int = 1) -> GenerationConfig:
    return GenerationConfig(settings_table.defaults(workers=workers), board, None, None)


def is_open(number: int) -> bool:
    return os.path.exists(f"/proc/self/fd/{number}")


@pytest.fixture
def boards() -> Iterator[list[Scoreboard]]:
    """Three scoreboards; what a test closes is closed."""
    made = [Scoreboard(rows) for rows in (8, 4, 6)]
    yield made
    for board in made:
        if is_open(board.fd):
            os.close(board.fd)
    made.clear()


def test_a_scoreboard_is_closed_with_the_last_generation_that_uses_it(boards: list[Scoreboard]) -> None:
    old, new, _ = boards
    configs = GenerationConfigs(old)
    configs.add(1, config(old), (), old)
    configs.add(2, config(old), (1,), old)
    configs.add(3, config(new), (2,), new)
    assert is_open(old.fd), "generation 2 uses it"
    configs.add(4, config(new), (3,), new)
    assert not is_open(old.fd)
    assert is_open(new.fd)


def test_the_newest_scoreboard_stays_though_no_generation_uses_it_yet(boards: list[Scoreboard]) -> None:
    old, new, _ = boards
    configs = GenerationConfigs(old)
    configs.add(1, config(old), (), old)
    configs.add(2, config(new), (), old)
    assert is_open(old.fd)


def test_the_next_program_reads_the_keys_of_what_serves_from_its_release(boards: list[Scoreboard]) -> None:
    """The program has entered the release that the path leads to now, whose code may not load."""
    serves = settings_table.defaults(certfile=["cert.pem", "/etc/cert.pem"], keyfile=["key.pem", "/etc/key.pem"])
    before, after = GenerationConfigs(boards[0]), GenerationConfigs(boards[0])
    release = Release("/srv/r1", None, [])
    before.add(1, GenerationConfig(serves, boards[0], None, release), (), boards[0])
    read: list[Settings] = []
    after.restore(before.snapshot((1,)), 1, read.append)
    (pinned,) = read
    assert pinned.certfile == ["/srv/r1/cert.pem", "/etc/cert.pem"]
    assert pinned.keyfile == ["/srv/r1/key.pem", "/etc/key.pem"]
    assert pinned.ca_certs is None
    assert after[1].settings == serves, "a reload compares them"


def test_what_is_known_of_a_generation_that_has_ended_is_forgotten(boards: list[Scoreboard]) -> None:
    configs = GenerationConfigs(boards[0])
    configs.add(1, config(boards[0], workers=3), (), boards[0])
    assert configs[1].settings.workers == 3
    configs.add(2, config(boards[0]), (), boards[0])
    with pytest.raises(KeyError):
        configs[1]


def test_room_is_what_every_scoreboard_has(boards: list[Scoreboard]) -> None:
    configs = GenerationConfigs(boards[0])
    for generation, board in enumerate(boards):
        configs.add(generation, config(board), range(3), boards[-1])
    assert configs.fewest_rows(range(3)) == 4
    assert configs.fewest_rows((0, 2)) == 6, "that of a generation that has ended does not count"


def test_the_next_program_reads_the_keys_of_the_current_generation_alone(boards: list[Scoreboard]) -> None:
    """From no other will a template be started."""
    configs = GenerationConfigs(boards[0])
    for generation in (1, 2):
        configs.add(generation, config(boards[0], workers=generation), (1,), boards[0])
    asked: list[Settings] = []
    after = GenerationConfigs(boards[0])
    after.restore(configs.snapshot((1, 2)), 2, asked.append)
    assert [each.workers for each in asked] == [2]
    assert after[1].board is after[2].board is boards[0]
    assert [each.generation for each in configs.snapshot((2,))] == [2]
