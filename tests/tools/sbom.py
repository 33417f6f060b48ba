"""What a wheel is made of and needs, as a CycloneDX bill of materials.

python tests/tools/sbom.py WHEEL

To be run by an interpreter in whose environment the wheel is installed, with nothing but what it needs: of that
environment come the versions and licences. Nothing but the standard library is used. Writes JSON to standard output;
the same wheel in the same environment gives the same text.

Source: https://cyclonedx.org/docs/1.6/json/; https://github.com/package-url/purl-spec; PEP 639 (licences).
"""

from __future__ import annotations

import hashlib
import json
import re
import sys
import uuid
from importlib import metadata
from pathlib import Path
from typing import Any

INSTALLERS = {"pip", "setuptools", "wheel"}  # of the environment, and no part of it
MOST_CHARACTERS = 60  # of a licence's name; some have the whole text there


def normal(name: str) -> str:
    """The name of a distribution as all write it (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


def reference(found: metadata.Distribution) -> str:
    """The package URL, which names the component, too."""
    return f"pkg:pypi/{normal(found.metadata['Name'])}@{found.version}"


def component(found: metadata.Distribution) -> dict[str, Any]:
    """An installed distribution as a component."""
    made = {"type": "library", "bom-ref": reference(found), "name": normal(found.metadata["Name"])}
    made |= {"version": found.version, "purl": reference(found)}
    if said := found.metadata.get("License-Expression"):
        return {**made, "licenses": [{"expression": said}]}
    named = found.metadata.get("License") or ""
    return {**made, "licenses": [{"license": {"name": named}}]} if 0 < len(named) < MOST_CHARACTERS else made


def needed(found: metadata.Distribution) -> list[str]:
    """Names of what ``found`` needs in any case, without what is extra."""
    lines = [line for line in found.requires or [] if "extra ==" not in line]
    return sorted(normal(re.split(r"[ <>=!~;\[(]", line)[0]) for line in lines)


def bill(wheel: Path) -> dict[str, Any]:
    """The bill of ``wheel``."""
    installed = {normal(each.metadata["Name"]): each for each in metadata.distributions()}
    root = installed.pop(normal(wheel.name.partition("-")[0]))
    libraries = {name: each for name, each in sorted(installed.items()) if name not in INSTALLERS}
    digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
    everything = [root, *libraries.values()]
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_URL, f'{wheel.name}#{digest}')}",
        "version": 1,
        "metadata": {"component": {**component(root), "hashes": [{"alg": "SHA-256", "content": digest}]}},
        "components": [component(each) for each in libraries.values()],
        "dependencies": [
            {
                "ref": reference(each),
                "dependsOn": [reference(libraries[name]) for name in needed(each) if name in libraries],
            }
            for each in everything
        ],
    }


if __name__ == "__main__":
    print(json.dumps(bill(Path(sys.argv[1])), indent=2))
