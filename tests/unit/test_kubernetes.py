"""Static checks of the Kubernetes manifests: core resources fit the Kubernetes schemas, and references resolve."""

from pathlib import Path

import pytest
import yaml

FOLDER = Path(__file__).parents[2] / "deploy" / "kubernetes"
KUBERNETES = "1.31"
DOCUMENTS = [
    pytest.param(document, id=f"{path.name}: {document['kind']}")
    for path in sorted(FOLDER.glob("*.yaml"))
    for document in yaml.safe_load_all(path.read_text())
]
# The schemas of custom resources come with their operators.
FOREIGN = {"RayCluster", "Kustomization"}


@pytest.mark.parametrize("document", [each for each in DOCUMENTS if each.values[0]["kind"] not in FOREIGN])
def test_a_core_resource_fits_its_schema(document):
    kubernetes_validate = pytest.importorskip("kubernetes_validate")
    kubernetes_validate.validate(document, KUBERNETES, strict=True)


def test_the_pods_of_the_ray_cluster_fit_the_schema_of_pods():
    kubernetes_validate = pytest.importorskip("kubernetes_validate")
    (cluster,) = [each.values[0] for each in DOCUMENTS if each.values[0]["kind"] == "RayCluster"]
    groups = [cluster["spec"]["headGroupSpec"], *cluster["spec"]["workerGroupSpecs"]]
    for group in groups:
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "ray"}, **group["template"]}
        kubernetes_validate.validate(pod, KUBERNETES, strict=True)
        assert all(isinstance(value, str) for value in group["rayStartParams"].values())


def pods():
    """The template of each pod, keyed by the name of its group."""
    for each in DOCUMENTS:
        document = each.values[0]
        if document["kind"] == "Deployment":
            yield document["metadata"]["name"], document["spec"]["template"]
        elif document["kind"] == "RayCluster":
            groups = [document["spec"]["headGroupSpec"], *document["spec"]["workerGroupSpecs"]]
            yield from ((group.get("groupName", "head"), group["template"]) for group in groups)


def test_every_pod_has_limits():
    for name, pod in pods():
        for container in pod["spec"]["containers"]:
            assert set(container["resources"]["limits"]) >= {"cpu", "memory"}, name
        for volume in pod["spec"]["volumes"]:
            assert "emptyDir" not in volume or volume["emptyDir"]["sizeLimit"], name


def test_only_connections_that_a_policy_allows_are_accepted():
    policies = [each.values[0] for each in DOCUMENTS if each.values[0]["kind"] == "NetworkPolicy"]
    assert {"podSelector": {}, "policyTypes": ["Ingress"]} in [policy["spec"] for policy in policies]
    server = dict(pods())["gradwire-server"]["metadata"]["labels"]
    # KubeRay adds these.
    ray = {"ray.io/cluster": "gradwire", "ray.io/node-type": "worker"}
    for policy in policies:
        selected = policy["spec"]["podSelector"].get("matchLabels", {})
        assert selected.items() <= server.items() or selected.items() <= ray.items(), policy["metadata"]["name"]
    open_to_clients = [
        rule
        for policy in policies
        for rule in policy["spec"].get("ingress", [])
        if any("namespaceSelector" in source for source in rule["from"])
    ]
    assert [rule["ports"] for rule in open_to_clients] == [[{"port": "grpc"}, {"port": "http"}]]


def test_every_file_is_part_of_the_kustomization():
    kustomization = yaml.safe_load((FOLDER / "kustomization.yaml").read_text())
    assert set(kustomization["resources"]) == {path.name for path in FOLDER.glob("*.yaml")} - {"kustomization.yaml"}
    for image in kustomization["images"]:
        assert any(
            image["name"] in path.read_text() for path in FOLDER.glob("*.yaml") if path.name != "kustomization.yaml"
        )


def test_the_liveness_probe_does_not_need_the_port():
    """Strangers can occupy the connections of the port, and must not be able to restart the server in this way."""
    (container,) = dict(pods())["gradwire-server"]["spec"]["containers"]
    (socket,) = [each["value"] for each in container["env"] if each["name"] == "GRADWIRE_SOCKET"]
    assert container["livenessProbe"]["exec"]["command"][-1] == f"unix:{socket}"
    assert container["livenessProbe"]["timeoutSeconds"] > 1
