"""apply-addons.sh: what it waits for, what it prints, and that it ends when all is applied."""

import ipaddress
import shutil
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import pytest
from cryptography import x509
from support.ca import CertificateAuthority
from support.https_servers import Server, serve
from support.shells import TEMPLATES, Sh, link_parts, write_program

SCRIPT = TEMPLATES / "control-plane/rootfs/opt/k8s/libexec/apply-addons.sh"
NOT_FOUND = "echo 'Error from server (NotFound): the server could not find it' >&2; exit 1"
FORBIDDEN = "echo 'Error from server (Forbidden): forbidden: User cannot get path' >&2; exit 1"
Run = Callable[..., tuple[int, list[str], list[str]]]
RBAC = "rbac.authorization.k8s.io/v1"
WANTED = (f"{RBAC} ClusterRole - bundler:one", f"{RBAC} Role kube-system bundler:two")
LABELLED = '{"metadata": {"labels": {"bundler/applied-by": "kube-apply"}}}'


def print_rows(rows: Iterable[str]) -> str:
    return "; ".join(f"echo '{row}'" for row in rows) or ":"


def pem(name: str) -> str:
    """Text in the form of a certificate, on several lines."""
    body = "\n".join(name[0] * 4 for _ in range(3))
    return f"-----BEGIN CERTIFICATE-----\n{body}\n{name}=\n-----END CERTIFICATE-----\n"


@pytest.fixture
def run(sh: Sh, tmp_path: Path) -> Run:
    """Run with a kubectl of these answers: (exit code, output, the calls of kubectl).

    In the answers $n is the number of that kind of call. `sleep` returns at once, 19 times.
    """
    (tmp_path / "etc/kubernetes/addons").mkdir(parents=True)
    (tmp_path / "etc/kubernetes/pki").mkdir()
    (tmp_path / "etc/kubernetes/pki/ca.crt").write_text(pem("new") + pem("old"))
    (tmp_path / "etc/kubernetes/pki/front-proxy-ca.crt").write_text(pem("proxy"))
    link_parts(tmp_path)

    def start(
        ready: str = "echo ok",
        health: str = "echo ok",
        apply: str = ":",
        published: str = ":",
        may: str = "echo yes",
        local: str = f"case $* in *go-template*) {print_rows(WANTED)} ;; *) echo '{LABELLED}' ;; esac",
        labelled: str = print_rows(WANTED),
        **environment: str,
    ) -> tuple[int, list[str], list[str]]:
        write_program(
            tmp_path / "bin/kubectl",
            f"""case " $* " in *" can-i "* | *" --local "* | *" --all-namespaces "*) ;; *) echo "$*" >>{tmp_path}/calls ;; esac
case " $* " in
    *" /readyz "*) kind=readyz ;;
    *" /healthz "*) kind=healthz ;;
    *" configmap "*) kind=published ;;
    *" can-i "*) kind=may ;;
    *" --local "*) kind=local ;;
    *" --all-namespaces "*) kind=labelled ;;
    *) kind=apply ;;
esac
case " $* " in *" apply "*) cat >{tmp_path}/applied ;; esac
echo >>{tmp_path}/$kind
n=$(($(wc -l <{tmp_path}/$kind)))
[ "$n" -lt 20 ] || {{ kill "$(cat {tmp_path}/pid)"; exit 1; }}
case $kind in readyz) {ready} ;; healthz) {health} ;; published) {published} ;; may) {may} ;; local) {local} ;; labelled) {labelled} ;; apply) {apply} ;; esac
""",
        )
        write_program(
            tmp_path / "bin/sleep",
            f'echo "$*" >>{tmp_path}/sleeps\n[ "$(wc -l <{tmp_path}/sleeps)" -lt 20 ] || kill "$(cat {tmp_path}/pid)"\n',
        )
        parts = tmp_path / "libexec"
        shutil.copytree(SCRIPT.parent, parts, dirs_exist_ok=True)
        wrapper = parts / "wrapper.sh"
        wrapper.write_text(f"echo $$ >{tmp_path}/pid\n. {SCRIPT}\n")
        done = sh(
            wrapper, DESTDIR=str(tmp_path), PATH=f"{tmp_path}/bin:/usr/bin:/bin", **environment
        )
        assert done.stderr == ""
        calls = tmp_path / "calls"
        return (
            done.returncode,
            done.stdout.splitlines(),
            calls.read_text().splitlines() if calls.exists() else [],
        )

    return start


