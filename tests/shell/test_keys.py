"""Keys of API servers: their ids, what etcd and tokens say about them, and which generations keep former ones."""

import base64
import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa, utils
from support.shells import TEMPLATES, Sh, write_program
from support.trees import Trees

from bundler.pki import issuing
from bundler.pki.service_account import make_key_id

LIB = TEMPLATES / "common/lib"
HEAD = f"""
set -u
. {LIB}/core/common.sh; . {LIB}/coordination/keys.sh
here=$1 work=$2 prefix=$2
shift 2
"""
CONFIG = """\
apiVersion: apiserver.config.k8s.io/v1
kind: EncryptionConfiguration
resources:
  - resources:
      - secrets
    providers:
      - secretbox:
          keys:
            - name: key-20261229T050607Z
              secret: bmFtZTogbm8=
            - name: key1
              secret: YQ==
      - aescbc:
          keys:
            - name: key-20261229T050607Z
              secret: bmFtZTogbm8=
            - name: key1
              secret: YQ==
      - identity: {}
"""
Run = Callable[..., list[str]]


@pytest.fixture
def run(sh: Sh, tmp_path: Path) -> Run:
    """Run functions of keys.sh; returns the lines that they print."""

    def start(text: str, *arguments: str) -> list[str]:
        script = tmp_path / "script.sh"
        script.write_text(HEAD + text)
        done = sh(
            script, str(TEMPLATES / "common"), str(tmp_path), *arguments,
            PATH=f"{tmp_path}/bin:/usr/bin:/bin",
        )  # fmt: skip
        assert done.stderr == ""
        return done.stdout.splitlines()

    return start


def write_keys(directory: Path, kind: str, count: int) -> list[issuing.PrivateKey]:
    keys = [issuing.make_key(kind) for _ in range(count)]  # type: ignore[arg-type]
    (directory / "pki").mkdir()
    (directory / "pki/sa.key").write_bytes(issuing.encode_private_key(keys[0]))
    public = b"".join(issuing.encode_public_key(key.public_key()) for key in keys)
    (directory / "pki/sa.pub").write_bytes(public)
    return keys


def id_of(key: issuing.PrivateKey) -> str:
    return make_key_id(issuing.encode_public_key(key.public_key()))


@pytest.mark.parametrize("kind", ["ecdsa-p256", "rsa-2048"])
def test_hosts_read_the_ids_that_the_builder_writes(run: Run, tmp_path: Path, kind: str) -> None:
    first, second = write_keys(tmp_path, kind, 2)
    (tmp_path / "encryption-config.yaml").write_text(CONFIG)
    names = [f"{p}:{k}" for p in ("secretbox", "aescbc") for k in ("key-20261229T050607Z", "key1")]
    assert run(f"print_key_ids {tmp_path}") == [
        f"TOKENS_SIGNED_WITH='{id_of(first)}'",
        f"TOKENS_ACCEPTED='{id_of(first)} {id_of(second)}'",
        f"SECRETS_WRITTEN_WITH='{names[0]}'",
        f"SECRETS_READ_WITH='{' '.join(names)}'",
    ]


