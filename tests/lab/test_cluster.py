"""All five hosts are installed at once: the cluster works, and nothing was downloaded."""

import json
import re
import time

from support.command import run_bundler
from support.lab import FIGURES, INSTALLED, Cluster, Host, side_by_side, wait_for

from bundler.audit.versions import read_version

LIMIT = 180  # seconds from the first install.sh to a green verify.sh, on 2 cores


def test_five_hosts_are_installed_and_verified_within_three_minutes(installed: Cluster) -> None:
    assert installed.first_install is not None
    assert installed.first_install < LIMIT


def test_missing_packages_are_installed_from_the_bundles(installed: Cluster) -> None:
    """The hosts had Essential and Required packages and systemd, and never a network."""
    needed = {"openssl": installed.hosts, "conntrack": ("worker1",), "keepalived": ("master1",)}
    for package, names in needed.items():
        for name in names:
            assert not any(path.endswith(f"bin/{package}") for path in installed.before[name])
            brought = installed.hosts[name].output("cat /var/lib/bundler/packages").split()
            assert package in brought
    assert "keepalived" not in installed.workers[0].output("cat /var/lib/bundler/packages")
    for host in installed.hosts.values():
        assert host.output("dpkg --audit") == ""


def test_verify_reports_every_check_as_json(installed: Cluster) -> None:
    report = json.loads(
        installed.masters[1].run("/opt/k8s/bundle/verify.sh --json 2>/dev/null").stdout
    )
    assert report["ok"] is True
    assert len(report["checks"]) == 32
    assert all(check["ok"] for check in report["checks"])
    seen = {check["name"]: check["seen"] for check in report["checks"]}
    assert "proxy-rules" in seen
    assert seen["node-labels"] == "3 labels, 1 taints, 1 annotations on 2 workers"
    FIGURES.append(f"kube-proxy, asked for ipvs: {seen['proxy-rules']}")


def test_a_worker_with_labels_registers_tainted_until_a_control_plane_has_set_them(
    installed: Cluster,
) -> None:
    said = "".join(
        host.output("journalctl -u kube-node-labeler.service -o cat") for host in installed.masters
    )
    assert (
        "changed the Node worker2: it has the taint bundler/uninitialized, with which it registered"
        in said
    )
    assert "changed the Node worker1" not in said
    named = installed.kubectl("get nodes -l node-role.kubernetes.io/edge -o name")
    assert named.split() == ["node/worker2"]


def test_files_of_the_site_are_on_their_host_and_started_its_unit(installed: Cluster) -> None:
    first, second = installed.workers
    assert second.output("stat -c '%a %U:%G' /etc/site/agent.conf").strip() == "640 root:adm"
    assert second.output("cat /etc/site/agent.conf") == "interval=60\n"
    assert second.output("systemctl is-active site-agent.service").strip() == "active"
    assert second.output("systemctl is-enabled site-agent.service").strip() == "enabled"
    assert "no" in first.run("[ -e /etc/site/agent.conf ] && echo yes || echo no").stdout


def test_the_audit_finds_what_is_true_for_these_versions(installed: Cluster) -> None:
    done = run_bundler(["audit", installed.dist, "--fail-on", "high", "--json"], text=True)
    assert done.returncode == 1, done.stderr
    report = json.loads(done.stdout)
    found = {(one["id"], one["component"], one["version"]) for one in report["vulnerabilities"]}
    # Debian's runc in the archive of Docker: CVE-2024-21626 is fixed there
    for cve in ("CVE-2025-31133", "CVE-2025-52565", "CVE-2025-52881"):
        assert (cve, "runc") in {one[:2] for one in found}
    assert "CVE-2024-21626" not in {one[0] for one in found}
    assert ("CVE-2025-5187", "kubernetes", "1.20.2") in found
    # Debian's nginx, in the bundles and in the image, has the fixes of 2026-11 or not
    nginx = {
        line.partition("@")[2].partition("?")[0].replace("%2B", "+")
        for line in run_bundler(
            ["inspect", installed.dist / "lab-master1.tar.gz", "--sbom"], text=True
        ).stdout.splitlines()
        if "pkg:deb/debian/nginx@" in line
    }
    assert len(nginx) == 1
    is_fixed = read_version("deb", nginx.pop()) >= read_version("deb", "1.22.1-9+deb12u11")
    assert is_fixed == (not any(one[0] == "CVE-2026-93479" for one in found))
    assert report["compared"] > 100


def test_verify_node_passes_on_each_host(installed: Cluster) -> None:
    command = "/opt/k8s/bundle/verify.sh --node --json 2>/dev/null"
    for text in side_by_side(lambda host: host.output(command), installed.hosts.values()):
        report = json.loads(text)
        assert report["ok"] is True
        assert len(report["checks"]) >= 7


