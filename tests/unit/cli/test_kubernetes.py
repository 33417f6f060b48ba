"""Manifests in deploy/: against Kubernetes' own schemas, and against what forkserver does at a stop and tells."""

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


def documents(name: str = "kubernetes.yaml") -> list[dict[str, Any]]:
    return list(yaml.safe_load_all((DEPLOY / name).read_text()))


def monitoring() -> tuple[dict[str, Any], dict[str, Any]]:
    monitor, scaler = documents("kubernetes-monitoring.yaml")
    return monitor, scaler


def pod() -> dict[str, Any]:
    spec: dict[str, Any] = documents()[0]["spec"]["template"]["spec"]
    return spec


def container() -> dict[str, Any]:
    (only,) = pod()["containers"]
    return dict(only)


def image() -> Image:
    return Image((DEPLOY / "Dockerfile").read_text(), DEPLOY, Path("/nowhere"), {}, {})


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("document", [*documents(), monitoring()[1]], ids=lambda document: document["kind"])
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
    deployment, service, budget, policy = documents()
    labels = deployment["spec"]["template"]["metadata"]["labels"]
    assert deployment["spec"]["selector"]["matchLabels"] == labels
    assert service["spec"]["selector"] == labels
    assert budget["spec"]["selector"]["matchLabels"] == labels
    assert policy["spec"]["podSelector"]["matchLabels"] == labels
    monitor, scaler = monitoring()
    assert monitor["spec"]["selector"]["matchLabels"] == labels
    target = scaler["spec"]["scaleTargetRef"]
    assert [target[name] for name in ("apiVersion", "kind")] == [deployment[name] for name in ("apiVersion", "kind")]
    assert target["name"] == deployment["metadata"]["name"]
    assert service["spec"]["ports"][0]["targetPort"] == container()["ports"][0]["name"]


def test_what_is_scraped_is_the_admin_process_and_only_monitoring_reaches_it() -> None:
    (endpoint,) = monitoring()[0]["spec"]["podMetricsEndpoints"]
    ports = {port["name"]: port["containerPort"] for port in container()["ports"]}
    assert loading.load(container()["args"], {}).admin_bind == f"0.0.0.0:{ports[endpoint['port']]}"
    policy = documents()[3]["spec"]
    assert policy["policyTypes"] == ["Ingress"]
    let_in = {rule["ports"][0]["port"]: rule.get("from") for rule in policy["ingress"]}
    assert let_in.keys() == ports.keys()
    assert let_in["http"] is None
    assert let_in[endpoint["port"]] == [
        {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}}
    ]


def test_the_autoscaler_goes_by_what_the_adapter_makes() -> None:
    (rule,) = documents("prometheus-adapter.yaml")[0]["rules"]["custom"]
    (metric,) = monitoring()[1]["spec"]["metrics"]
    assert metric["pods"]["metric"]["name"] == rule["name"]["as"]
    assert metric["pods"]["target"]["averageValue"] == "600m"
    assert monitoring()[1]["spec"]["minReplicas"] == documents()[0]["spec"]["replicas"]
