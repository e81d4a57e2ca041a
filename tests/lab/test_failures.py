"""A control-plane host dies, and a worker restarts."""

import json

from support.lab import FIGURES, Cluster, Host, Kubectl, docker, wait_for


def find_address_holder(cluster: Cluster) -> Host:
    address = cluster.kubectl.host.output(". /opt/k8s/bundle/node.env; echo $ENDPOINT").strip()
    virtual = address.removeprefix("https://").partition(":")[0]
    holders = [
        host for host in cluster.masters if f" {virtual}/" in host.output("ip -4 -o address")
    ]
    assert len(holders) == 1, f"{virtual} is on {[host.name for host in holders]}"
    return holders[0]


def find_leader(kubectl: Kubectl, component: str) -> str:
    lease = json.loads(
        kubectl(f"-n kube-system get lease {component} -o json", check=False) or "{}"
    )
    return str(lease["spec"]["holderIdentity"]).partition("_")[0]


def is_led_elsewhere(kubectl: Kubectl, component: str, dead: Host) -> bool:
    """Ask through the virtual address whether the leader is on another host."""
    try:
        return find_leader(kubectl, component) not in {dead.name, ""}
    except (ValueError, KeyError):
        return False


def test_the_cluster_fails_over_from_a_dead_control_plane_host_within_forty_seconds(
    running: Cluster,
) -> None:
    dead = find_address_holder(running)
    alive = Kubectl(next(host for host in running.masters if host != dead))
    running.is_green = False
    docker("kill", dead.container)
    answered = wait_for(
        "the virtual address answers", lambda: alive("get --raw /healthz --request-timeout=3s", check=False).strip() == "ok",
        seconds=40,
    )  # fmt: skip
    led = wait_for(
        "both leaders are elsewhere",
        lambda: all(
            is_led_elsewhere(alive, component, dead)
            for component in ("kube-controller-manager", "kube-scheduler")
        ),
        seconds=40 - answered,
    )
    FIGURES.append(
        f"{dead.name} died: the API answered after {answered:.0f} s, leaders elsewhere after {answered + led:.0f} s"
    )
    alive("create deployment after --image=nginx:1.22")
    alive("rollout status deployment/after --timeout=90s")
    alive("delete deployment after")
    docker("start", dead.container)
    wait_for(
        "etcd is active again on the restarted host",
        lambda: dead.run("systemctl is-active etcd", check=False).returncode == 0,
        seconds=90,
    )
    verified = running.verify(alive.host)
    assert verified.returncode == 0, verified.stdout


def test_a_restarted_worker_becomes_ready_with_its_pods(running: Cluster) -> None:
    kubectl, worker = running.kubectl, running.workers[0]
    overrides = json.dumps({"spec": {"nodeName": worker.name}})
    kubectl(f"run stayer --image=nginx:1.22 --image-pull-policy=Never --overrides='{overrides}'")
    kubectl("wait --for=condition=Ready pod/stayer --timeout=60s")
    running.is_green = False
    docker("restart", worker.container)

    def is_back() -> bool:
        pod = json.loads(kubectl("get pod stayer -o json", check=False) or "{}")
        statuses = pod.get("status", {}).get("containerStatuses", [])
        node = kubectl(
            f"get node {worker.name} -o jsonpath='{{.status.conditions[?(@.type==\"Ready\")].status}}'",
            check=False,
        )
        return node == "True" and any(s["ready"] and s["restartCount"] >= 1 for s in statuses)

    taken = wait_for("the node is Ready and its pod runs again", is_back, seconds=120)
    FIGURES.append(f"{worker.name} restarted: Ready with its pod after {taken:.0f} s")
    verified = running.verify()
    assert verified.returncode == 0, verified.stdout
    kubectl("delete pod stayer --now")


def test_verify_names_a_pod_that_was_detached_from_its_bridge(running: Cluster) -> None:
    """As NetworkManager does to a bridge that it takes; the pod stays Ready."""
    kubectl, worker = running.kubectl, running.workers[0]
    overrides = json.dumps({"spec": {"nodeName": worker.name}})
    kubectl(f"run cut-off --image=nginx:1.22 --image-pull-policy=Never --overrides='{overrides}'")
    kubectl("wait --for=condition=Ready pod/cut-off --timeout=60s")
    (port, *_) = worker.output("cd /sys/class/net/cni0/brif; echo *").split()
    check = "/opt/k8s/bundle/verify.sh --only pod-bridge --timeout 20"
    worker.run(f"ip link set {port} nomaster")
    failed = running.masters[0].run(check, check=False, timeout=200)
    worker.run(f"ip link set {port} master cni0")
    assert failed.returncode == 1, failed.stdout
    assert f"pods are not attached to cni0: {port}" in failed.stdout
    passed = running.masters[0].run(check, check=False, timeout=200)
    assert passed.returncode == 0, passed.stdout
    kubectl("delete pod cut-off --now")