def test_without_addons_there_is_nothing_to_apply(run: Run, tmp_path: Path) -> None:
    (tmp_path / "etc/kubernetes/addons").rmdir()
    code, said, calls = run()
    assert (code, calls) == (0, [])
    assert said == [f"nothing to apply: there is no directory {tmp_path}/etc/kubernetes/addons"]


def test_the_whole_directory_is_applied_once(run: Run, tmp_path: Path) -> None:
    code, said, calls = run(apply="echo a created; echo b unchanged; echo c configured")
    addons = f"{tmp_path}/etc/kubernetes/addons"
    assert (code, said) == (0, ["a created", "c configured", f"applied all manifests in {addons}"])
    assert len(calls) == 3
    assert calls[1].endswith("apply --validate=false -f -")
    assert (tmp_path / "applied").read_text() == f"{LABELLED}\n"
    assert all(f"--kubeconfig {tmp_path}/etc/kubernetes/admin.kubeconfig" in call for call in calls)
    assert not any("--server" in call for call in calls)


def test_each_reason_for_waiting_is_printed_once(run: Run, tmp_path: Path) -> None:
    ready = (
        'case $n in 1 | 2 | 3) echo refused; exit 1 ;; 4) echo "etcd failed" ;; *) echo ok ;; esac'
    )
    apply = '[ "$n" -gt 2 ] || { echo "x unchanged"; echo "y: conflict" >&2; exit 1; }'
    code, said, calls = run(
        ready=ready, apply=apply, health="echo refused; exit 1", API_LOCAL="https://a:1"
    )
    addons = f"{tmp_path}/etc/kubernetes/addons"
    assert code == 0
    assert [text.rstrip() for text in said] == [
        "waiting for the API server https://a:1 to be ready: refused",
        "waiting for the API server https://a:1 to be ready: etcd failed",
        f"waiting for the manifests in {addons} to be accepted: y: conflict",
        f"applied all manifests in {addons}",
    ]
    assert all("--server https://a:1" in call for call in calls)


def test_pauses_grow_up_to_the_limit(run: Run, tmp_path: Path) -> None:
    run(ready='[ "$n" -gt 6 ] && echo ok', health="exit 1", MAX_PAUSE="7")
    assert (tmp_path / "sleeps").read_text().split() == ["2", "4", "6", "7", "7", "7"]


def test_healthz_is_not_used_if_readyz_reports_not_ready(run: Run, tmp_path: Path) -> None:
    unready = 'echo "Error from server (InternalError): [-]informer-sync failed" >&2; exit 1'
    code, said, calls = run(ready=f'[ "$n" -gt 1 ] && echo ok || {{ {unready}; }}')
    assert code == 0
    assert said[0].startswith("waiting for the API server")
    assert "informer-sync failed" in said[0]
    assert not any("/healthz" in call for call in calls)


@pytest.mark.parametrize("ready", [NOT_FOUND, FORBIDDEN])
def test_without_readyz_healthz_is_used(run: Run, ready: str) -> None:
    code, _, calls = run(ready=ready)
    assert code == 0
    assert [call.split()[-1] for call in calls[:2]] == ["/readyz", "/healthz"]