def test_another_leader_takes_over_when_one_stops(installed: Cluster) -> None:
    """Run on two hosts, so that at least one of the leaders is on another host."""
    local = set()  # whether the stopped leader ran on this host
    for master in installed.masters[:2]:
        done = master.run("/opt/k8s/bundle/verify.sh --failover --json 2>/dev/null", check=False)
        report = json.loads(done.stdout)
        assert report["ok"] is True, report
        for check in report["checks"]:
            local.add("was stopped" in check["seen"])
            FIGURES.append(f"{check['name']}: {check['seen']}")
    assert False in local, "no leader ran on another host"
    assert installed.verify().returncode == 0


def test_every_worker_is_ready_under_its_name_and_address(installed: Cluster) -> None:
    nodes = json.loads(installed.kubectl("get nodes -o json"))["items"]
    found = {
        node["metadata"]["name"]: (
            next(a["address"] for a in node["status"]["addresses"] if a["type"] == "InternalIP"),
            next(c["status"] for c in node["status"]["conditions"] if c["type"] == "Ready"),
            node["status"]["nodeInfo"]["kubeletVersion"],
        )
        for node in nodes
    }
    assert found == {host.name: (host.address, "True", "v1.20.2") for host in installed.workers}


def test_nothing_was_pulled(installed: Cluster) -> None:
    kubectl = installed.kubectl
    kubectl("create namespace pulls")
    kubectl("-n pulls run web --image=nginx:1.22 --image-pull-policy=IfNotPresent")
    kubectl("-n pulls wait --for=condition=Ready pod/web --timeout=60s")
    assert installed.list_image_events()
    kubectl("delete namespace pulls --wait=false")


def test_no_host_reaches_the_internet(installed: Cluster) -> None:
    def look(host: Host) -> tuple[str, str]:
        name = host.output("timeout 8 getent hosts dl.k8s.io || echo nothing").strip()
        status = host.output("curl -s -m 3 -o /dev/null -w '%{http_code}' https://1.1.1.1/ || true")
        return name, status

    assert set(side_by_side(look, installed.hosts.values())) == {("nothing", "000")}


def test_installing_again_does_nothing_and_takes_under_three_seconds(installed: Cluster) -> None:
    hosts = installed.hosts.values()
    before = side_by_side(list_state, hosts)
    for host in hosts:
        start = time.monotonic()
        said, _, used = host.output(f"/root/lab-{host.name}/install.sh; times").splitlines()
        taken = time.monotonic() - start
        assert said == f"{host.name}: nothing to do"
        # Processor time: the elapsed time includes what else runs on this machine.
        spent = sum(int(m) * 60 + float(s) for m, s in re.findall(r"(\d+)m([\d.]+)s", used))
        FIGURES.append(
            f"install.sh again on {host.name}: {taken:.1f} s ({spent:.1f} s of a processor)"
        )
        assert spent < 3, f"{host.name}: {spent:.1f} s"
    assert side_by_side(list_state, hosts) == before


def list_state(host: Host) -> tuple[dict[str, str], dict[str, str]]:
    """When each unit was started, and every installed file."""
    return host.unit_starts(), host.list_files(INSTALLED)


def test_a_secret_cannot_be_read_in_etcd(installed: Cluster) -> None:
    master = installed.masters[0]
    installed.kubectl("create secret generic hidden --from-literal=word=swordfish-4711")
    raw = master.output(
        "ETCDCTL_API=3 /opt/k8s/bin/etcdctl --endpoints=https://127.0.0.1:2379 --cacert=/etc/etcd/pki/ca.crt "
        "--cert=/etc/etcd/pki/healthcheck-client.crt --key=/etc/etcd/pki/healthcheck-client.key "
        "get /registry/secrets/default/hidden --print-value-only | tr -cd '[:print:]'"
    )
    assert raw.startswith("k8s:enc:aescbc:v1:key1:")
    assert "swordfish" not in raw
    assert installed.kubectl("get secret hidden -o jsonpath={.data.word}") == "c3dvcmRmaXNoLTQ3MTE="


def test_etcds_timers_run_and_their_work_is_done(installed: Cluster) -> None:
    master = installed.masters[0]
    assert "etcd-health.timer" in master.output("systemctl list-timers --no-legend")
    assert "etcd-defrag.timer" in master.output("systemctl list-timers --no-legend")
    master.run("systemctl start etcd-health.service")
    master.run("systemctl start etcd-defrag.service")
    said = master.output("journalctl -u etcd-health -u etcd-defrag -o cat --no-pager")
    assert "every member is healthy: https://172.30.20.11:2379" in said
    assert "size of the database: " in said


def test_etcd_refuses_a_client_without_a_certificate(installed: Cluster) -> None:
    ask = "curl -s -m 5 -w '%{{http_code}}' --cacert /etc/etcd/pki/ca.crt {} https://{}:2379/health || true"
    certificate = (
        "--cert /etc/etcd/pki/healthcheck-client.crt --key /etc/etcd/pki/healthcheck-client.key"
    )
    for master in installed.masters:
        assert master.output(ask.format("", master.address)) == "000"
        assert master.output(ask.format(certificate, master.address)) == '{"health":"true"}200'


