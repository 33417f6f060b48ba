"""deploy/logrotate.conf, rotated by logrotate itself while load is served, under a real systemd."""

from __future__ import annotations

import gzip
import re
import shutil
from pathlib import Path

import pytest

from harness import needs
from harness.load import Load
from harness.service_manager import ServiceManager
from harness.site import Site, installed

pytestmark = pytest.mark.as_root
CONFIGURATION = Path(__file__).parents[2] / "deploy" / "logrotate.conf"
ACCOUNT = "User=www-data\nDynamicUser=no\n"


def rotate(site: Site, configuration: Path) -> None:
    """One rotation, ahead of its day; returns when the files are open again everywhere."""
    since = site.log.mark()
    state = f"--state={site.folder}/state"
    ran = site.manager.run(needs.program("logrotate"), "--force", state, str(configuration))
    assert (ran.returncode, ran.stderr) == (0, "")
    site.log.wait("log files are opened again", since)


def lines(folder: Path) -> int:
    """Lines in all files of the log, compressed ones too."""
    texts = [gzip.open(file).read() if file.suffix == ".gz" else file.read_bytes() for file in folder.iterdir()]
    return sum(text.count(b"\n") for text in texts)


def test_rotations_under_load_lose_no_line(manager: ServiceManager) -> None:
    """Each answered request has its line, in one file or the next."""
    with installed(manager) as site:
        logs = site.folder / "logs"
        logs.mkdir()
        shutil.chown(logs, "www-data", "www-data")
        logs.chmod(0o775)  # logrotate refuses to work here as root
        site.configure(f"raw:app -w 2 --access-log {logs}/access.log", f"{ACCOUNT}ReadWritePaths={logs}\n")
        configuration = site.folder / "logrotate.conf"
        text = CONFIGURATION.read_text()
        for name, ours in (
            ("/var/log/forkserver/myapp/", f"{logs}/"),
            ("su forkserver-myapp .*", "su www-data www-data"),
        ):
            text, count = re.subn(name, ours, text)
            assert count == 1
        configuration.write_text(text)
        site.start()
        with Load(site.address, clients=8) as load:
            for _ in range(3):
                load.more(200)
                rotate(site, configuration)
            load.more(200)
        site.control("stop", site.service)
        assert load.lost == []
        names = sorted(file.name for file in logs.iterdir())
        assert names == ["access.log", "access.log.1", "access.log.2.gz", "access.log.3.gz"]
        assert {file.owner() for file in logs.iterdir()} == {"www-data"}
        assert lines(logs) == len(load.answers)
