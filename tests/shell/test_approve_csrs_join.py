"""approve-csrs.sh: a node joins once with its token; the record says so before its request is approved."""

import hashlib
import json
import re
import subprocess
import time
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from support.kubelet_requests import format_request, make_request, write_kubectl
from support.shells import TEMPLATES, Sh, link_parts

SCRIPT = TEMPLATES / "control-plane/rootfs/opt/k8s/libexec/approve-csrs.sh"
TOKENS = (
    "# NODE GENERATION ID END GROUP\n"
    "w1\t2\taaaaaa\t9999999999\tsystem:bootstrappers:w1\n"
    "w2\t1\taaaaab\t9999999999\tsystem:bootstrappers:w2\n"
    "10\t1\taaaaac\t9999999999\tsystem:bootstrappers:10\n"
    "gone\t3\t-\t-\t-\n"
)
CLIENT = '"kubernetes.io/kube-apiserver-client-kubelet"'
USAGES = '["digital signature""key encipherment""client auth"]'
JOINED = "w1 2026-01-01T00:00:00Z\n"


def ask(
    pem: bytes | None = None, *, node: str = "w1", user: str = '"system:bootstrap:aaaaaa"',
    groups: str = '["system:bootstrappers""system:bootstrappers:w1""system:authenticated"]',
    signer: str = CLIENT, usages: str = USAGES, name: str = '"csr-1"',
) -> str:  # fmt: skip
    """A pending request of a node that joins."""
    pem = pem or make_request(f"system:node:{node}", dns=(), addresses=())
    return format_request(pem, user=user, groups=groups, signer=signer, usages=usages, name=name)


PEM = make_request("system:node:w1", dns=(), addresses=())
PUBLIC = x509.load_pem_x509_csr(PEM).public_key()
KEY = hashlib.sha256(
    PUBLIC.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
).hexdigest()


class Site:
    """The files of a control plane, and a kubectl in place of the API server."""

    def __init__(self, sh: Sh, root: Path) -> None:
        self.sh, self.root = sh, root
        (root / "etc/kubernetes").mkdir(parents=True)
        link_parts(root)
        (root / "etc/kubernetes/nodes.tsv").write_text("w1\t192.0.2.1\n")
        (root / "etc/kubernetes/tokens.tsv").write_text(TOKENS)
        write_kubectl(root)

    def check(self, pending: str, *, record: str = "", nodes: str = "", broken: str = "") -> str:
        """Run one check; return what it printed."""
        self.put(pending=pending, record=f"7 uid-1\n{record}", nodes=nodes, broken=broken)
        self.put(approved="", patched="", deleted="", calls="")
        path = f"{self.root}/bin:/usr/sbin:/usr/bin:/sbin:/bin"
        done = self.sh(SCRIPT, "--once", DESTDIR=str(self.root), PATH=path)
        assert done.stderr == ""
        return done.stdout

    def put(self, **files: str) -> None:
        for name, text in files.items():
            (self.root / name).write_text(text)

    def read(self, name: str) -> str:
        return (self.root / name).read_text()

    @property
    def written(self) -> dict[str, str]:
        """What the record got."""
        found: dict[str, str] = {}
        for patch in re.findall(r"-p (\{.*\}\}) -o", self.read("patched")):
            document = json.loads(patch)
            assert document["metadata"] == {"resourceVersion": "7"}
            found |= document["data"]
        return found


@pytest.fixture
def site(sh: Sh, tmp_path: Path) -> Site:
    return Site(sh, tmp_path)


def test_a_node_with_its_own_token_is_recorded_and_then_approved(site: Site) -> None:
    assert site.check(ask(PEM)) == "approved csr-1: node w1 joins\n"
    assert site.written == {"w1": f"2 request csr-1 {KEY} -"}
    calls = site.read("calls")
    assert calls.index("patch configmap") < calls.index("certificate approve csr-1")


@pytest.mark.parametrize(
    "usages", [USAGES, '["digital signature""client auth"]', '["client auth""digital signature"]']
)
@pytest.mark.parametrize("signer", [CLIENT, "-"])
def test_without_a_signer_name_the_usages_decide(site: Site, signer: str, usages: str) -> None:
    site.check(ask(signer=signer, usages=usages))
    assert "approve csr-1" in site.read("approved")


