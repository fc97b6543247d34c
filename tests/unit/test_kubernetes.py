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


def test_every_file_is_part_of_the_kustomization():
    kustomization = yaml.safe_load((FOLDER / "kustomization.yaml").read_text())
    assert set(kustomization["resources"]) == {path.name for path in FOLDER.glob("*.yaml")} - {"kustomization.yaml"}
    for image in kustomization["images"]:
        assert any(
            image["name"] in path.read_text() for path in FOLDER.glob("*.yaml") if path.name != "kustomization.yaml"
        )
