"""verify.sh end to end against stand-ins for kubectl, etcdctl and the API server."""

import base64
import hashlib
import json
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from cryptography import x509
from support.ca import CertificateAuthority
from support.expiring_certificates import make_pem
from support.https_servers import serve
from support.json_shapes import read_shape
from support.shells import TEMPLATES, Sh, write_program

COMMON = TEMPLATES / "common"
# No process listens on these ports of the loopback network.
NODE_ENV = """CLUSTER='a "b" \\c'
NODE='one'
FEATURES='kube-proxy'
ROLES='{roles}'
CLOSED_PORTS='8080 10255'
ENDPOINT='https://localhost:{port}'
API_LOCAL='https://localhost:{port}'
NODES='one|127.9.9.1|etcd,control-plane,worker 10|127.9.9.2|worker'
ETCD_ENDPOINTS='https://127.9.9.1:2379 https://127.9.9.3:2379'
VERIFY_IMAGE='{image}'
ACCEPTED='one-thing another'
LINE_ENDS='kubernetes-1.20:2022-02-28 debian-99:2999-01-01 etcd-3.4:2026-06-01'
"""
# Stores the namespace in a file; `create` writes to it which run it belongs to.
KUBECTL = """echo "$*" >>{d}/calls
case " $* " in
*" get namespace "*) [ ! -f {d}/namespace ] || cat {d}/namespace ;;
*" create "*) cat >{d}/manifest; echo 'found yes one 1 1' >{d}/namespace ;;
*" delete namespace "*) rm -f {d}/namespace ;;
*) echo "no such thing" >&2; exit 1 ;;
esac
"""
Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    """A TLS server that is not ready: it closes the connection at /readyz."""
    directory = tmp_path_factory.mktemp("api")
    authority = CertificateAuthority(directory, "ours")
    server = serve(authority.issue("server", [x509.DNSName("localhost")]))
    yield {"port": server.server_port, "ca": authority.file, "admin": authority.issue("admin", [])}
    server.shutdown()
    server.server_close()