REFUSED = [
    ("another node", ask(node="w2"), "its subject is CN=system:node:w2"),
    ("a node that is not planned", ask(node="w9"), "its subject is CN=system:node:w9"),
    ("an administrator", ask(make_request("system:node:w1", organization="system:masters", dns=(), addresses=())), "its subject is"),
    ("a name", ask(make_request("system:node:w1", dns=("w1",), addresses=())), "allowed is nothing but a subject"),
    ("an address", ask(make_request("system:node:w1", dns=())), "allowed is nothing but a subject"),
    ("a CA", ask(make_request("system:node:w1", dns=(), addresses=(), extra=x509.BasicConstraints(ca=True, path_length=None))), "allowed is nothing"),
    ("a token that is not planned", ask(user='"system:bootstrap:zzzzzz"'), "has no token of a planned node"),
    ("the token of a removed node", ask(user='"system:bootstrap:-"'), "has no token of a planned node"),
    ("a longer id", ask(user='"system:bootstrap:aaaaaab"'), "has no token of a planned node"),
    ("a pattern", ask(user='"system:bootstrap:aaaa.*"'), "has no token of a planned node"),
    ("a user", ask(user='"admin"'), "has no token of a planned node"),
    ("a service account", ask(user='"system:serviceaccount:default:x"'), "has no token of a planned node"),
    ("only the group of all tokens", ask(groups='["system:bootstrappers""system:authenticated"]'), "is not in the group system:bootstrappers:w1"),
    ("the group of another", ask(groups='["system:bootstrappers""system:bootstrappers:w2"]'), "is not in the group"),
    ("a group that contains the name", ask(groups='["x\\"system:bootstrappers:w1\\""]'), "is not in the group"),
    ("a usage more", ask(usages='["digital signature""client auth""server auth"]'), "usages other than client auth"),
    ("a usage less", ask(usages='["digital signature"]'), "the usage client auth is missing"),
    ("two blocks", ask(PEM + PEM), "not exactly one PEM block"),
    ("no request", ask(b"x"), "not exactly one PEM block"),
    ("a name with a line end", ask(name='"csr\\n1"'), "its name has other characters"),
    ("a name like an option", ask(name='"--all"'), "its name has other characters"),
    ("a name with a quote", ask(name='"a\\" \\"b"'), "its name has other characters"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("pending", "reason"), [case[1:] for case in REFUSED], ids=[case[0] for case in REFUSED]
)
def test_other_requests_stay_pending_and_change_nothing(
    site: Site, pending: str, reason: str
) -> None:
    said = site.check(pending)
    assert said.startswith("refused ")
    assert reason in said
    assert said.count("\n") == 1
    assert site.read("approved") == site.read("patched") == site.read("deleted") == ""


SPENT = [
    ("an earlier generation", "w1 1 request csr-0 KEY -", "approved csr-1: node w1 joins"),
    ("a revoked earlier one", "w1 1 revoked", "approved csr-1: node w1 joins"),
    ("the same key", f"w1 2 request csr-0 {KEY} -", "approved csr-1: node w1 joins"),
    ("another key", "w1 2 request csr-0 KEY -", "refused csr-1: the token of w1 was used by the request csr-0"),
    ("a revoked token", "w1 2 revoked", "refused csr-1: the token of w1 (generation 2) is revoked"),
    ("a node that joined before", "w1 2 joined", "refused csr-1: the node w1 has joined already"),
    ("a later generation", f"w1 3 request csr-0 {KEY} -", "refused csr-1: the token of w1 was used"),
    ("a generation with more digits", "w1 10 revoked", "refused csr-1: the token of w1"),
    ("of another node", "w10 9 revoked\n1 9 revoked\nw 9 revoked", "approved csr-1: node w1 joins"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("record", "said"), [case[1:] for case in SPENT], ids=[case[0] for case in SPENT]
)
def test_a_token_is_used_once(site: Site, record: str, said: str) -> None:
    assert site.check(ask(PEM), record=f"{record}\n").startswith(said)
    is_new = said.startswith("approved") and KEY not in record
    assert bool(site.written) is is_new


@pytest.mark.parametrize(
    ("broken", "reason"),
    [
        (" get configmap ", "cannot read the ConfigMap bundler-spent-tokens: no answer"),
        (" patch configmap ", "cannot write the ConfigMap bundler-spent-tokens: no answer"),
        (" get nodes ", "cannot read the Nodes: no answer"),
    ],
)
def test_without_an_answer_of_the_api_nobody_joins(site: Site, broken: str, reason: str) -> None:
    said = site.check(ask(), broken=broken)
    assert said.startswith(f"could not approve csr-1: {reason}\n")
    assert site.read("approved") == ""


def test_a_record_that_is_not_a_number_is_not_taken_for_none(site: Site) -> None:
    said = site.check(ask(), record="w2 ? joined\n")
    assert (
        "could not approve csr-1: the ConfigMap bundler-spent-tokens has no generation for w2"
        in said
    )
    assert site.read("approved") == ""


def test_a_node_that_joined_without_a_record_is_refused_and_recorded(site: Site) -> None:
    (site.root / "etc/kubernetes/tokens.tsv").write_text(TOKENS.replace("w1\t2", "w1\t1"))
    said = site.check(ask(), nodes=JOINED)
    assert said.startswith("refused csr-1: the node w1 has joined already; for a host")
    assert site.written == {"w1": "1 joined"}
    assert site.read("approved") == ""


def test_of_two_requests_with_one_token_only_the_first_is_approved(site: Site) -> None:
    said = site.check(ask(name='"one"') + ask(name='"two"'))
    assert said.splitlines() == [
        "refused two: another request with the token of w1 came first",
        "approved one: node w1 joins",
    ]
    assert site.written.keys() == {"w1"}


def test_requests_of_several_nodes_are_recorded_with_one_write(site: Site) -> None:
    second = ask(
        node="w2", name='"two"', user='"system:bootstrap:aaaaab"',
        groups='["system:bootstrappers""system:bootstrappers:w2"]',
    )  # fmt: skip
    said = site.check(ask(name='"one"') + second)
    assert said.splitlines() == ["approved one: node w1 joins", "approved two: node w2 joins"]
    assert site.written.keys() == {"w1", "w2"}
    assert site.read("patched").count("patch configmap") == 1


@pytest.mark.parametrize(
    ("record", "nodes", "is_deleted"),
    [
        ("", "", False),
        ("", JOINED, False),  # generation 2 was not used yet
        ("w1 1 joined\n", JOINED, False),
        ("w1 2 request csr-1 KEY -\n", "", False),
        ("w1 2 request csr-1 KEY -\n", JOINED, True),
        ("w1 2 request csr-1 KEY 2026-01-01T00:00:00Z\n", JOINED, False),
        ("w1 2 request csr-1 KEY 2025-01-01T00:00:00Z\n", JOINED, True),
        ("w1 2 joined\n", "", True),
        ("w1 2 revoked\n", "", True),
        ("w1 3 request csr-1 KEY -\n", "", True),
    ],
)
def test_a_token_is_deleted_when_its_node_has_lived_since(
    site: Site, record: str, nodes: str, is_deleted: bool
) -> None:
    site.check("", record=record, nodes=nodes)
    deleted = site.read("deleted")
    assert ("delete secret --ignore-not-found bootstrap-token-aaaaaa" in deleted) is is_deleted
    assert deleted.count("bootstrap-token-") == is_deleted


def test_many_tokens_are_deleted_in_turn_and_each_once(site: Site) -> None:
    rows = [f"n{n}\t1\tid{n:04}\t9999999999\tg" for n in range(120)]
    (site.root / "etc/kubernetes/tokens.tsv").write_text("\n".join([*rows, ""]))
    record = "".join(f"n{n} 1 joined\n" for n in range(120))
    site.put(pending="", record=f"7 uid-1\n{record}", nodes="", broken="", deleted="", calls="")
    with (site.root / "log").open("w") as log:
        process = subprocess.Popen(
            ["sh", SCRIPT], stdout=log, stderr=subprocess.STDOUT,
            env={
                "DESTDIR": str(site.root), "INTERVAL": "0.05",
                "PATH": f"{site.root}/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            },
        )  # fmt: skip
    end = time.monotonic() + 60
    while (
        site.read("looks").count("\n") < 6 or site.read("deleted").count("bootstrap-token-") < 120
    ):
        assert time.monotonic() < end
        time.sleep(0.1)
    process.terminate()
    assert process.wait(10) == 0
    found = re.findall(r"bootstrap-token-(\w+)", site.read("deleted"))
    assert sorted(found) == [f"id{n:04}" for n in range(120)]
    # the record is not read any more when no token is left
    assert site.read("calls").count("get configmap") == 3


def test_a_failed_deletion_is_reported_and_tried_again(site: Site) -> None:
    said = site.check("", record="w1 2 joined\n", broken=" delete secret ")
    assert said == "cannot delete tokens of nodes that have joined: no answer\n"


@pytest.mark.parametrize(
    ("kept", "written"),
    [
        (
            "uid-1\nw1 2 request csr-0 KEY -\nw2 1 joined\n",
            {"w1": "2 request csr-0 KEY -", "w2": "1 joined"},
        ),
        ("uid-1\nw1 1 joined\nw2 1 joined\n", {"w2": "1 joined"}),
        ('uid-1\nw1 2 a"b\n', {"w1": "2 revoked"}),
        ("uid-0\nw1 2 joined\n", {}),  # of a cluster that was here before
        ("", {}),
    ],
)
def test_after_a_restore_the_control_plane_corrects_the_record(
    site: Site, kept: str, written: dict[str, str]
) -> None:
    directory = site.root / "var/lib/kube-csr-approver"
    directory.mkdir(parents=True)
    (directory / "spent-tokens").write_text(kept)
    said = site.check("", record="w1 1 request csr KEY -\n")
    assert site.written == written
    assert ("the record is older than this control plane's" in said) is bool(written)


def test_the_control_plane_keeps_a_copy_of_the_record(site: Site) -> None:
    (site.root / "var/lib").mkdir(parents=True)
    site.check("", record="w1 2 joined\n")
    copy = site.root / "var/lib/kube-csr-approver/spent-tokens"
    assert copy.read_text() == "uid-1\nw1 2 joined\n"
    assert copy.parent.stat().st_mode & 0o777 == 0o700


def test_what_requesters_choose_is_printed_as_it_is(site: Site) -> None:
    said = site.check(ask(user='"admin\\nrefused csr-2: x\\c"'))
    assert said.startswith(
        'refused csr-1: the requester "admin\\nrefused csr-2: x\\c" has no token'
    )
    assert said.count("\n") == 1
