"""The parts of infra/ that need no CDK: costs, scripts, and the manifests of Kubernetes."""

import hashlib
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
INFRA = ROOT / "infra"
TRAEFIK_IDLE_SECONDS = 90  # its serversTransport.forwardingTimeouts.idleConnTimeout, by itself
yaml = pytest.importorskip("yaml", reason="pyyaml is not installed")

from infra import costs  # noqa: E402

FAKE_AWS = """#!/bin/bash
# s3 sync [options] FROM TO, where s3://bucket is a folder
from=${@: -2:1} to=${@: -1}
from=${from/s3:\\/\\//$BUCKETS/} to=${to/s3:\\/\\//$BUCKETS/}
mkdir -p "$to" && cp -r "$from/." "$to"
"""


@pytest.fixture
def aws(tmp_path, monkeypatch) -> Path:
    """A stand-in for the AWS CLI on the path; its buckets are folders."""
    tool = tmp_path / "bin/aws"
    tool.parent.mkdir()
    tool.write_text(FAKE_AWS)
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tool.parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("BUCKETS", str(tmp_path / "buckets"))
    return tmp_path


def model_folder(path: Path) -> Path:
    for name, text in {
        "model_index.json": "{}", "unet/weights": "1", "checkpoint-5/weights": "2",
        "log.jsonl": "3",
    }.items():  # fmt: skip
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_text(text)
    return path


def run(script: Path, *arguments: object, **environment: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        ["bash", script, *map(str, arguments)],
        env=os.environ | environment, capture_output=True, text=True, timeout=60,
    )  # fmt: skip


def published(aws: Path) -> str:
    run_ = run(INFRA / "publish_model.sh", model_folder(aws / "my model"), "bucket")
    assert run_.returncode == 0, run_.stderr
    return run_.stdout.strip()


def fetched(aws: Path, name: str, model: str) -> subprocess.CompletedProcess:
    return run(
        INFRA / "sidecars/model_sync/fetch_model.sh", MODEL_FOLDER=str(aws / "model"),
        MODEL_URL=f"s3://bucket/models/{name}", MODEL_SHA256=model,
    )  # fmt: skip


def test_a_model_is_published_under_its_checksum_without_what_training_left(aws):
    name = published(aws)
    folder = aws / "buckets/bucket/models" / name
    sums = (folder / "SHA256SUMS").read_bytes()
    assert hashlib.sha256(sums).hexdigest() == name
    assert {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()} == {
        "SHA256SUMS", "model_index.json", "unet/weights",
    }  # fmt: skip
    assert published(aws) == name


def test_what_is_no_model_is_not_published(aws):
    (aws / "empty").mkdir()
    refused = run(INFRA / "publish_model.sh", aws / "empty", "bucket")
    assert refused.returncode == 2 and "Name the folder of a trained model" in refused.stderr


def test_a_model_arrives_as_it_was_published(aws):
    name = published(aws)
    assert fetched(aws, name, name).returncode == 0
    assert (aws / "model/unet/weights").read_text() == "1"


@pytest.mark.parametrize("file", ["unet/weights", "SHA256SUMS"])
def test_a_task_does_not_start_with_a_file_that_somebody_changed(aws, file):
    name = published(aws)
    changed = aws / "buckets/bucket/models" / name / file
    changed.write_text(changed.read_text().replace("1", "4"))
    assert fetched(aws, name, name).returncode == 1


def test_a_task_does_not_start_with_another_model_than_it_was_deployed_for(aws):
    refused = fetched(aws, published(aws), "0" * 64)
    assert refused.returncode == 1 and "not that of the model" in refused.stderr


def test_readers_see_the_costs_that_the_script_computes():
    assert costs.table() in (INFRA / "README.md").read_text(encoding="utf-8")


def test_what_the_page_on_production_says_of_costs_is_what_the_script_computes():
    page = (ROOT / "docs/production.md").read_text(encoding="utf-8")
    for size in costs.SIZES:
        assert f"| {size.name} | {sum(costs.costs(size).values()):,.0f} |" in page


def test_costs_grow_with_what_they_are_for():
    small, _, large = (costs.costs(size) for size in costs.SIZES)
    assert all(small[what] <= large[what] for what in small)
    one = costs.SIZES[0]
    assert small["GPU machines"] == one.gpus * costs.GPU_HOUR * 730
    office = costs.GPU_HOUR * 8 * 22
    assert f"costs {office:.0f} instead of {small['GPU machines']:.0f}" in (
        INFRA / "README.md"
    ).read_text(encoding="utf-8")


