"""The page on a Ray cluster of this machine: drawn by replicas, some of which are killed."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from core.paths import ROOT

if importlib.util.find_spec("ray") is None:
    pytest.skip("ray is not installed", allow_module_level=True)

from benchmarks.ray_cluster import DRAWER, LocalCluster, local_cluster
from benchmarks.ray_serve import APP, CPUS, break_down, until_whole

TWO = {"min_replicas": 2, "max_replicas": 2, "pages": 2, **CPUS}


@pytest.fixture(scope="module")
def cluster() -> Iterator[LocalCluster]:
    """A head that draws nothing, two nodes, two pages, two replicas."""
    with local_cluster(nodes=2) as cluster:
        cluster.serve(APP, loopback=True, **TWO)
        until_whole(cluster)
        yield cluster


@pytest.fixture
def client(cluster) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=cluster.url, timeout=120) as client:
        yield client


def test_the_page_and_all_apis_are_there(client):
    for path in ("/", "/api", "/openapi.json", "/metrics", "/v1/models", "/sdapi/v1/options"):
        assert client.get(path).status_code == 200, path
    body = {"prompt": "a cat", "steps": 2, "n": 1}
    assert client.post("/v1/images/generations", json=body).json()["data"]
    assert client.post("/sdapi/v1/txt2img", json={"prompt": "a cat", "steps": 2}).json()["images"]


def test_what_is_wrong_is_refused_as_by_the_app_alone(client):
    refused = client.post("/api/generate", json={"prompt": "a cat", "steps": 1000})
    assert refused.status_code == 400 and "steps is 1000" in refused.json()["error"]


def test_an_address_keeps_its_page_and_so_does_a_session(client):
    def pages(*sessions: str) -> set[str]:
        headers = [{"X-Session-Id": each} if each else {} for each in sessions]
        return {client.get("/gradio_api/app_id", headers=each).text for each in headers}

    assert len(pages(*[""] * 12)) == 1
    assert len(pages(*["one"] * 12)) == 1
    assert len(pages(*[f"session {n}" for n in range(24)])) == 2


def test_nothing_is_lost_or_answered_twice_when_a_replica_and_a_proxy_are_killed(cluster):
    tally = break_down(cluster, 2)
    assert (tally.lost, tally.twice, tally.wrong) == (0, 0, [])
    assert len(tally.answers) == tally.asked > 20


def test_all_pages_answer_by_all_proxies_while_there_is_no_head(cluster):
    """Ray tells each page of the proxies: a page need not have been asked by one before."""
    cluster.kill_head()
    try:
        url = f"{cluster.url}/gradio_api/app_id"
        headers = ({"X-Session-Id": f"session {n}"} for n in range(24))
        answers = [httpx.get(url, headers=each, timeout=30) for each in headers]
    finally:
        cluster.start_head()
        until_whole(cluster)
    assert {answer.status_code for answer in answers} == {200}
    assert len({answer.text for answer in answers}) == 2


@pytest.mark.slow
def test_nothing_is_lost_or_answered_twice_in_thirty_faults(cluster):
    tally = break_down(cluster, 30)
    assert (tally.lost, tally.twice, tally.wrong) == (0, 0, [])


def test_a_file_of_prompts_is_spread_over_it_and_a_killed_worker_loses_nothing(
    cluster, tiny_model, tmp_path
):
    wishes, output = tmp_path / "wishes.txt", tmp_path / "out"
    wishes.write_text("".join(f"a creature number {n}\n" for n in range(12)))
    first = started_generate(cluster, wishes, output, tiny_model, "--steps", "40")
    cluster.until(lambda: any(output.glob("*.png")) or first.poll() is not None, "a picture")
    cluster.kill("ray::MapWorker", count=1)
    assert first.wait(400) == 0, first.stderr.read()
    drawn = {path: path.stat().st_mtime_ns for path in output.glob("*.png")}
    assert len(drawn) == 12
    second = started_generate(cluster, wishes, output, tiny_model, "--steps", "40")
    said, _ = second.communicate(timeout=400)
    assert "12 already there, 0 to draw" in said
    assert drawn == {path: path.stat().st_mtime_ns for path in output.glob("*.png")}


def started_generate(
    cluster: LocalCluster, wishes: Path, output: Path, model: str, *options: str
) -> subprocess.Popen:
    command = [sys.executable, "generate.py", "--prompts", str(wishes), "--output", str(output)]
    command += ["--model", model, "--ray", cluster.address, "--ray_workers", "2", *options]
    return subprocess.Popen(
        command, cwd=ROOT, env=cluster.environment, text=True, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )  # fmt: skip


def test_more_requests_than_a_page_can_answer_are_told_when_to_return(cluster):
    """The last test of this cluster: it is served anew, by one page with little room."""
    cluster.serve(APP, loopback=True, **TWO | {"pages": 1}, max_requests=1)
    body = {"prompt": "a cat", "steps": 40}
    with ThreadPoolExecutor(8) as pool:
        answers = list(
            pool.map(
                lambda _: httpx.post(f"{cluster.url}/api/generate", json=body, timeout=120),
                range(8),
            )
        )
    refused = [answer for answer in answers if answer.status_code == 503]
    assert refused and all(int(answer.headers["Retry-After"]) > 0 for answer in refused)
    assert {answer.status_code for answer in answers} == {200, 503}
    assert cluster.processes(DRAWER)
