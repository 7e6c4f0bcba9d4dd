"""Whether the manifests are what Kubernetes, KubeRay and KEDA take.

    python infra/kubernetes/check.py [folder with their CustomResourceDefinitions]

Kubernetes' own schemas come with the package kubernetes-validate. Those of KubeRay and KEDA are
theirs to give: the files of ray-operator/config/crd/bases and of config/crd/bases in their
repositories. Without them only the pods within a RayService are checked.
"""

import sys
from collections.abc import Iterator
from pathlib import Path

import jsonschema
import kubernetes_validate
import yaml

HERE = Path(__file__).resolve().parent
VERSION = "1.34"


def documents(file: Path) -> Iterator[dict]:
    return (document for document in yaml.safe_load_all(file.read_text()) if document)


def definitions(folder: Path) -> dict[tuple[str, str], dict]:
    """Schemas of the CustomResourceDefinitions in a folder, by apiVersion and kind."""
    found = {}
    for file in folder.glob("*.yaml"):
        for document in documents(file):
            spec = document["spec"]
            for version in spec["versions"]:
                key = f"{spec['group']}/{version['name']}", spec["names"]["kind"]
                found[key] = _strict(version["schema"]["openAPIV3Schema"])
    return found


def _strict(schema: dict) -> dict:
    """The schema, which then refuses properties that it does not name."""
    if "properties" in schema:
        inner = {name: _strict(value) for name, value in schema["properties"].items()}
        closed = not schema.get("x-kubernetes-preserve-unknown-fields")
        schema = schema | {"properties": inner}
        if closed:
            schema.setdefault("additionalProperties", False)
    if isinstance(schema.get("items"), dict):
        schema = schema | {"items": _strict(schema["items"])}
    if schema.pop("x-kubernetes-int-or-string", False):
        schema["type"] = ["integer", "string"]
        schema.pop("anyOf", None)
    return schema


def pods_of_ray(service: dict) -> Iterator[dict]:
    """The pods that KubeRay makes of a RayService, as pods of their own."""
    cluster = service["spec"]["rayClusterConfig"]
    for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"]):
        name = group.get("groupName", "head")
        yield {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, **group["template"]}


def faults(document: dict, custom: dict[tuple[str, str], dict]) -> Iterator[str]:
    """What is wrong with a manifest, or that nobody here knows its kind."""
    kind = document["apiVersion"], document["kind"]
    for pod in pods_of_ray(document) if kind[1] == "RayService" else ():
        yield from faults(pod, {})
    try:
        if kind in custom:
            # As an API server reads it: metadata is Kubernetes' own.
            whole = {key: value for key, value in document.items() if key != "metadata"}
            jsonschema.validate(whole | {"metadata": {}}, custom[kind])
        elif "." in kind[0].split("/")[0] and not kind[0].split("/")[0].endswith(".k8s.io"):
            yield f"unchecked: no definition of {kind[1]} ({kind[0]}) is here"
        else:
            kubernetes_validate.validate(document, VERSION, strict=True)
    except jsonschema.ValidationError as error:
        yield f"wrong: {'.'.join(map(str, error.path))}: {error.message:.300}"


def main(arguments: list[str]) -> int:
    custom = definitions(Path(arguments[0])) if arguments else {}
    wrong = 0
    for file in sorted(HERE.glob("*.yaml")):
        for document in documents(file):
            about = f"{file.name}: {document['kind']} {document['metadata']['name']}"
            found = [*faults(document, custom)] or ["valid"]
            wrong += any(fault.startswith("wrong") for fault in found)
            sys.stdout.writelines(f"{about}: {fault}\n" for fault in found)
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
