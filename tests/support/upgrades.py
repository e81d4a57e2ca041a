"""Upgrades of the lab's hosts while clients write, read and fetch pages."""

import json
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise

from support.lab import FIGURES, Cluster, Host
from support.load import Load, get_page, open_api, under_load

NODE_PORT = 30080
WEB = """
apiVersion: apps/v1
kind: Deployment
metadata: {{name: web}}
spec:
  replicas: 2
  selector: {{matchLabels: {{app: web}}}}
  template:
    metadata: {{labels: {{app: web}}}}
    spec:
      topologySpreadConstraints:
      - {{maxSkew: 1, topologyKey: kubernetes.io/hostname, whenUnsatisfiable: ScheduleAnyway,
          labelSelector: {{matchLabels: {{app: web}}}}}}
      containers:
      - name: nginx
        image: nginx:1.22
        imagePullPolicy: Never
        readinessProbe: {{httpGet: {{path: /, port: 80}}, periodSeconds: 1}}
        # A deleted pod still answers while the nodes remove its endpoints.
        lifecycle: {{preStop: {{exec: {{command: [sleep, "8"]}}}}}}
---
apiVersion: policy/{budget}
kind: PodDisruptionBudget
metadata: {{name: web}}
spec: {{minAvailable: 1, selector: {{matchLabels: {{app: web}}}}}}
---
apiVersion: v1
kind: Service
metadata: {{name: web}}
spec: {{type: NodePort, selector: {{app: web}}, ports: [{{port: 80, nodePort: 30080}}]}}
"""


@dataclass(frozen=True)
class Line:
    """A line that install.sh printed, and when."""

    at: float
    text: str


def install(host: Host, command: str) -> list[Line]:
    """Run a command on the host; the last line is its exit code."""
    done = host.run(
        f"({command}; echo exit $?) 2>&1 |"
        ' while read -r line; do echo "$(date +%s.%N) $line"; done',
        timeout=1200,
    )
    pairs = (line.partition(" ") for line in done.stdout.splitlines())
    return [Line(float(at), text) for at, _, text in pairs]


def join_text(lines: list[Line]) -> str:
    return "\n".join(line.text for line in lines)


def find_time(lines: list[Line], words: str) -> float:
    """When these words were first printed."""
    return next(line.at for line in lines if words in line.text)


def deploy_web(cluster: Cluster, budget: str) -> None:
    """Run two web servers behind a NodePort; `budget` is the version of the API of their budget."""
    cluster.masters[0].run(f"cat >/root/web.yaml <<'E'\n{WEB.format(budget=budget)}\nE")
    cluster.kubectl("apply -f /root/web.yaml")
    cluster.kubectl("rollout status deployment/web --timeout=90s")


def upgrade_side_by_side(cluster: Cluster, old: str, new: str) -> None:
    """Start install.sh of every host's unpacked bundle at once; check order, load and what was written."""
    api = Load(open_api(cluster).write_and_read)
    pages = {worker.name: Load(get_page(worker.address, NODE_PORT)) for worker in cluster.workers}
    with under_load(api, *pages.values()):
        time.sleep(5)
        start = time.time()
        with ThreadPoolExecutor(len(cluster.hosts)) as pool:
            lines = pool.map(
                lambda host: install(host, f"/root/lab-{host.name}/install.sh --wait 15m"),
                cluster.hosts.values(),
            )
            said = dict(zip(cluster.hosts, lines, strict=True))
        taken = time.time() - start
        time.sleep(5)
    for name, text in said.items():
        assert text[-1].text == "exit 0", f"{name}:\n{join_text(text)}"
    check_order(cluster, said)
    assert versions(cluster) == {worker.name: f"v{new}" for worker in cluster.workers}
    check_load(api, pages, said)
    FIGURES.append(
        f"five hosts, {old} to {new} side by side: {taken:.0f} s, {api.done} writes and reads"
    )
    present = json.loads(cluster.kubectl("get configmaps -o json"))["items"]
    found = {item["metadata"]["name"]: item.get("data") for item in present}
    for number in range(api.done):
        assert found.get(f"load-{number}") == {"number": str(number)}


def versions(cluster: Cluster) -> dict[str, str]:
    nodes = json.loads(cluster.kubectl("get nodes -o json"))["items"]
    return {n["metadata"]["name"]: n["status"]["nodeInfo"]["kubeletVersion"] for n in nodes}


def check_order(cluster: Cluster, said: dict[str, list[Line]]) -> None:
    """Check that control planes came one after another, then workers one after another."""
    spans = {
        name: (
            find_time(
                lines, "is cordoned" if name.startswith("worker") else "waiting until all units"
            ),
            lines[-1].at,
        )
        for name, lines in said.items()
    }
    masters = sorted(spans[host.name] for host in cluster.masters)
    workers = sorted(spans[host.name] for host in cluster.workers)
    for first, second in (*pairwise(masters), *pairwise(workers)):
        assert first[1] <= second[0] + 1, spans
    # the last API server has the new minor before the first worker is drained
    assert masters[-1][0] < workers[0][0], spans


def check_load(api: Load, pages: dict[str, Load], said: dict[str, list[Line]]) -> None:
    """Check outages: less than 2 s of the API per control plane; of pages only on a drained node."""
    FIGURES.append(
        f"API under upgrade: {len(api.failures)} of {api.done} failed, outages of "
        f"{', '.join(f'{length:.1f} s' for _, length in api.outages) or 'none'}"
    )
    lengths = {name: 0.0 for name in said if name.startswith("master")}
    for at, length in api.outages:
        name = max(
            lengths,
            key=lambda n: (
                find_time(said[n], "waiting until all units") - 5 <= at,
                find_time(said[n], "waiting until all units"),
            ),
        )
        lengths[name] += length
    assert all(length < 2 for length in lengths.values()), (lengths, api.failures)
    for name, page in pages.items():
        begin, end = find_time(said[name], "is cordoned"), said[name][-1].at
        others = [failure for failure in page.failures if not begin <= failure[0] <= end]
        FIGURES.append(
            f"NodePort of {name}: {len(page.failures)} of {page.done} failed, {len(others)} outside of its own drain"
        )
        assert others == []
