"""apply-addons.sh: tokens with which nodes may join exist in the cluster, and no others."""

import json
import re
import time
from pathlib import Path

import pytest
from support.kubelet_requests import write_kubectl
from support.shells import TEMPLATES, Sh, link_parts

LIBEXEC = TEMPLATES / "control-plane/rootfs/opt/k8s/libexec"
NOW = int(time.time())
LATER = NOW + 86400
SECRET = """\
---
# Only {node} joins with this token.
apiVersion: v1
kind: Secret
metadata:
  name: bootstrap-token-{token}
stringData:
  token-secret: "secret-of-{node}"
"""


class Site:
    """The files of a control plane, and a kubectl in place of the API server."""

    def __init__(self, sh: Sh, root: Path) -> None:
        self.sh, self.root = sh, root
        (root / "etc/kubernetes").mkdir(parents=True)
        link_parts(root)
        write_kubectl(root)
        text = (root / "bin/kubectl").read_text()
        added = """    *" apply "*) cat >>applied; echo "secret/x created"; [ ! -f later ] || cat later >record ;;
    *" get secrets "*) cat existing ;;
    *" delete "*) echo "$*" >>deleted ;;
"""
        (root / "bin/kubectl").write_text(text.replace("    *) cat pending", f"{added}    *) cat pending"))  # fmt: skip
        self.plan(
            ("w1", 1, "aaaaaa", LATER), ("w2", 2, "aaaaab", LATER), ("w3", 1, "aaaaac", NOW - 5)
        )
        (root / "etc/kubernetes/revoked-tokens").write_text("# heading\nbootstrap-token-oldold\n")

    def plan(self, *rows: tuple[str, int, str, int | str]) -> None:
        """Write tokens.tsv and the Secrets of the bundle."""
        lines = ["# heading", *("\t".join(map(str, (*row, f"g:{row[0]}"))) for row in rows)]
        (self.root / "etc/kubernetes/tokens.tsv").write_text("\n".join([*lines, ""]))
        secrets = [SECRET.format(node=row[0], token=row[2]) for row in rows if row[2] != "-"]
        (self.root / "etc/kubernetes/bootstrap-tokens.yaml").write_text("".join(secrets))

    def sync(self, record: str = "", *, code: int = 0, **files: str) -> str:
        """Run sync_tokens; return what it printed."""
        defaults = {
            "record": f"7 uid-1\n{record}",
            "nodes": "",
            "existing": "",
            "applied": "",
            "calls": "",
        }
        defaults |= {"patched": "", "deleted": "", "broken": ""}
        for name, text in (defaults | files).items():
            (self.root / name).write_text(text)
        text = (LIBEXEC / "apply-addons.sh").read_text()
        script = self.root / "sync.sh"
        script.write_text(
            re.sub(r"^here=.*$", f"here={LIBEXEC}", text, flags=re.MULTILINE).replace(
                'main "$@"', "sync_tokens"
            )
        )
        path = f"{self.root}/bin:/usr/bin:/bin"
        done = self.sh(script, DESTDIR=str(self.root), PATH=path)
        assert (done.returncode, done.stderr) == (code, ""), done.stdout
        return done.stdout

    def read(self, name: str) -> str:
        return (self.root / name).read_text()

    @property
    def applied(self) -> list[str]:
        return re.findall(r"name: bootstrap-token-(\w+)", self.read("applied"))

    @property
    def deleted(self) -> list[str]:
        return re.findall(r"bootstrap-token-(\w+)", self.read("deleted"))

    @property
    def written(self) -> dict[str, str]:
        found: dict[str, str] = {}
        for patch in re.findall(r"-p (\{.*\}\}) -o", self.read("patched")):
            document = json.loads(patch)
            assert document["metadata"] == {"resourceVersion": "7"}
            found |= document["data"]
        return found


@pytest.fixture
def site(sh: Sh, tmp_path: Path) -> Site:
    return Site(sh, tmp_path)


