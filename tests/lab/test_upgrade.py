"""Five hosts are upgraded to the next minor under load, then both workers and a control plane roll back.

The next minor consists of the same programs with another version in them (stamped.py): the test
covers bundler's steps, and no change of Kubernetes itself.
"""

import json
import shutil
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import pytest
from support.lab import FIGURES, Cluster, Host, Kubectl, build, wait_for
from support.load import Load, get_page, open_api, under_load
from support.stamped import OLD, stamp, use

pytestmark = pytest.mark.long

NEW = "1.21.2"
NODE_PORT = 30080
WEB = f"""
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
apiVersion: policy/v1beta1
kind: PodDisruptionBudget
metadata: {{name: web}}
spec: {{minAvailable: 1, selector: {{matchLabels: {{app: web}}}}}}
---
apiVersion: v1
kind: Service
metadata: {{name: web}}
spec: {{type: NodePort, selector: {{app: web}}, ports: [{{port: 80, nodePort: {NODE_PORT}}}]}}
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


@pytest.fixture(scope="module")
def upgraded(running: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The dist directory of the next minor; the web server runs."""
    mirror = stamp(tmp_path_factory.mktemp("stamped"), NEW)
    description = running.directory / "examples" / "lab.yaml"
    text = description.read_text()
    description.write_text(text.replace(f"version: {OLD}", f"version: {NEW}"))
    dist = running.directory / "dist-new"
    build(
        description, dist, cache=running.directory / "cache-new",
        arguments=use(mirror),
    )  # fmt: skip
    description.write_text(text)
    running.masters[0].run(f"cat >/root/web.yaml <<'E'\n{WEB}\nE")
    running.kubectl("apply -f /root/web.yaml")
    running.kubectl("rollout status deployment/web --timeout=90s")
    yield dist
    shutil.rmtree(mirror)


def versions(cluster: Cluster) -> dict[str, str]:
    nodes = json.loads(cluster.kubectl("get nodes -o json"))["items"]
    return {n["metadata"]["name"]: n["status"]["nodeInfo"]["kubeletVersion"] for n in nodes}


def test_all_hosts_upgrade_side_by_side_in_rollout_order(running: Cluster, upgraded: Path) -> None:
    for host in running.hosts.values():
        host.unpack(upgraded / f"lab-{host.name}.tar.gz")
    plan = running.workers[0].run("/root/lab-worker1/install.sh --plan", check=False).stdout
    assert "install control planes before workers" in plan
    assert "drain " in plan
    assert "restart  kubelet.service" in plan
    api = Load(open_api(running).write_and_read)
    pages = {worker.name: Load(get_page(worker.address, NODE_PORT)) for worker in running.workers}
    with under_load(api, *pages.values()):
        time.sleep(5)
        start = time.time()
        with ThreadPoolExecutor(5) as pool:
            said = dict(
                zip(
                    running.hosts,
                    pool.map(
                        lambda host: install(host, f"/root/lab-{host.name}/install.sh --wait 15m"),
                        running.hosts.values(),
                    ),
                    strict=True,
                )
            )
        taken = time.time() - start
        time.sleep(5)
    for name, lines in said.items():
        assert lines[-1].text == "exit 0", f"{name}:\n{join_text(lines)}"
    check_order(running, said)
    assert versions(running) == {"worker1": f"v{NEW}", "worker2": f"v{NEW}"}
    check_load(api, pages, said)
    FIGURES.append(
        f"five hosts, {OLD} to {NEW} side by side: {taken:.0f} s, {api.done} writes and reads"
    )
    present = json.loads(running.kubectl("get configmaps -o json"))["items"]
    found = {item["metadata"]["name"]: item.get("data") for item in present}
    for number in range(api.done):
        assert found.get(f"load-{number}") == {"number": str(number)}
    verified = running.verify()
    assert verified.returncode == 0, verified.stdout


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


@pytest.mark.parametrize("name", ["worker1", "worker2", "master1"])
def test_a_host_rolls_back(running: Cluster, upgraded: Path, name: str) -> None:
    """Roll back workers first, so that no API server is older than a kubelet."""
    assert upgraded.is_dir()
    host = running.hosts[name]
    if name == "worker2":
        lines = install(running.masters[0], "/opt/k8s/bundle/install.sh --rollback")
        assert lines[-1].text == "exit 3", join_text(lines)
        assert f"kubelets must not be newer than API server {OLD}: worker2 (v{NEW})" in join_text(
            lines
        )
    lines = install(host, "/opt/k8s/bundle/install.sh --rollback --wait 5m")
    assert lines[-1].text == "exit 0", join_text(lines)
    if name.startswith("worker"):
        wait_for(
            "its kubelet has the former version",
            lambda: versions(running)[name] == f"v{OLD}",
            seconds=30,
        )
    else:
        reported = json.loads(
            Kubectl(host)(f"--server https://{host.address}:6443 version -o json")
        )
        assert reported["serverVersion"]["gitVersion"] == f"v{OLD}"
    verified = running.verify(running.hosts["master2"])
    assert verified.returncode == 0, verified.stdout