@pytest.fixture
def run(sh: Sh, tmp_path: Path, api: dict[str, Any]) -> Run:
    """Run a copy of verify.sh with an installed node around it."""
    bundle = tmp_path / "bundle"
    (bundle / "lib").mkdir(parents=True)
    for path in [COMMON / "verify.sh", *(p for p in COMMON.glob("lib/**/*") if p.is_file())]:
        copy = bundle / path.relative_to(COMMON)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(path.read_bytes())
    write_program(tmp_path / "opt/k8s/bin/kubectl", KUBECTL.format(d=tmp_path))
    write_program(tmp_path / "opt/k8s/bin/etcdctl", "echo 'no etcd' >&2; exit 1\n")
    write_program(tmp_path / "bin/id", "echo 0\n")
    kubernetes = tmp_path / "etc/kubernetes"
    (kubernetes / "pki").mkdir(parents=True)
    for name in ("ca.crt", "etcd-ca.crt"):
        (kubernetes / "pki" / name).write_bytes(api["ca"].read_bytes())
    texts = [
        base64.b64encode(api["admin"].with_suffix(suffix).read_bytes()).decode()
        for suffix in (".crt", ".key")
    ]
    for name in ("admin", "controller-manager"):
        (kubernetes / f"{name}.kubeconfig").write_text(
            f"    client-certificate-data: {texts[0]}\n    client-key-data: {texts[1]}\n"
        )
    (tmp_path / "tmp").mkdir()
    (tmp_path / "calls").write_text("")

    def start(
        *arguments: str,
        roles: str = "etcd control-plane worker",
        image: str = "",
        facts: str = "",
        manifest: str = "",
    ) -> subprocess.CompletedProcess[str]:
        text = NODE_ENV.format(roles=roles, image=image, port=api["port"]) + facts
        (bundle / "node.env").write_text(text)
        if manifest:
            digest = hashlib.sha256(text.encode()).hexdigest()
            (bundle / "MANIFEST").write_text(f"{manifest}{digest} 0644 1 node.env\n")
        done = sh(
            bundle / "verify.sh", *arguments,
            DESTDIR=str(tmp_path), TMPDIR=str(tmp_path / "tmp"), HTTPS_TIMEOUT="5",
            PATH=f"{tmp_path}/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        )  # fmt: skip
        assert list((tmp_path / "tmp").iterdir()) == [], "keys were left behind"
        return done

    return start


@pytest.mark.parametrize(
    "name", ["etcd.members", "etcd-members|nothing", "", "*", "nodes-read", "-e", "a\nnodes-ready"]
)
def test_an_unknown_check_name_is_refused(run: Run, name: str) -> None:
    done = run("--only", name, "--timeout", "0", "--json")
    assert done.returncode == 2
    assert "there is no check" in done.stderr
    assert done.stdout == ""


@pytest.mark.parametrize("seconds", ["-1", "1.5", "1 ", "", "99999999999999999999"])
def test_a_timeout_must_be_a_number_that_shells_can_add(run: Run, seconds: str) -> None:
    done = run("--timeout", seconds)
    assert done.returncode == 2
    assert "is not a number of seconds" in done.stderr


def test_on_a_worker_it_names_the_control_plane_nodes(run: Run, tmp_path: Path) -> None:
    done = run("--json", roles="worker")
    assert (done.returncode, done.stdout) == (3, "")
    assert "run it on one of: one" in done.stderr
    assert (tmp_path / "calls").read_text() == ""


@pytest.mark.slow
def test_every_failure_is_reported_as_valid_json(run: Run, tmp_path: Path) -> None:
    (tmp_path / "var/log/kubernetes").mkdir(parents=True)
    (tmp_path / "var/log/kubernetes/audit.log").write_text('{"apiVersion":"audit.k8s.io/v1"}\n')
    done = run("--timeout", "0", "--json")
    assert done.returncode == 1
    report = read_shape(done.stdout, "cluster-checks")
    assert (report["cluster"], report["node"], report["ok"]) == ('a "b" \\c', "one", False)
    assert report["accepted"] == ["one-thing", "another"]
    assert report["ended"] == [
        {"name": "kubernetes-1.20", "date": "2022-02-28"},
        {"name": "etcd-3.4", "date": "2026-06-01"},
    ]
    names = [check["name"] for check in report["checks"]]
    assert len(names) == len(set(names)) == 32
    # no process runs, so no unsafe port is open
    assert [check["name"] for check in report["checks"] if check["ok"]] == ["ports-closed"]
    assert [
        check
        for check in report["checks"]
        if not all(check[key] for key in ("expected", "seen", "look"))
    ] == []
    assert (tmp_path / "calls").read_text() == ""


def test_the_table_shows_what_was_expected_what_was_seen_and_a_command(run: Run) -> None:
    done = run("--timeout", "0", "--only", "etcd-members", "--only", "apiserver-ready")
    assert done.returncode == 1
    rows = [row.strip() for row in done.stdout.splitlines()]
    assert [row.split(":")[0] for row in rows if row] == [
        "FAILED  etcd           etcd-members", "expected", "seen", "run",
        "FAILED  control plane  apiserver-ready", "expected", "seen", "run",
        "This cluster accepts weak settings",
        "Upstream no longer maintains kubernetes-1.20 (end of life 2022-02-28), etcd-3.4 (end of life 2026-06-01) (RUNBOOK.md).",
        'Cluster a "b" \\c',
    ]  # fmt: skip
    assert "2 of 2 checks failed" in rows[-1]
    assert "127.9.9.1" in done.stdout


@pytest.fixture
def ready(run: Run, tmp_path: Path) -> Run:
    """Like run, with an API server that is ready."""
    answers = tmp_path / "bundle/lib/core/https.sh"
    answers.write_text(f"{answers.read_text()}\nhttps_get() {{ echo 200; }}\n")
    return run


def test_a_namespace_that_verify_did_not_create_is_not_touched(ready: Run, tmp_path: Path) -> None:
    (tmp_path / "namespace").write_text("found - \n")
    done = ready("--only", "secrets-encrypted", "--namespace", "default", "--timeout", "0")
    assert done.returncode == 2
    assert "the namespace default exists and verify.sh did not create it" in done.stderr
    calls = (tmp_path / "calls").read_text()
    assert "delete" not in calls
    assert "create" not in calls
    assert (tmp_path / "namespace").exists()


@pytest.mark.parametrize("keep", [False, True])
def test_its_namespace_is_deleted_unless_keep_is_given(
    ready: Run, tmp_path: Path, keep: bool
) -> None:
    done = ready("--only", "secrets-encrypted", "--timeout", "0", *(["--keep"] if keep else []))
    assert done.returncode == 1
    assert "kind: Secret" in (tmp_path / "manifest").read_text()
    assert "DaemonSet" not in (tmp_path / "manifest").read_text()
    assert (tmp_path / "namespace").exists() is keep


@pytest.mark.parametrize("jobs", ["0", "-1", "two", "", "1000"])
def test_the_number_of_jobs_must_be_one_or_more(run: Run, jobs: str) -> None:
    done = run("--jobs", jobs)
    assert done.returncode == 2
    assert "is not a number from 1 to 999" in done.stderr


CHECKS = ("etcd-members", "etcd-alarms", "etcd-registry", "secret-keys")
ONLY = [word for check in CHECKS for word in ("--only", check)]


def replace_checks(tmp_path: Path, body: str) -> None:
    """Replace the functions of CHECKS in the part that is read last."""
    part = tmp_path / "bundle/lib/verify/failover.sh"
    functions = "".join(f"check_{check.replace('-', '_')}() {{ {body}; }}\n" for check in CHECKS)
    part.write_text(f"{part.read_text()}\n{functions}")


@pytest.mark.parametrize(
    ("arguments", "most"), [([], 4), (["--jobs", "2"], 2), (["--jobs", "1"], 1)]
)
def test_no_more_checks_run_at_once_than_jobs(
    run: Run, tmp_path: Path, arguments: list[str], most: int
) -> None:
    log = tmp_path / "log"
    replace_checks(tmp_path, f"echo start >>{log}; sleep 1; echo end >>{log}; saw fine")
    done = run(*ONLY, *arguments, "--timeout", "0", "--json")
    assert done.returncode == 0, done.stderr
    assert [check["ok"] for check in json.loads(done.stdout)["checks"]] == [True] * 4
    running = peak = 0
    for line in log.read_text().splitlines():
        running += 1 if line == "start" else -1
        peak = max(peak, running)
    assert (running, peak) == (0, most)


def test_a_check_that_waits_for_its_next_try_lets_others_run(run: Run, tmp_path: Path) -> None:
    passed = tmp_path / "passed"
    replace_checks(
        tmp_path, f"[ $check = secret-keys ] && : >{passed}; [ -e {passed} ] || return 1"
    )
    done = run(*ONLY, "--jobs", "1", "--timeout", "30")
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("seconds", ["0", "00", "08", "010", "999999"])
def test_a_check_that_passes_is_ok_with_any_timeout(ready: Run, seconds: str) -> None:
    done = ready("--only", "endpoint-ready", "--timeout", seconds, "--json")
    report = json.loads(done.stdout)
    assert (done.returncode, report["ok"]) == (0, True)
    assert [check["name"] for check in report["checks"]] == ["endpoint-ready"]


def test_a_timeout_of_010_is_ten_and_not_octal(run: Run, tmp_path: Path) -> None:
    script = tmp_path / "bundle" / "lib" / "verify" / "run.sh"
    script.write_text(f'{script.read_text()}\nload_node() {{ echo "$timeout"; exit; }}\n')
    verify = tmp_path / "bundle" / "verify.sh"
    verify.write_text(verify.read_text().replace("\nload_node() {", "\nunused() {"))
    assert run("--timeout", "010").stdout == "10\n"


def test_the_namespace_of_a_killed_run_is_deleted_first(ready: Run, tmp_path: Path) -> None:
    (tmp_path / "namespace").write_text("found yes one 999999 99999999999\n")
    done = ready("--only", "secrets-encrypted", "--timeout", "0")
    assert "deleting the namespace bundler-verify of an earlier run" in done.stderr
    calls = (tmp_path / "calls").read_text()
    assert calls.index("delete namespace") < calls.index("create")


def test_the_value_of_the_secret_is_in_no_argument_and_no_output(
    ready: Run, tmp_path: Path
) -> None:
    done = ready("--only", "secrets-encrypted", "--timeout", "0", "--json")
    manifest = (tmp_path / "manifest").read_text()
    value = manifest.split('value: "')[1].split('"')[0]
    assert len(value) == 48
    assert value not in (tmp_path / "calls").read_text() + done.stdout + done.stderr


def test_without_an_image_the_checks_of_pods_fail_with_the_reason(ready: Run) -> None:
    done = ready("--only", "pod-network", "--timeout", "0", "--json")
    (check,) = json.loads(done.stdout)["checks"]
    assert check["ok"] is False
    assert 'no image with "use: verify"' in check["seen"]


def source(sh: Sh, tmp_path: Path, command: str) -> list[str]:
    """The output of a command that calls functions of verify.sh's parts."""
    parts_of_verify = COMMON.glob("lib/verify/*.sh")
    paths = [COMMON / "lib/core/json.sh", *(p for p in parts_of_verify if "probe" not in p.name)]
    parts = "".join(f". {path}\n" for path in paths)
    script = tmp_path / "script.sh"
    script.write_text(
        f"set -u\n{parts}here={COMMON} work={tmp_path} results={tmp_path} check=c deadline=0 NODE=one\n"
        f"NODES='10|127.9.9.1|worker 1e1|127.9.9.2|worker'\n{command}\n"
    )
    done = sh(script)
    assert done.stderr == ""
    return done.stdout.splitlines()


def test_names_that_are_equal_as_numbers_are_two_workers(sh: Sh, tmp_path: Path) -> None:
    (tmp_path / "pods").write_text("web 10 web-a Running 10.200.0.2 ready\n")
    assert source(sh, tmp_path, "list_missing_pods web") == ["1e1: no pod (web)"]


@pytest.mark.parametrize(
    ("report", "seen"),
    [
        ("ping a ok\nping b ok\nend\n", ""),
        ("ping a ok\nping b no reply\nend\n", "10 to b: no reply"),
        ("ping a ok\nend\n", "10: only 1 of 2 results"),
        ("", "10: only 0 of 2 results"),
    ],
)
def test_a_probe_check_passes_only_if_every_result_is_ok(
    sh: Sh, tmp_path: Path, report: str, seen: str
) -> None:
    (tmp_path / "probe.10").write_text(report)
    (tmp_path / "probe.1e1").write_text("ping a ok\nping b ok\nend\n")
    code, *rest = source(sh, tmp_path, 'check_probes ping 2 pings; echo $?; cat "$results/c.seen"')
    assert (code, rest) == (("2", [seen]) if seen else ("0", ["4 pings from 2 workers"]))


POLICY_PODS = "".join(
    f"{app} {node} {app}-{node} Running 10.200.{number}.{last} ready\n"
    for number, node in enumerate(("10", "1e1"))
    for last, app in enumerate(("probe", "guarded", "admitted", "refused", "other-port"), start=1)
)
KUBERNETES = """
namespace=verify kubectl=kubectl admin=admin server=server
read_pods() { :; }
kube() { echo 10.254.0.9; }
timeout() {
    while [ "$1" != probe ]; do shift; done
    client=$2 wanted=$3
    shift 3
    for target; do
        result=ok
        case "$client $target" in LEAK) result="it answers, but the policy does not admit it" ;; esac
        echo "$client $target $result"
    done
    echo end
}
check_network_policy; echo $?; cat "$results/c.seen"
"""


@pytest.mark.parametrize(
    ("leak", "code", "seen"),
    [
        ("none", "0", "2 workers: 2 pods and their Service, as the policy says"),
        ("'refused 10.200.1.2:80'", "1", "10 (refused) to 10.200.1.2:80: it answers, but"),
        ("'probe 10.200.0.2:80'", "1", "1e1 (probe) to 10.200.0.2:80: it answers, but"),
        ("'other-port 10.254.0.9:80'", "1", "10 (other-port) to 10.254.0.9:80: it answers"),
    ],
)
def test_a_flow_that_is_not_as_the_policy_says_is_named(
    sh: Sh, tmp_path: Path, leak: str, code: str, seen: str
) -> None:
    (tmp_path / "pods").write_text(POLICY_PODS)
    found, *rest = source(sh, tmp_path, KUBERNETES.replace("LEAK", leak))
    assert found == code
    assert seen in "\n".join(rest)


def test_clients_of_policies_and_the_policy_are_created_before_the_pods(
    sh: Sh, tmp_path: Path
) -> None:
    command = "VERIFY_IMAGE=web:1 namespace=verify FEATURES=network-policy; print_workload_manifest"
    text = "\n".join(source(sh, tmp_path, command))
    found = [
        (one["kind"], one["metadata"]["name"])
        for one in yaml.safe_load_all(text)
        if one is not None
    ]
    assert found.index(("NetworkPolicy", "guarded")) < found.index(("DaemonSet", "guarded"))
    assert {("DaemonSet", name) for name in ("admitted", "refused", "other-port")} < set(found)


@pytest.mark.parametrize("feature", ["", "pod-security-policies"])
def test_the_pods_of_the_test_may_have_a_policy_that_allows_them(
    sh: Sh, tmp_path: Path, feature: str
) -> None:
    (tmp_path / "secret.value").write_text("x")
    values = f"namespace=verify secret_name=s NODE=m1 deadline=1 work={tmp_path} VERIFY_IMAGE=web:1"
    command = f"{values} FEATURES={feature}; chosen_checks() {{ echo workload; }}; print_manifest"
    found = list(yaml.safe_load_all("\n".join(source(sh, tmp_path, command))))
    kinds = [one["kind"] for one in found]
    assert kinds[:2] == ["Namespace", "Secret"]
    bindings = [one for one in found if one["kind"] == "RoleBinding"]
    assert len(bindings) == bool(feature)
    for one in bindings:
        assert one["metadata"]["namespace"] == "verify"
        assert one["roleRef"]["name"] == "bundler:pod-security-privileged"
        assert one["subjects"][0]["name"] == "system:serviceaccounts:verify"
        assert kinds.index("RoleBinding") < kinds.index("DaemonSet")


UPGRADED = """\
kube-apiserver m1 1.34.9
kube-apiserver m2 1.34.9
kube-controller-manager m1 1.33.13
kube-scheduler m1 1.34.9
kubelet w1 1.34.9
kube-proxy w1 1.31.0
"""


@pytest.mark.parametrize(
    ("former", "now", "said"),
    [
        ("", "", []),
        # seen: the control plane went back, the worker did not
        ("kube-apiserver m2 1.34.9", "kube-apiserver m2 1.33.13",
         ["kubelet on w1 (1.34.9) is newer than kube-apiserver on m2 (1.33.13)"]),
        # a scheduler uses the API server of its own host
        ("kube-apiserver m1 1.34.9", "kube-apiserver m1 1.33.13",
         ["kube-scheduler on m1 (1.34.9) is newer than kube-apiserver on m1 (1.33.13)",
          "kubelet on w1 (1.34.9) is newer than kube-apiserver on m1 (1.33.13)"]),
        ("kube-controller-manager m1 1.33.13", "kube-controller-manager m1 1.32.13",
         ["kube-controller-manager on m1 (1.32.13) is more than 1 minor version older than kube-apiserver on m1 (1.34.9)"]),
        ("kube-apiserver m2 1.34.9", "kube-apiserver m2 1.36.0",
         ["kube-apiserver on m2 (1.36.0) and kube-apiserver on m1 (1.34.9): API servers may differ by one minor version",
          "kube-proxy on w1 (1.31.0) is more than 3 minor versions older than kube-apiserver on m2 (1.36.0)"]),
        ("kube-proxy w1 1.31.0", "kube-proxy w1 1.30.9",
         ["kube-proxy on w1 (1.30.9) is more than 3 minor versions older than kube-apiserver on m1 (1.34.9)"]),
        ("kube-proxy w1 1.31.0", "kube-proxy w1 - its pod did not report it",
         ["kube-proxy on w1: its version cannot be read: its pod did not report it"]),
    ],
)  # fmt: skip
def test_a_component_of_an_unsupported_version_is_named(
    sh: Sh, tmp_path: Path, former: str, now: str, said: list[str]
) -> None:
    (tmp_path / "all").write_text(UPGRADED.replace(former, now) if former else UPGRADED)
    command = (
        f'list_versions() {{ cat {tmp_path}/all; }}; check_version_skew; cat "$results/c.seen"'
    )
    seen = source(sh, tmp_path, command)
    assert seen == (said or ["1.31.0 1.33.13 1.34.9 on 6 components"])


@pytest.mark.parametrize(("before", "limit"), [("1.27.3", "2"), ("1.28.0", "3")])
def test_kubelets_may_be_two_or_from_1_28_on_three_minors_older(
    sh: Sh, tmp_path: Path, before: str, limit: str
) -> None:
    oldest = f"1.{int(before.split('.')[1]) - int(limit)}.0"
    for version, fails in ((oldest, False), (f"1.{int(oldest.split('.')[1]) - 1}.9", True)):
        (tmp_path / "all").write_text(f"kube-apiserver m1 {before}\nkubelet w1 {version}\n")
        command = (
            f'list_versions() {{ cat {tmp_path}/all; }}; check_version_skew; cat "$results/c.seen"'
        )
        (seen,) = source(sh, tmp_path, command)
        assert (f"is more than {limit} minor versions older" in seen) == fails


def test_versions_are_read_from_what_runs(sh: Sh, tmp_path: Path) -> None:
    (tmp_path / "probe.w1").write_text("ping a ok\nversion kube-proxy v1.16.3\nend\n")
    command = """NODES='m1|127.9.9.1|control-plane w1|127.9.9.2|worker w2|127.9.9.3|worker' api_port=6443 FEATURES=kube-proxy
describe_answer() { printf '%s\\n' "$1" | tail -n 1; }
as_admin() { case $1:$2$3 in
    *:6443/version) printf '200\\n{\\n  "gitVersion": "v1.20.2",\\n' ;;
    *:10257/metrics) printf '200\\nkubernetes_build_info{build_date="x",git_version="v1.20.1-rc.0",go_version="go1.15"} 1\\n' ;;
    *:10259/metrics) printf '200\\nkubernetes_build_info{buildDate="x",gitVersion="v1.16.3",goVersion="go1.12"} 1\\n' ;;
    127.9.9.2:*) printf '200\\nkubernetes_build_info{git_version="v1.20.2"} 1\\n' ;;
    *) printf '000\\nConnection refused\\n' ;;
esac; }
list_versions"""
    assert source(sh, tmp_path, command) == [
        "kube-apiserver m1 1.20.2",
        "kube-controller-manager m1 1.20.1",
        "kube-scheduler m1 1.16.3",
        "kubelet w1 1.20.2",
        "kube-proxy w1 1.16.3",
        "kubelet w2 - Connection refused",
        "kube-proxy w2 - its pod did not report it",
    ]


def test_with_a_profile_only_the_own_controller_manager_and_scheduler_are_asked(
    sh: Sh, tmp_path: Path
) -> None:
    command = """NODES='m1|127.9.9.1|control-plane m2|127.9.9.2|control-plane' NODE=m1
MANAGERS_AT=127.0.0.1 api_port=6443 FEATURES=cis
describe_answer() { echo unreachable; }
as_admin() { printf '200\\n"gitVersion": "v1.36.%s",\\n' "${1##*.}"; }
is_open() { case $1:$2 in *:10257 | *:10259) return 1 ;; esac; }
list_versions
check=p; check_ports_open; cat "$results/p.seen"
"""
    assert source(sh, tmp_path, command) == [
        "kube-apiserver m1 1.36.1",
        "kube-apiserver m2 1.36.2",
        "kube-controller-manager m1 1.36.1",
        "kube-scheduler m1 1.36.1",
        "etcd 2379 2380, control planes 6443, workers 10250",
    ]


def test_long_text_with_control_characters_becomes_one_json_line(sh: Sh, tmp_path: Path) -> None:
    (tmp_path / "text").write_bytes(b'a\x1b[31m\n\n"b"\t\xff\\\n' + b"x" * 700 + b"\n")
    (line,) = source(sh, tmp_path, 'json_string "$(one_line "$work/text")"')
    text = json.loads(line)
    assert text.startswith('a[31m; "b"\\; xxx')
    assert len(text) == 603


@pytest.fixture
def node(run: Run, tmp_path: Path) -> Callable[..., dict[str, dict[str, Any]]]:
    """`verify.sh --node --json` on a worker with stand-ins: its checks by name."""
    write_program(
        tmp_path / "bin/systemctl",
        'case "$*" in *broken*) echo failed; exit 3 ;; is-active*) echo active ;; esac\n',
    )
    (tmp_path / "etc/kubernetes/one.yaml").write_text("as it was\n")
    digest = hashlib.sha256(b"as it was\n").hexdigest()

    def start(units: str = "kubelet.service") -> dict[str, dict[str, Any]]:
        facts = (
            f"UNITS='{units}'\nSYSCTLS='net.ipv4.ip_forward=0'\nMODULES=''\nSWAP_OFF=''\nPORTS=''\n"
            "KUBELET_ROOT=/var/lib/kubelet\nADDRESS=127.9.9.1\nFEATURES=''\nSERVING=''\n"
            "BOOT_UNITS=bundler-recover.service\nSYSCTLS_WANTED=''\nPAUSE_IMAGE=registry.k8s.io/pause:3.2\n"
        )
        done = run("--node", "--timeout", "0", "--json", roles="worker", facts=facts, manifest=(
            f"{digest} 0644 10 rootfs/etc/kubernetes/one.yaml\n"))  # fmt: skip
        report = read_shape(done.stdout, "node-checks")
        assert done.returncode == (0 if report["ok"] else 1)
        return {check["name"]: check for check in report["checks"]}

    return start


def test_a_host_is_checked_alone(node: Callable[..., dict[str, dict[str, Any]]]) -> None:
    checks = node()
    assert set(checks) == {
        "host-units", "host-files", "host-certificates", "host-serving", "host-kernel",
        "host-overrides", "host-ports", "host-kubelet", "host-runtime", "host-images",
    }  # fmt: skip
    assert checks["host-units"]["ok"]
    assert checks["host-files"]["ok"]
    assert not checks["host-kubelet"]["ok"]


@pytest.mark.slow
def test_files_that_win_over_the_bundles_are_named_with_their_fix(
    node: Callable[..., dict[str, dict[str, Any]]], tmp_path: Path
) -> None:
    assert node()["host-overrides"]["seen"] == "none"
    folder = tmp_path / "etc/systemd/system/kubelet.service.d"
    folder.mkdir(parents=True)
    (folder / "10-kubeadm.conf").write_text("[Service]\nExecStart=\nExecStart=/usr/bin/kubelet\n")
    (folder / "proxy.conf").write_text("[Service]\nEnvironment=HTTPS_PROXY=http://proxy:3128\n")
    check = node()["host-overrides"]
    path = "/etc/systemd/system/kubelet.service.d"
    assert not check["ok"]
    assert (
        f"{path}/10-kubeadm.conf changes ExecStart of kubelet.service; fix: rm {path}/"
        in check["seen"]
    )
    assert f"note: {path}/proxy.conf changes Environment of kubelet.service" in check["seen"]
    (folder / "10-kubeadm.conf").unlink()
    assert node()["host-overrides"]["ok"]


@pytest.mark.slow
def test_a_kubelet_that_waits_for_its_certificate_is_explained(
    node: Callable[..., dict[str, dict[str, Any]]], tmp_path: Path
) -> None:
    (tmp_path / "run/kubelet-join").mkdir(parents=True)
    (tmp_path / "run/kubelet-join/reason").write_text("the bootstrap token ended 3 days ago\n")
    check = node()["host-kubelet"]
    assert (check["ok"], check["seen"]) == (False, "it waits: the bootstrap token ended 3 days ago")


@pytest.mark.slow
def test_an_image_that_the_runtime_does_not_have_is_named(
    node: Callable[..., dict[str, dict[str, Any]]], tmp_path: Path
) -> None:
    library = next(tmp_path.rglob("verify.sh")).parent / "lib"
    lines = [f"{name}\tregistry.example/{name}:1\tsha256:{name}\t9\n" for name in ("a", "b", "c")]
    (library / "images.tsv").write_text("# a heading\n" + "".join(lines))
    (library / "runtime.sh").write_text(
        "image_id() { case $1 in */a:1) echo sha256:a ;; */b:1) echo sha256:older ;; esac; }\n"
    )
    check = node()["host-images"]
    assert not check["ok"]
    assert "registry.example/b:1 is missing, or another image" in check["seen"]
    assert "registry.example/c:1 is missing" in check["seen"]
    assert "registry.example/a:1" not in check["seen"]
    (library / "images.tsv").write_text(lines[0])
    check = node()["host-images"]
    assert (check["ok"], check["seen"]) == (True, "1 images")


@pytest.mark.slow
def test_a_failed_unit_and_a_changed_file_are_named(
    node: Callable[..., dict[str, dict[str, Any]]], tmp_path: Path
) -> None:
    (tmp_path / "etc/kubernetes/one.yaml").write_text("changed\n")
    checks = node("kubelet.service broken.service")
    assert "broken.service is failed" in checks["host-units"]["seen"]
    assert "one.yaml is changed or missing" in checks["host-files"]["seen"]
    (tmp_path / "etc/kubernetes/pki/bad.crt").write_text("no certificate")
    assert "bad.crt" in node()["host-certificates"]["seen"]


@pytest.mark.parametrize(("days", "is_well"), [(32, True), (29, False)])
def test_a_certificate_that_expires_within_30_days_fails(
    node: Callable[..., dict[str, dict[str, Any]]], tmp_path: Path, days: int, *, is_well: bool
) -> None:
    """A warning on the last day is too late: a new bundle must be carried to the site."""
    for file in (tmp_path / "etc/kubernetes").rglob("*"):
        if file.suffix in {".crt", ".kubeconfig"}:
            file.unlink()
    (tmp_path / "etc/kubernetes/pki/some.crt").write_bytes(make_pem("some", days))
    check = node()["host-certificates"]
    assert check["ok"] is is_well
    assert check["seen"] == (
        "1 certificates" if is_well else "/etc/kubernetes/pki/some.crt: 29 days left (CN=some)"
    )