@pytest.mark.parametrize(
    ("published", "is_deleted"),
    [
        ("", False),  # 1.14 to 1.16 write it when they start, and it may not exist yet
        (pem("new") + pem("old") + "\n" + pem("proxy"), False),
        (pem("old") + "\n", False),
        (pem("new") + pem("former") + "\n" + pem("proxy"), True),
        (pem("new") + "\n" + pem("other"), True),
    ],
)
def test_the_configmap_is_deleted_if_it_has_a_ca_that_is_no_longer_trusted(
    run: Run, tmp_path: Path, published: str, is_deleted: bool
) -> None:
    (tmp_path / "answer").write_text(published)
    code, _, calls = run(
        published=f'case "$*" in *get*) cat {tmp_path}/answer ;; *) echo deleted ;; esac'
    )
    assert code == 0
    about = [call.partition("-n kube-system ")[2].split(" -o ")[0] for call in calls[2:]]
    name = "configmap extension-apiserver-authentication --ignore-not-found"
    assert about == [f"get {name}", *([f"delete {name}"] if is_deleted else [])]


def test_it_waits_until_the_configmap_can_be_read(run: Run) -> None:
    published = '[ "$n" -gt 1 ] || { echo refused >&2; exit 1; }'
    code, said, _ = run(published=published)
    assert code == 0
    assert (
        said[-1]
        == "waiting for removed CAs to be deleted from extension-apiserver-authentication: refused"
    )