def test_the_plugin_of_a_key_management_service_is_an_id_too(run: Run, tmp_path: Path) -> None:
    write_keys(tmp_path, "ecdsa-p256", 1)
    providers = [
        {"kms": {"apiVersion": "v2", "name": "vault", "endpoint": "unix:///x.sock", "timeout": "3s"}},
        {"aescbc": {"keys": [{"name": "key1", "secret": "c2VjcmV0"}]}}, {"identity": {}},
    ]  # fmt: skip
    config = {
        "apiVersion": "apiserver.config.k8s.io/v1", "kind": "EncryptionConfiguration",
        "resources": [{"resources": ["secrets"], "providers": providers}],
    }  # fmt: skip
    (tmp_path / "encryption-config.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
    said = run(f"print_key_ids {tmp_path}")
    assert said[2:] == [
        "SECRETS_WRITTEN_WITH='kms:vault'", "SECRETS_READ_WITH='kms:vault aescbc:key1'",
    ]  # fmt: skip


def test_a_rendered_bundle_says_the_ids_of_its_own_files(run: Run, trees: Trees) -> None:
    bundle = trees / "master1"
    said = (bundle / "state.env").read_text().splitlines()
    found = run(f"print_key_ids {bundle}/rootfs/etc/kubernetes")
    assert len(found) == 4
    assert set(found) <= set(said)


def make_page(pairs: dict[str, bytes], *, more: bool = False) -> str:
    items = [
        {
            "key": base64.b64encode(key.encode()).decode(), "create_revision": 12, "mod_revision": 345678,
            "version": 1, "value": base64.b64encode(value).decode(),
        }
        for key, value in pairs.items()
    ]  # fmt: skip
    document: dict[str, object] = {"header": {"cluster_id": 1, "revision": 9}, "kvs": items}
    return json.dumps(
        document | ({"more": True} if more else {}) | {"count": 9}, separators=(",", ":")
    )


SCAN = "list_secrets_by_key fake && echo complete || echo failed"


def write_etcd(tmp_path: Path, *pages: str) -> None:
    """An etcdctl that answers with these pages, one after another."""
    for number, page in enumerate(pages, 1):
        (tmp_path / f"page{number}").write_text(page)
    write_program(
        tmp_path / "bin/fake",
        f"""echo "$2" >>{tmp_path}/asked; cat {tmp_path}/page$(($(wc -l <{tmp_path}/asked)))""",
    )


def test_configmaps_are_listed_after_secrets_where_they_are_encrypted(
    run: Run, tmp_path: Path
) -> None:
    write_etcd(
        tmp_path,
        make_page({"/registry/secrets/default/a": b"k8s:enc:kms:v2:vault:x"}),
        make_page({"/registry/configmaps/default/b": b"k8s:enc:aescbc:v1:key1:x"}, more=True),
        make_page({"/registry/configmaps/kube-system/c": b"k8s\x00plain"}),
    )
    said = run(f"ENCRYPTED_RESOURCES='secrets configmaps'; {SCAN}")
    assert said == [
        "kms:vault default/a", "aescbc:key1 default/b configmaps", "plain kube-system/c configmaps", "complete",
    ]  # fmt: skip
    asked = (tmp_path / "asked").read_text().split()
    assert asked == [
        "/registry/secrets/",
        "/registry/configmaps/",
        "/registry/configmaps/default/b!",
    ]


def test_the_key_of_each_secret_is_read_from_etcd(run: Run, tmp_path: Path) -> None:
    noise = os.urandom(3000)
    write_etcd(
        tmp_path,
        make_page({
            "/registry/secrets/default/a": b"k8s:enc:aescbc:v1:key1:" + noise,
            "/registry/secrets/default/b": b"k8s:enc:secretbox:v1:key-20261229T050607Z:" + noise,
        }, more=True),
        make_page({
            "/registry/secrets/kube-system/plain.text": b"k8s\x00\n\x0c\n\x02v1 k8s:enc:aescbc:v1:key1:" + noise,
            "/registry/secrets/kube-system/json": b'{"kind":"Secret","value":"k8s:enc:aescbc:v1:key1:"}',
            "/registry/secrets/kube-system/short": b"k8s:enc:aescbc:v1",
        }),
    )  # fmt: skip
    assert run(SCAN) == [
        "aescbc:key1 default/a",
        "secretbox:key-20261229T050607Z default/b",
        "plain kube-system/plain.text",
        "plain kube-system/json",
        "plain kube-system/short",
        "complete",
    ]
    asked = (tmp_path / "asked").read_text().split()
    assert asked == ["/registry/secrets/", "/registry/secrets/default/b!"]


def test_an_etcd_without_secrets_has_none(run: Run, tmp_path: Path) -> None:
    write_etcd(tmp_path, '{"header":{"cluster_id":1,"revision":9}}')
    assert run(SCAN) == ["complete"]


@pytest.mark.parametrize(
    "page",
    [
        '{"header":{},"kvs":[{"key":"!!!","value":"YQ=="}]}',
        '{"header":{},"kvs":[{"key":"L290aGVyL2tleQ==","value":"YQ=="}]}',  # /other/key
        '{"header":{},"kvs":[{"key":"L3JlZ2lzdHJ5L3NlY3JldHMvYS9i"}]}',  # no value
        '{"header":{},"more":true,"count":9}',
    ],
)
def test_an_answer_that_cannot_be_read_is_no_answer(run: Run, tmp_path: Path, page: str) -> None:
    write_etcd(tmp_path, page)
    assert run(SCAN)[-1] == "failed"


def test_a_failing_etcdctl_is_no_answer(run: Run, tmp_path: Path) -> None:
    write_program(tmp_path / "bin/fake", "exit 1")
    assert run(SCAN) == ["failed"]


def sign(key: issuing.PrivateKey, name: str, *, kid: bool) -> str:
    """A service account token as Kubernetes signs it; before 1.16 it does not name its key."""
    is_rsa = isinstance(key, rsa.RSAPrivateKey)
    header = {"alg": "RS256" if is_rsa else "ES256"} | ({"kid": id_of(key)} if kid else {})
    parts = [json.dumps(part, separators=(",", ":")).encode() for part in (header, {"sub": name})]
    text = ".".join(base64.urlsafe_b64encode(part).decode().rstrip("=") for part in parts)
    if isinstance(key, rsa.RSAPrivateKey):
        signature = key.sign(text.encode(), padding.PKCS1v15(), hashes.SHA256())
    else:
        der = key.sign(text.encode(), ec.ECDSA(hashes.SHA256()))
        numbers = utils.decode_dss_signature(der)
        signature = b"".join(number.to_bytes(32, "big") for number in numbers)
    return f"{text}.{base64.urlsafe_b64encode(signature).decode().rstrip('=')}"


@pytest.mark.parametrize("kind", ["ecdsa-p256", "rsa-2048"])
@pytest.mark.slow
def test_tokens_of_a_key_are_found_by_its_id_or_by_their_signature(
    run: Run, tmp_path: Path, kind: str
) -> None:
    old, new = write_keys(tmp_path, kind, 2)
    other = issuing.make_key(kind)  # type: ignore[arg-type]
    names = [f"s{number}" for number in range(12)]
    rows = [("kid-old", sign(old, "a", kid=True)), ("kid-new", sign(new, "b", kid=True))]
    rows += [(f"old-{name}", sign(old, name, kid=False)) for name in names]
    rows += [("new", sign(new, "c", kid=False)), ("other", sign(other, "d", kid=False))]
    rows += [("empty", ""), ("garbage", "x"), ("broken", "a.b.c")]
    (tmp_path / "tokens.txt").write_text(
        "".join(f"default {name} {token}\n" for name, token in rows)
    )
    write_program(tmp_path / "bin/kubectl", f"cat {tmp_path}/tokens.txt")
    found = run(f"ADDRESS=a API_PORT=1\nlist_tokens_of {tmp_path}/pki/sa.pub '{id_of(old)}'")
    assert found == ["default kid-old", *(f"default old-{name}" for name in names)]
    found = run(f"ADDRESS=a API_PORT=1\nlist_tokens_of {tmp_path}/pki/sa.pub '{id_of(new)} '")
    assert found == ["default kid-new", "default new"]
    assert not (tmp_path / "tokens").exists()


PRUNE = """
. {lib}/transaction/files.sh; . {lib}/transaction/generations.sh
store=$work/store generations=$work/store/generations to=4
prune_untrusted_generations
"""


def test_generations_with_former_keys_are_pruned(run: Run, tmp_path: Path) -> None:
    rows = {
        "1": "TOKENS_ACCEPTED='old'\nSECRETS_READ_WITH='aescbc:k2'\n",
        "2": "TOKENS_ACCEPTED='new old'\n",
        "3": "TOKENS_ACCEPTED='new'\nSECRETS_READ_WITH='aescbc:k2 aescbc:k1'\n",
        "4": "TOKENS_ACCEPTED='new'\nSECRETS_READ_WITH='aescbc:k2'\n",
        "5": "TOKENS_ACCEPTED='new'\nSECRETS_READ_WITH='aescbc:k2'\n",
        "6": "",  # of an earlier version
    }
    for number, text in rows.items():
        directory = tmp_path / "store/generations" / number
        directory.mkdir(parents=True)
        (directory / "state").write_text("healthy 2026\n")
        (directory / "state.env").write_text(f"AUTHORITIES_BELIEVED='-'\n{text}")
    assert run(PRUNE.format(lib=LIB)) == []
    assert sorted(os.listdir(tmp_path / "store/generations")) == ["4", "5", "6"]


@pytest.mark.parametrize(
    ("rows", "minutes"),
    [
        ([], None),
        (["a/a 2026-01-01T00:00:00Z 3607"], 52),  # 80 % and three minutes
        (["a/a 2026-01-01T00:00:00Z 86400000"], 1443),  # a day at most
        (["a/a 2026-01-02T00:00:01Z 3607", "a/b - 3607"], None),  # started later, or not yet
        (["a/a 2026-01-01T00:00:00Z 3607", "a/b 2026-01-01T00:00:00Z 7200"], 99),
    ],
)
def test_pods_keep_a_token_until_the_kubelet_renews_it(
    tmp_path: Path, rows: list[str], minutes: int | None
) -> None:
    (tmp_path / "rows").write_text("".join(f"{row}\n" for row in rows))
    since = 1767312000  # 2026-01-02
    for later, expected in ((0, minutes), ((minutes or 0) * 60, None)):
        done = subprocess.run(
            [
                "awk", "-v", f"now={since + later}", "-v", f"since={since}", "-v", "time=2026-01-02T00:00:00Z",
                "-f", LIB / "coordination/pod-tokens.awk", tmp_path / "rows",
            ],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == (1 if expected is None else 0)
        assert (f"within {expected} minutes" in done.stdout) is (expected is not None)


def test_with_a_profile_only_the_own_controller_manager_is_asked(run: Run, tmp_path: Path) -> None:
    write_program(
        tmp_path / "bin/etcdctl", 'case "$*" in *managers/two*) echo 17.25 ;; *) exit 1 ;; esac\n'
    )
    stub = """
kube_at() { echo "process_start_time_seconds ${1##*.}$2"; }
NODE=one ETCD_ENDPOINTS=https://127.9.9.1:2379
for name in one two three; do printf '%s %s\\n' "$name" "$(print_manager_start "$name" 127.9.9.8)"; done
"""
    assert run(stub) == ["one 810257.00", "two 810257.00", "three 810257.00"]
    assert run(f"MANAGERS_AT=127.0.0.1{stub}") == ["one 110257.00", "two 17.25", "three "]
