"""What does a Ray cluster cost and give, and does it lose a request when parts of it are killed?

    python -m benchmarks.ray_serve
    python -m benchmarks.ray_serve --only faults --faults 30

On one machine, by a generator that sleeps 50 ms a step and needs no processor: how much longer a
request takes than by the app alone; pictures a second by 1, 2 and 4 replicas; how soon a replica is
free when its client leaves. Then a replica, a proxy, a page and the head are killed in turn (kill
-9) under load: every request is to be answered once, with its own picture. `--only bundled`: the
bundled model by 1 and 2 replicas of one processor each. Results: a table, with ratios; ends with 1
and a sentence for each thing that is not met.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from itertools import cycle, islice
from statistics import median

import httpx

from benchmarks.generation import processor
from benchmarks.load import running_server
from benchmarks.ray_clients import Clients, Tally
from benchmarks.ray_cluster import DRAWER, PAGE, PROXY, LocalCluster, local_cluster
from core.errors import UserError, exit_with_sentence

APP, BUNDLED = "benchmarks.ray_app:sleeping", "deploy.ray_serve:app"
CPUS = {"num_cpus": 0.1, "page_cpus": 0.1}  # of replicas that sleep, on however small a machine
LIMITS = {"speed-up by two replicas": 1.8}
KINDS = ("replica", "proxy", "page", "head")
TITLES = {"replica": DRAWER, "proxy": PROXY, "page": PAGE}
WHOLE = {DRAWER: 2, PROXY: 3, PAGE: 2, "ray::ServeController": 1}  # processes, nothing killed
STEPS, CLIENTS = 10, 6
PAUSE_SECONDS, ON_SECONDS = 2.0, 1.0  # of load, before a fault and after it
SEVERAL = 6  # clients for each replica, whose queue is never empty


def main() -> None:
    options = parse()
    parts = {"overhead": overhead, "throughput": throughput, "cancel": cancel, "faults": faults,
             "bundled": bundled}  # fmt: skip
    chosen = [options.only] if options.only else [name for name in parts if name != "bundled"]
    print(f"\n{processor()}\n")
    unmet: list[str] = []
    for name in chosen:
        unmet += parts[name](options)
    if unmet:
        raise UserError(" ".join(unmet))


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    add = parser.add_argument
    add("--only", choices=("overhead", "throughput", "cancel", "faults", "bundled"))
    add("--faults", type=int, default=30, help="how often something is killed (%(default)s)")
    add("--requests", type=int, default=40, help="of each measurement (%(default)s)")
    return parser.parse_args(arguments)


def row(what: str, *figures: object) -> None:
    print(f"{what:44}" + "".join(f"{figure!s:>14}" for figure in figures), flush=True)


def overhead(options: argparse.Namespace) -> list[str]:
    """Milliseconds of a request of one step, by the app alone and by a cluster."""
    with running_server(0.05, 2**30) as alone:
        by_app = latency(alone.url, options.requests)
    with local_cluster() as cluster:
        cluster.serve(APP, loopback=True, **CPUS)
        by_cluster = latency(cluster.url, options.requests)
    row("milliseconds, median", "app alone", "cluster", "more")
    names = ("/healthz", "a picture of 1 step")
    for what, before, after in zip(names, by_app, by_cluster, strict=True):
        row(what, f"{before:.1f}", f"{after:.1f}", f"{after - before:.1f}")
    return []


def latency(url: str, count: int) -> list[float]:
    with httpx.Client(base_url=url, timeout=60) as client:
        body = {"prompt": "a cat", "steps": 1, "seed": 1}
        calls = (lambda: client.get("/healthz"), lambda: client.post("/api/generate", json=body))
        return [1000 * median(seconds(call) for _ in range(count)) for call in calls]


def seconds(call) -> float:
    began = time.perf_counter()
    assert call().status_code == 200
    return time.perf_counter() - began


def throughput(options: argparse.Namespace) -> list[str]:
    """Pictures a second by 1, 2 and 4 replicas."""
    rates = {}
    row("replicas of 50 ms a step, 20 steps", "pictures/s", "per replica", "times one")
    for replicas in (1, 2, 4):
        with local_cluster() as cluster:
            settings = {"min_replicas": replicas, "max_replicas": replicas, **CPUS}
            cluster.serve(APP, loopback=True, **settings)
            rates[replicas] = rate(cluster.url, min(SEVERAL, 2 + replicas), options.requests, 20)
        times = rates[replicas] / rates[1]
        row(f"{replicas}", f"{rates[replicas]:.3f}", f"{rates[replicas] / replicas:.3f}",
            f"{times:.2f}")  # fmt: skip
    return speed_up(rates)


def speed_up(rates: dict[int, float]) -> list[str]:
    times, least = rates[2] / rates[1], LIMITS["speed-up by two replicas"]
    return [] if times >= least else [f"Two replicas draw {times:.2f} times as much, not {least}."]


def rate(url: str, clients: int, count: int, steps: int, painted: bool = True) -> float:
    """Pictures a second, once all are drawing."""
    with Clients(url, clients, steps, painted) as running:
        wait_for(running.tally, clients)
        began, before = time.monotonic(), len(running.tally.answers)
        wait_for(running.tally, before + count)
        return (len(running.tally.answers) - before) / (time.monotonic() - began)


def wait_for(tally: Tally, answers: int) -> None:
    end = time.monotonic() + 600
    while len(tally.answers) < answers:
        if time.monotonic() > end:
            raise UserError(f"{len(tally.answers)} of {answers} pictures after 10 minutes.")
        time.sleep(0.02)


def cancel(options: argparse.Namespace) -> list[str]:
    """How soon the one replica draws for somebody else when a client hangs up."""
    waited, short = [], {"prompt": "a dog", "steps": 1, "seed": 1}
    with local_cluster() as cluster, httpx.Client(base_url=cluster.url, timeout=60) as client:
        cluster.serve(APP, loopback=True, **CPUS)
        usual = median(latency(cluster.url, 5)[1] for _ in range(3))
        for number in range(10):
            long = {"prompt": "a cat", "steps": 150, "seed": number}
            try:
                httpx.post(f"{cluster.url}/api/generate", json=long, timeout=1)
            except httpx.ReadTimeout:
                waited.append(1000 * seconds(lambda: client.post("/api/generate", json=short)))
    row("milliseconds until the replica is free", "median", "longest", "a step")
    row("after its client has left a drawing of 7.5 s", f"{median(waited) - usual:.0f}",
        f"{max(waited) - usual:.0f}", "50")  # fmt: skip
    return []


def faults(options: argparse.Namespace) -> list[str]:
    """Kill things under load; what the clients saw."""
    with local_cluster(nodes=2) as cluster:
        replicas = {"min_replicas": 2, "max_replicas": 2, "pages": 2, **CPUS}
        cluster.serve(APP, loopback=True, **replicas)
        until_whole(cluster)
        row("killed under load", "times", "longest s", "asked again")
        tally = break_down(cluster, options.faults)
    print()
    row("requests", "answered", "lost", "twice")
    row(f"{tally.asked}", len(tally.answers), tally.lost, tally.twice)
    unmet = [*tally.wrong]
    if tally.lost or tally.twice:
        unmet.append(f"{tally.lost} requests were lost, {tally.twice} answered twice.")
    return unmet


def break_down(cluster: LocalCluster, count: int) -> Tally:
    """So many faults under load, one kind after another; the cluster is whole before each."""
    longest = dict.fromkeys(KINDS, 0.0)
    again, times = dict.fromkeys(KINDS, 0), dict.fromkeys(KINDS, 0)
    with Clients(cluster.url, CLIENTS, STEPS) as clients:
        tally = clients.tally
        for number, kind in enumerate(islice(cycle(KINDS), count)):
            wait_for(tally, len(tally.answers) + CLIENTS)
            time.sleep(PAUSE_SECONDS)
            asked, drawn = sum(tally.again.values()), len(tally.seconds)
            if kind == "head":
                cluster.kill_head()
                time.sleep(ON_SECONDS)
                cluster.start_head()
            else:
                nodes = [1, 2] if number % 8 < len(KINDS) else [2, 1]
                # It may be that all of them are on one of the nodes.
                any(cluster.kill(TITLES[kind], node, count=1) for node in nodes)
            wait_for(tally, len(tally.answers) + 2 * CLIENTS)
            until_whole(cluster)
            longest[kind] = max(longest[kind], *tally.seconds[drawn:])
            again[kind] += sum(tally.again.values()) - asked
            times[kind] += 1
    for kind in KINDS:
        row(kind, times[kind], f"{longest[kind]:.1f}", again[kind])
    return tally


def until_whole(cluster: LocalCluster) -> None:
    def is_whole() -> bool:
        return all(len(cluster.processes(title)) >= count for title, count in WHOLE.items())

    cluster.until(is_whole, "everything that was killed is there again")
    cluster.until(cluster.is_ready, "the page is ready")


def bundled(options: argparse.Namespace) -> list[str]:
    """Pictures a second of the bundled model, by replicas of one processor each."""
    rates = {}
    row("bundled model, 20 steps", "pictures/s", "per replica", "times one")
    for replicas in (1, 2):
        with local_cluster() as cluster:
            settings = {"min_replicas": replicas, "max_replicas": replicas, "page_cpus": 0.1}
            cluster.serve(BUNDLED, loopback=True, **settings)
            rates[replicas] = rate(cluster.url, 2 * replicas, options.requests, 20, painted=False)
        row(f"{replicas}", f"{rates[replicas]:.3f}", f"{rates[replicas] / replicas:.3f}",
            f"{rates[replicas] / rates[1]:.2f}")  # fmt: skip
    return []


if __name__ == "__main__":
    exit_with_sentence(main)