def list_secrets(*tokens: str) -> str:
    return "".join(f"secret/bootstrap-token-{token}\n" for token in tokens)


def test_tokens_that_may_be_used_are_created(site: Site) -> None:
    said = site.sync()
    assert site.applied == ["aaaaaa", "aaaaab"]  # w3's has ended
    assert 'token-secret: "secret-of-w1"' in site.read("applied")
    assert "secret-of" not in said + site.read("calls")
    assert "secret/x created" in said


def test_former_generations_are_revoked_before_the_tokens_are_created(site: Site) -> None:
    site.plan(("w1", 1, "aaaaaa", LATER), ("w2", 3, "aaaaab", LATER), ("gone", 2, "-", "-"))
    site.sync("w2 1 request csr KEY -\n")
    assert site.written == {"w2": "2 revoked", "gone": "2 revoked"}
    calls = site.read("calls")
    assert calls.index("patch configmap") < calls.index(" apply ")


def test_what_is_revoked_already_is_not_written_again(site: Site) -> None:
    site.plan(("w2", 3, "aaaaab", LATER), ("gone", 2, "-", "-"))
    site.sync("w2 2 request csr KEY -\ngone 2 joined\n")
    assert site.written == {}
    assert site.applied == ["aaaaab"]


@pytest.mark.parametrize(
    "record",
    ["w1 1 request csr KEY -", "w1 1 joined", "w1 1 revoked", "w1 2 revoked", "w1 10 joined"],
)
def test_a_token_that_is_spent_is_not_created_again(site: Site, record: str) -> None:
    site.sync(f"{record}\nw2 1 revoked\n")
    assert site.applied == ["aaaaab"]


def test_a_node_that_joined_without_a_record_gets_no_token(site: Site) -> None:
    site.sync(nodes="w1 2026-01-01T00:00:00Z\n")
    assert site.written["w1"] == "1 joined"


def test_revoked_tokens_are_deleted_if_they_exist(site: Site) -> None:
    site.sync(existing=list_secrets("other1", "oldold", "aaaaaa"))
    assert site.deleted == ["oldold"]
    site.sync(existing=list_secrets("other1"))
    assert site.deleted == []


def test_spent_tokens_are_deleted_when_no_kubelet_needs_them(site: Site) -> None:
    existing = list_secrets("aaaaaa", "aaaaab")
    site.sync("w1 1 request csr KEY -\nw2 2 revoked\n", existing=existing)
    assert site.deleted == ["aaaaab"]
    nodes = "w1 2026-01-01T00:00:00Z\n"
    site.sync("w1 1 request csr KEY -\nw2 1 revoked\n", existing=existing, nodes=nodes)
    assert site.deleted == ["aaaaaa"]


def test_a_token_that_was_revoked_while_it_was_created_is_deleted(site: Site) -> None:
    site.sync(
        "w2 1 revoked\n",
        later="8 uid-1\nw1 1 revoked\nw2 1 revoked\n",
        existing=list_secrets("aaaaaa"),
    )
    assert "aaaaaa" in site.applied
    assert site.deleted == ["aaaaaa"]


@pytest.mark.parametrize(
    ("broken", "reason"),
    [
        (" get configmap ", "cannot read the ConfigMap bundler-spent-tokens: no answer"),
        (" patch configmap ", "cannot write the ConfigMap bundler-spent-tokens: no answer"),
        (" get nodes ", "cannot read the Nodes: no answer"),
        (" apply ", "no answer"),
        (" get secrets ", "no answer"),
    ],
)
def test_an_api_that_does_not_answer_is_asked_again(site: Site, broken: str, reason: str) -> None:
    said = site.sync(broken=broken, code=1)
    assert said.splitlines()[-1] == reason
    assert site.deleted == []
    if broken in {" get configmap ", " get nodes "}:
        assert site.applied == []


def test_a_cluster_without_workers_needs_no_token(site: Site) -> None:
    site.plan()
    site.sync()
    assert site.applied == []
    assert site.written == {}
