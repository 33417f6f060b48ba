"""What `make release-check` looks for is found: here in files that are made for it, which takes no build."""

from __future__ import annotations

import tarfile
import zipfile
from importlib import metadata
from pathlib import Path

import pytest

from tools import release_check, sbom

TOP = Path(__file__).parents[1]
VERSION = "1.2.3"
ABOUT = f"Metadata-Version: 2.4\nName: forkserver-wsgi\nVersion: {VERSION}\nRequires-Dist: setproctitle>=1.3\n"
HELD = {
    "forkserver/__init__.py": "",
    "forkserver/py.typed": "",
    f"forkserver_wsgi-{VERSION}.data/data/share/man/man1/forkserver.1": "",
    f"forkserver_wsgi-{VERSION}.dist-info/METADATA": ABOUT,
    f"forkserver_wsgi-{VERSION}.dist-info/entry_points.txt": "[console_scripts]\nforkserver = a\nforkserverctl = b\n",
    f"forkserver_wsgi-{VERSION}.dist-info/licenses/LICENSE": "",
}


def wheel(folder: Path, more: dict[str, str], tag: str = "py3-none-any") -> Path:
    path = folder / f"forkserver_wsgi-{VERSION}-{tag}.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for name, text in (HELD | more).items():
            archive.writestr(name, text)
    return path


def test_a_wheel_that_is_as_it_should_be_passes(tmp_path: Path) -> None:
    release_check.check_wheel(wheel(tmp_path, {}), VERSION)


@pytest.mark.parametrize(
    ("more", "fault"),
    [
        ({"tests/test_house.py": ""}, "it holds tests/test_house.py"),
        ({"forkserver/tests/test_house.py": ""}, "it holds forkserver/tests/test_house.py"),
        ({"forkserver/server/exchange.c": ""}, "it holds forkserver/server/exchange.c"),
        ({"forkserver/server/_exchange.so": ""}, "its name and the extension disagree"),
        (
            {f"forkserver_wsgi-{VERSION}.dist-info/METADATA": ABOUT + "Requires-Dist: flask\n"},
            "it needs ['setproctitle>=1.3', 'flask']",
        ),
        ({f"forkserver_wsgi-{VERSION}.dist-info/METADATA": ABOUT.replace("1.2", "1.1")}, "its version is 1.1.3"),
    ],
)
def test_a_wheel_that_is_not_is_refused(tmp_path: Path, more: dict[str, str], fault: str) -> None:
    with pytest.raises(release_check.CheckError) as refused:
        release_check.check_wheel(wheel(tmp_path, more), VERSION)
    assert fault in str(refused.value)


def test_a_source_distribution_that_lacks_the_tests_is_refused(tmp_path: Path) -> None:
    (tmp_path / "setup.py").touch()
    with tarfile.open(tmp_path / "forkserver_wsgi-1.2.3.tar.gz", "w:gz") as archive:
        archive.add(tmp_path / "setup.py", "forkserver_wsgi-1.2.3/setup.py")
    with pytest.raises(release_check.CheckError, match=r"lacks tests/conftest\.py, docs/settings\.md"):
        release_check.check_source(tmp_path / "forkserver_wsgi-1.2.3.tar.gz")


def test_the_changelog_must_begin_with_the_version(tmp_path: Path) -> None:
    (tmp_path / "CHANGELOG.md").write_text("# Changes\n\n## 1.2.3, 2030-01-01\n")
    assert release_check.check_changelog(tmp_path, VERSION) == "1.2.3, 2030-01-01"
    with pytest.raises(release_check.CheckError, match=r"begins with '## 1\.2\.3, .*the version is 1\.2\.30"):
        release_check.check_changelog(tmp_path, "1.2.30")


def test_the_debian_package_has_the_version_of_the_others() -> None:
    first = (TOP / "deploy/debian/changelog").read_text().splitlines()[0]
    assert first.startswith(f"forkserver-wsgi ({metadata.version('forkserver-wsgi')}-")


def test_the_bill_of_materials_names_what_is_needed_and_nothing_that_it_does_not_hold(tmp_path: Path) -> None:
    path = wheel(tmp_path, {})
    made = sbom.bill(path)
    root, *others = made["dependencies"]
    (needed,) = root["dependsOn"]
    assert needed.startswith("pkg:pypi/setproctitle@")
    references = {each["bom-ref"] for each in made["components"]}
    assert {each["ref"] for each in others} == references
    assert {ref for each in made["dependencies"] for ref in each["dependsOn"]} <= references
    assert made["metadata"]["component"]["hashes"][0]["alg"] == "SHA-256"
    assert sbom.bill(path) == made, "the same wheel has the same bill"