@pytest.fixture
def api(tmp_path: Path) -> Iterator[Server]:
    """An API server that requires the certificate of the front proxy."""
    pki = tmp_path / "etc/kubernetes/pki"
    pki.mkdir(parents=True, exist_ok=True)
    ours = CertificateAuthority(tmp_path, "ours")
    address = [x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
    client = ours.issue("front-proxy-client", [])
    for suffix in (".crt", ".key"):
        shutil.copy(client.with_suffix(suffix), pki / f"front-proxy-client{suffix}")
    server = serve(ours.issue("api", address), clients=ours.file)
    yield server
    server.shutdown()
    server.server_close()


def test_an_administrator_without_rights_gets_them_from_the_front_proxy(
    run: Run, tmp_path: Path, api: Server
) -> None:
    binding = tmp_path / "etc/kubernetes/addons/cluster-admins.yaml"
    binding.parent.mkdir(exist_ok=True)
    binding.write_text("kind: ClusterRoleBinding\n")
    shutil.copy(tmp_path / "ours.crt", tmp_path / "etc/kubernetes/pki/ca.crt")
    code, said, calls = run(
        may="echo 'Warning: of something' >&2; echo no",
        API_LOCAL=f"https://127.0.0.1:{api.server_port}",
    )
    assert code == 0
    assert said[0] == f"gave all rights to the group in {binding}"
    (path, headers, body) = api.received[0]
    assert path == ("/apis/rbac.authorization.k8s.io/v1/clusterrolebindings/bundler:cluster-admins")
    assert body == binding.read_bytes()
    assert headers["Content-Type"] == "application/yaml"
    assert (headers["X-Remote-User"], headers["X-Remote-Group"]) == (
        "bundler:kube-apply",
        "system:masters",
    )
    assert any(" apply " in call for call in calls)


def test_a_refused_binding_is_tried_again(run: Run, tmp_path: Path, api: Server) -> None:
    (tmp_path / "etc/kubernetes/addons/cluster-admins.yaml").write_text("kind: x\n")
    shutil.copy(tmp_path / "ours.crt", tmp_path / "etc/kubernetes/pki/ca.crt")
    api.put_status = 403
    code, said, _ = run(
        may='[ "$n" -gt 2 ] && echo yes || echo "no - no rule"',
        API_LOCAL=f"https://127.0.0.1:{api.server_port}",
    )
    assert code == 0
    assert said[0].rstrip() == "waiting for the administrator to have all rights: 403 the answer"
    assert len(api.received) == 2


def test_an_administrator_with_rights_needs_no_front_proxy(run: Run, api: Server) -> None:
    code, _, _ = run(API_LOCAL=f"https://127.0.0.1:{api.server_port}")
    assert (code, api.received) == (0, [])


def test_a_failed_question_about_rights_is_no_answer(run: Run, api: Server) -> None:
    code, said, _ = run(
        may='[ "$n" -gt 1 ] && echo yes || { echo "error: connection refused" >&2; exit 1; }',
        API_LOCAL=f"https://127.0.0.1:{api.server_port}",
    )
    assert code == 0
    assert said[0] == "waiting for the administrator to have all rights: error: connection refused"
    assert api.received == []


OBSOLETE = """\
# a comment

ClusterRole - bundler:node-turns 2026-12: nodes have narrower rights
Role\tkube-system\tbundler:node-turns\t2026-12: the same
ClusterRole - bundler:flannel 2026-12: flannel acts as its node
"""


def test_obsolete_objects_are_deleted_by_their_exact_names(run: Run, tmp_path: Path) -> None:
    (tmp_path / "etc/kubernetes/obsolete-objects").write_text(OBSOLETE)
    code, _, calls = run()
    assert code == 0
    deleted = [call.partition("--request-timeout=15s ")[2] for call in calls if "delete" in call]
    assert deleted == [
        "-n - delete ClusterRole bundler:node-turns bundler:flannel --ignore-not-found --wait=false",
        "-n kube-system delete Role bundler:node-turns --ignore-not-found --wait=false",
    ]


def test_obsolete_objects_are_deleted_after_the_new_ones_are_applied(
    run: Run, tmp_path: Path
) -> None:
    (tmp_path / "etc/kubernetes/obsolete-objects").write_text(OBSOLETE)
    _, _, calls = run()
    kinds = [
        "apply" if " apply " in call else "delete"
        for call in calls
        if "-n -" in call or " apply " in call
    ]
    assert kinds == ["apply", "delete"]


def test_a_failed_deletion_of_an_obsolete_object_is_tried_again(run: Run, tmp_path: Path) -> None:
    (tmp_path / "etc/kubernetes/obsolete-objects").write_text(OBSOLETE)
    code, said, calls = run(
        apply='case "$*" in *delete*) [ "$n" -gt 2 ] || { echo refused >&2; exit 1; } ;; esac'
    )
    assert code == 0
    objects = f"{tmp_path}/etc/kubernetes/obsolete-objects"
    assert f"waiting for the objects in {objects} to be deleted: refused" in said[1]
    names = [call.split()[6] for call in calls if "delete" in call]
    assert names == ["ClusterRole", "ClusterRole", "Role"]


@pytest.mark.parametrize(
    "row",
    [
        "ClusterRole - --all since",
        "ClusterRole - * since",
        "ClusterRole - a,b since",
        "ClusterRole,Role - a since",
        "ClusterRole/a - b since",
        "all kube-system a since",
        "--all kube-system a since",
        "Role --all-namespaces=true a since",
        "Role * a since",
        "ClusterRole -",
        "ClusterRole - a",
        "ClusterRole",
    ],
)
def test_a_row_that_does_not_name_one_object_deletes_nothing(
    run: Run, tmp_path: Path, row: str
) -> None:
    (tmp_path / "etc/kubernetes/obsolete-objects").write_text(f"{row}\n")
    code, said, calls = run()  # the stand-in of sleep ends the script at the 20th try
    assert code != 0
    assert "expected KIND NAMESPACE NAME SINCE" in said[-1]
    assert not any("delete" in call for call in calls)


FORMER = (
    "networking.k8s.io/v1 NetworkPolicy payments bundler-default-deny",
    "node.k8s.io/v1 RuntimeClass - kata",
)


def list_deleted(calls: list[str]) -> list[str]:
    found = [call.partition("--request-timeout=15s ")[2] for call in calls if " delete " in call]
    return [call.removesuffix(" --ignore-not-found --wait=false") for call in found]


def test_objects_that_left_the_manifests_are_deleted(run: Run) -> None:
    code, _, calls = run(labelled=print_rows([FORMER[0], *WANTED, FORMER[1]]))
    assert code == 0
    assert list_deleted(calls) == [
        "-n payments delete networkpolicies.networking.k8s.io bundler-default-deny",
        "-n - delete runtimeclasses.node.k8s.io kata",
    ]


def test_they_are_looked_for_once_after_each_change(run: Run, tmp_path: Path) -> None:
    """A control plane that starts again during a rollout keeps what a newer bundle has added."""
    run()
    _, _, calls = run(labelled=print_rows([*WANTED, *FORMER]))
    assert list_deleted(calls) == []
    _, _, calls = run(
        local=f"case $* in *go-template*) {print_rows(WANTED[:1])} ;; *) echo x ;; esac",
        labelled=print_rows(WANTED),
    )
    assert list_deleted(calls) == [
        "-n kube-system delete roles.rbac.authorization.k8s.io bundler:two"
    ]


def test_a_bundle_that_goes_back_deletes_what_the_newer_one_added(run: Run, tmp_path: Path) -> None:
    """The newer one was stopped after it had applied its manifests."""
    run()
    newer = f"case $* in *go-template*) {print_rows([*WANTED, *FORMER])} ;; *) echo x ;; esac"
    code, _, _ = run(local=newer, labelled="echo refused >&2; exit 1")
    assert code != 0
    for name in ("apply", "labelled", "local", "may", "readyz", "sleeps"):
        (tmp_path / name).unlink()
    code, _, calls = run(labelled=print_rows([*WANTED, *FORMER]))
    assert code == 0
    assert len(list_deleted(calls)) == len(FORMER)


@pytest.mark.parametrize(
    ("row", "stays"),
    [
        ("RuntimeClass.node.k8s.io - kata stay", True),
        ("RuntimeClass.node.k8s.io - kata -", True),
        ("RuntimeClass.example.com - kata -", False),
        ("RuntimeClass - kata -", False),
    ],
)
def test_an_object_that_an_addon_took_over_stays(
    run: Run, tmp_path: Path, row: str, *, stays: bool
) -> None:
    objects = tmp_path / "etc/kubernetes/site-addons/sandbox/objects.txt"
    objects.parent.mkdir(parents=True)
    objects.write_text(f"# KIND[.GROUP] NAMESPACE NAME\n{row}\n")
    _, _, calls = run(labelled=print_rows(FORMER))
    policy = "-n payments delete networkpolicies.networking.k8s.io bundler-default-deny"
    handler = "-n - delete runtimeclasses.node.k8s.io kata"
    assert list_deleted(calls) == ([policy] if stays else [policy, handler])


@pytest.mark.parametrize(
    "answer",
    ["echo refused >&2; exit 1", f"echo '{FORMER[1]}'; echo refused >&2; exit 1"],
)
def test_a_failed_question_deletes_nothing_and_is_asked_again(run: Run, answer: str) -> None:
    code, said, calls = run(labelled=f'[ "$n" -gt 1 ] || {{ {answer}; }}')
    assert code == 0
    assert any("to be deleted: refused" in line for line in said)
    assert list_deleted(calls) == []


@pytest.mark.parametrize(
    "row",
    [
        "v1 Namespace - payments",
        "v1 Pod kube-system web",
        "node.k8s.io/v1 RuntimeClass - kata more",
        "RuntimeClass - kata",
        "example.com/v1 RuntimeClass - kata",
        "RuntimeClass",
    ],
)
def test_other_kinds_and_other_lines_delete_nothing(run: Run, row: str) -> None:
    code, _, calls = run(labelled=print_rows([row]))
    assert code == 0
    assert list_deleted(calls) == []


def test_manifests_that_cannot_be_read_are_not_applied(run: Run) -> None:
    code, said, calls = run(local="echo 'error parsing x.yaml' >&2; exit 1")
    assert code != 0
    assert "error parsing x.yaml" in said[0]
    assert not any(" apply " in call for call in calls)