# Kubernetes


def manifests(name: str) -> dict[str, dict]:
    text = (INFRA / "kubernetes" / name).read_text()
    return {document["kind"]: document for document in yaml.safe_load_all(text)}


def pod_specs() -> list[dict]:
    app = manifests("app.yaml")["Deployment"]["spec"]["template"]["spec"]
    cluster = manifests("ray_service.yaml")["RayService"]["spec"]["rayClusterConfig"]
    groups = [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]
    return [app, *(group["template"]["spec"] for group in groups)]


def test_pods_have_no_rights_beyond_drawing():
    for spec in pod_specs():
        assert spec["securityContext"]["runAsNonRoot"] is True
        for container in spec["containers"] + spec.get("initContainers", []):
            rights = container["securityContext"]
            assert rights["allowPrivilegeEscalation"] is False
            assert rights["capabilities"] == {"drop": ["ALL"]}
            assert container["resources"]["limits"]["memory"]


def test_no_pod_is_reached_or_reaches_out_unless_a_policy_says_so():
    closed = manifests("base.yaml")["NetworkPolicy"]["spec"]
    assert closed["podSelector"] == {} and "ingress" not in closed
    assert set(closed["policyTypes"]) == {"Ingress", "Egress"}
    for rule in manifests("app.yaml")["NetworkPolicy"]["spec"]["ingress"]:
        assert rule["from"] and rule["ports"]


def test_both_variants_are_reached_by_tls_alone_with_sessions_that_stick():
    for name, service in (("app.yaml", "Service"), ("ray_service.yaml", "RayService")):
        kinds = manifests(name)
        assert kinds["Ingress"]["spec"]["tls"]
        about = kinds[service].get("spec", {}).get("serveService") or kinds[service]
        sticky = "traefik.ingress.kubernetes.io/service.sticky.cookie"
        assert about["metadata"]["annotations"][sticky] == "true"


def test_traefik_closes_idle_connections_before_the_app_or_ray_does():
    (container,) = manifests("app.yaml")["Deployment"]["spec"]["template"]["spec"]["containers"]
    (kept,) = re.findall(r"--keep_alive=(\d+)", " ".join(container["args"]))
    serve = yaml.safe_load(manifests("ray_service.yaml")["RayService"]["spec"]["serveConfigV2"])
    for seconds in (int(kept), serve["http_options"]["keep_alive_timeout_s"]):
        assert seconds > TRAEFIK_IDLE_SECONDS


def test_the_queue_that_keda_asks_for_is_one_that_the_app_reports():
    from webapp.rest_api import METRICS

    trigger = manifests("app.yaml")["ScaledObject"]["spec"]["triggers"][0]["metadata"]
    assert f"# TYPE {trigger['valueLocation']} gauge" in METRICS
    collector = (INFRA / "sidecars/collector/collector.yaml").read_text()
    for name in re.findall(r'"\^(\w+)\$\$"', collector):
        assert f"# TYPE {name} " in METRICS


def test_a_refusal_is_kept_no_longer_than_it_asks_to_wait():
    from infra.config import Config
    from webapp.api_drawings import RETRY_SECONDS

    assert Config().api_cache_seconds <= RETRY_SECONDS


def test_ray_is_given_settings_that_its_application_has():
    if not (ROOT / "deploy/ray_serve.py").exists():
        pytest.skip("deploy/ray_serve.py is not there: this installation has no Ray Serve")
    from deploy.cluster.page import Cluster

    service = manifests("ray_service.yaml")["RayService"]["spec"]
    (application,) = yaml.safe_load(service["serveConfigV2"])["applications"]
    assert application["import_path"] == "deploy.ray_serve:app"
    cluster = Cluster(**application["args"])
    (workers,) = service["rayClusterConfig"]["workerGroupSpecs"]
    assert cluster.max_replicas == workers["maxReplicas"]


def test_the_image_has_the_ray_that_kuberay_is_told_of():
    installed = re.search(r"==(\d+\.\d+)\.\*", (INFRA / "kubernetes/ray.Dockerfile").read_text())[1]
    cluster = manifests("ray_service.yaml")["RayService"]["spec"]["rayClusterConfig"]
    assert cluster["rayVersion"].startswith(f"{installed}.")


def test_the_scripts_are_sound():
    if not (shellcheck := shutil.which("shellcheck")):
        pytest.skip("shellcheck is not installed")
    scripts = [str(path) for path in INFRA.rglob("*.sh")]
    assert subprocess.run([shellcheck, *scripts], timeout=60).returncode == 0