def test_the_audit_log_has_entries_and_no_secret(installed: Cluster) -> None:
    entries = installed.masters[0].output("tail -n 200 /var/log/kubernetes/audit.log").splitlines()
    assert all(json.loads(line)["apiVersion"] == "audit.k8s.io/v1" for line in entries)
    for master in installed.masters:
        assert (
            master.run("grep -q swordfish /var/log/kubernetes/audit.log*", check=False).returncode
            == 1
        )


def test_every_secret_on_a_host_is_for_root_only(installed: Cluster) -> None:
    for host in installed.hosts.values():
        found = host.output(
            "grep -rlE 'PRIVATE KEY|client-key-data|token-secret' /etc/kubernetes /etc/etcd 2>/dev/null | "
            "xargs stat -c '%a %U %n'"
        ).splitlines()
        assert found
        assert all(line.startswith("600 root ") for line in found), found


def test_the_approver_says_what_it_decided(installed: Cluster) -> None:
    said = "".join(
        master.output("journalctl -u kube-csr-approver -o cat --no-pager")
        for master in installed.masters
    )
    for worker in installed.workers:
        assert f"node {worker.name}, address {worker.address}" in said


def test_forward_accepts_pods_when_docker_starts_again(installed: Cluster) -> None:
    worker = installed.workers[0]
    worker.run("iptables -D FORWARD -s 10.200.0.0/16 -j ACCEPT")
    worker.run("systemctl restart docker")
    rules = worker.output("iptables -S FORWARD").splitlines()
    for end in ("-s", "-d"):
        assert rules.count(f"-A FORWARD {end} 10.200.0.0/16 -j ACCEPT") >= 1


def test_no_plain_http_port_is_open_to_the_network(installed: Cluster) -> None:
    listing = (
        "awk '$4 == \"0A\" { print $2 }' /proc/net/tcp /proc/net/tcp6 | while IFS=: read a p; do "
        "printf '%s %d\\n' $a 0x$p; done | grep -v -e '^0100007F' -e '^0B00007F' | cut -d' ' -f2 | sort -un"
    )
    masters = {2379, 2380, 6443, 8443, 10257, 10259}
    workers = {10250, 10256}  # 10256 is kube-proxy's health, for load balancers
    for host in installed.hosts.values():
        wanted = masters if host in installed.masters else workers

        def is_so(host: Host = host, wanted: set[int] = wanted) -> bool:
            found = {int(port) for port in host.output(listing).split()}
            assert found <= wanted, f"{host.name}: {found - wanted}"
            return found == wanted

        # a worker's kubelet has just been restarted with Docker
        wait_for(f"{host.name} listens on {wanted}", is_so, seconds=60)


def test_systemd_finds_no_fault_with_any_unit(installed: Cluster) -> None:
    for host in (installed.masters[0], installed.workers[0]):
        said = host.output(
            ". /opt/k8s/bundle/node.env; cd /etc/systemd/system && systemd-analyze verify $UNITS"
        )
        assert [line for line in said.splitlines() if "/etc/systemd/system/" in line] == []
        boot = host.run("systemd-analyze verify multi-user.target", check=False)
        assert "cycle" not in boot.stdout, boot.stdout


def test_kubectl_and_openssl_read_what_was_made(installed: Cluster) -> None:
    master = installed.masters[0]
    for name in (
        "admin",
        "controller-manager",
        "scheduler",
        "csr-approver",
        "node-remover",
        "node-labeler",
    ):
        said = master.output(
            f"/opt/k8s/bin/kubectl --kubeconfig /etc/kubernetes/{name}.kubeconfig version --short"
        )
        assert "Server Version: v1.20.2" in said
    for name in ("apiserver", "apiserver-kubelet-client", "controller-manager", "scheduler"):
        said = master.output(
            f"openssl verify -x509_strict -CAfile /etc/kubernetes/pki/ca.crt /etc/kubernetes/pki/{name}.crt"
        )
        assert said.strip().endswith(": OK")


def test_metrics_of_the_control_plane_are_for_those_who_may(installed: Cluster) -> None:
    master = installed.masters[0]
    ask = "curl -s -m 5 -o /dev/null -w '%{{http_code}}' --cacert /etc/kubernetes/pki/ca.crt {} https://{}:{}/metrics"
    admin = "--cert /tmp/admin.crt --key /tmp/admin.key"
    for part in ("certificate", "key"):
        master.run(
            f"umask 077; sed -n 's/.*client-{part}-data: //p' /etc/kubernetes/admin.kubeconfig | base64 -d "
            f">/tmp/admin.{'crt' if part == 'certificate' else 'key'}"
        )
    for port in (10257, 10259):
        assert master.output(ask.format("", master.address, port)) == "403"
        assert master.output(ask.format(admin, master.address, port)) == "200"
    master.run("rm /tmp/admin.crt /tmp/admin.key")
