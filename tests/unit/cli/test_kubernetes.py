"""deploy/kubernetes.yaml: against Kubernetes' own schemas, and against what forkserver does at a stop."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from forkserver.config import loading, settings
from harness.image import Image

DEPLOY = Path(__file__).parents[3] / "deploy"
VERSIONS = ("1.25", "1.37")  # the oldest that the file names, and the newest that the schemas are there of

kubernetes_validate = pytest.importorskip("kubernetes_validate", reason="kubernetes-validate is not installed")
yaml = pytest.importorskip("yaml")


def documents() -> list[dict[str, Any]]:
    return list(yaml.safe_load_all((DEPLOY / "kubernetes.yaml").read_text()))


def pod() -> dict[str, Any]:
    spec: dict[str, Any] = documents()[0]["spec"]["template"]["spec"]
    return spec


def container() -> dict[str, Any]:
    (only,) = pod()["containers"]
    return dict(only)


def image() -> Image:
    return Image((DEPLOY / "Dockerfile").read_text(), DEPLOY, Path("/nowhere"), {}, {})


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("document", documents(), ids=lambda document: document["kind"])
def test_it_is_what_the_schema_says(document: dict[str, Any], version: str) -> None:
    """Strict: a misspelt field, which the API server would pass over, is an error."""
    assert kubernetes_validate.validate(document, version, strict=True)


def test_the_schema_is_one_that_can_fail() -> None:
    wrong = documents()[0]
    wrong["spec"]["template"]["spec"]["terminationGracePeriod"] = 60
    with pytest.raises(kubernetes_validate.ValidationError, match="terminationGracePeriod"):
        kubernetes_validate.validate(wrong, VERSIONS[-1], strict=True)


def test_its_arguments_are_settings() -> None:
    loaded = loading.load(container()["args"], {})
    assert loaded.app == "myapp:app"
    assert loaded.bind == [f"0.0.0.0:{container()['ports'][0]['containerPort']}"]


def test_the_grace_period_is_longer_than_the_whole_stop() -> None:
    """The kubelet kills at its end, preStop included; what was still held is lost."""
    loaded = loading.load(container()["args"], {})
    (sleep, seconds) = container()["lifecycle"]["preStop"]["exec"]["command"]
    assert sleep == "sleep"
    assert pod()["terminationGracePeriodSeconds"] >= int(seconds) + loaded.drain_delay + loaded.graceful_timeout + 10


def test_the_startup_probe_waits_as_long_as_the_boot_timeout() -> None:
    probe = container()["startupProbe"]
    assert probe["periodSeconds"] * probe["failureThreshold"] >= settings.defaults().boot_timeout


def test_account_and_places_are_those_of_the_image() -> None:
    """With a read-only root everything that is written to must be a volume."""
    last = image().last
    ids = pod()["securityContext"]
    assert last.user == f"{ids['runAsUser']}:{ids['runAsGroup']}"
    mounted = {mount["mountPath"] for mount in container()["volumeMounts"]}
    assert str(Path(last.environ["FORKSERVER_CONTROL_SOCKET"]).parent) in mounted
    assert settings.defaults().spool_dir in mounted
    assert {volume["name"] for volume in pod()["volumes"]} == {each["name"] for each in container()["volumeMounts"]}


def test_every_selector_finds_the_pods() -> None:
    deployment, service, budget = documents()
    labels = deployment["spec"]["template"]["metadata"]["labels"]
    assert deployment["spec"]["selector"]["matchLabels"] == labels
    assert service["spec"]["selector"] == labels
    assert budget["spec"]["selector"]["matchLabels"] == labels
    assert service["spec"]["ports"][0]["targetPort"] == container()["ports"][0]["name"]
