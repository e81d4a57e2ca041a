"""The keys of tokens and Secrets, and all bootstrap tokens, are replaced under load; install.sh is killed on the way."""

import base64
import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import pytest
import yaml
from support.killed_installs import plant_killer
from support.lab import FIGURES, Cluster, Host, build, side_by_side, wait_for
from support.load import Api, Load, open_api, under_load
from support.rotations import Stages, renew_service_accounts

pytestmark = pytest.mark.long

SECRETS = 10_000
NAMESPACE = "vault"
WRITE = f"""
mkdir /tmp/bulk && cd /tmp/bulk
awk 'BEGIN {{
    for (i = 0; i < {SECRETS}; i++)
        printf "---\\napiVersion: v1\\nkind: Secret\\nmetadata: {{{{name: s%d, namespace: {NAMESPACE}}}}}\\nstringData: {{{{number: \\"%d\\"}}}}\\n",
            i, i >(i % 40 ".yaml")
}}'
ls | xargs -P 10 -n 1 /opt/k8s/bin/kubectl --kubeconfig /etc/kubernetes/admin.kubeconfig create -f >/dev/null
rm -rf /tmp/bulk
""".replace("{{", "{").replace("}}", "}")
POINTS = (
    # program, only with these arguments, at which call, before the kill
    ("cp", ".bundler-new", 1, 'head -c 10 /dev/zero >"$(eval echo \\${$#})${1##*/}";'),
    ("mv", ".bundler-new", 1, ""),
    ("systemctl", " restart ", 1, ""),
)
"""Where install.sh is killed, one point for each control plane."""


def ask_for_secrets(api: Api) -> Callable[[int], None]:
    """Make a client that reads one Secret after another, and changes it."""

    def ask(number: int) -> None:
        name = f"s{number * 7 % SECRETS}"
        path = f"/api/v1/namespaces/{NAMESPACE}/secrets/{name}"
        status, answer = api.call("GET", path)
        assert status == 200, answer[:200]
        secret = json.loads(answer)
        assert base64.b64decode(secret["data"]["number"]).decode() == name.removeprefix("s")
        secret["data"]["round"] = base64.b64encode(str(number).encode()).decode()
        status, answer = api.call("PUT", path, secret)
        # 409: kube-rotation.service wrote it in between
        assert status in {200, 409}, answer[:200]

    return ask


@dataclass
class Keys(Stages):
    """The cluster with 10,000 Secrets, and its clients."""

    api: Api
    done: int = 0
    failures: list[tuple[float, str]] = field(default_factory=list)

    @contextmanager
    def working(self) -> Iterator[None]:
        loads = (Load(self.api.write_and_read), Load(ask_for_secrets(self.api)))
        with under_load(*loads):
            yield
        for load in loads:
            self.done += load.done
            self.failures += load.failures

    def rotate(self, name: str, *command: str) -> None:
        self.build(name, *command)
        hosts = self.cluster.masters
        side_by_side(
            lambda place: self.kill_then_install(name, *place), zip(hosts, POINTS, strict=True)
        )

    def kill_then_install(self, name: str, host: Host, point: tuple[str, str, int, str]) -> None:
        """Kill install.sh at this point; the next run completes it."""
        plant_killer(host, *point)
        command = f"{self.command(name, host)} --wait 10m"
        killed = host.run(f"PATH=/tmp/killers:$PATH {command}", check=False, timeout=900)
        assert killed.returncode == 137, f"{name}, {host.name}: not killed\n{killed.stdout}"
        host.run(f"rm -rf /tmp/killers; {command}", timeout=900)

    def count_under(self, key: str) -> int:
        """How many Secrets etcd holds under that key."""
        return int(
            self.cluster.masters[0].output(
                "set -a; . /opt/k8s/bundle/node.env; p=/etc/kubernetes/pki; ETCDCTL_API=3 /opt/k8s/bin/etcdctl"
                " --endpoints=https://127.0.0.1:2379 --cacert=$p/etcd-ca.crt --cert=$p/apiserver-etcd-client.crt"
                " --key=$p/apiserver-etcd-client.key get /registry/secrets/ --prefix --print-value-only |"
                f" grep -aco '^k8s:enc:aescbc:v1:{key}:' || :"
            )
        )


@pytest.fixture(scope="module")
def keys(running: Cluster, product_cache: object) -> Iterator[Keys]:
    cluster = running
    made = Keys(cluster=cluster, cache=product_cache, dist=cluster.dist, api=open_api(cluster))  # type: ignore[arg-type]
    cluster.kubectl(f"create namespace {NAMESPACE}")
    cluster.masters[0].run(WRITE, timeout=900)
    yield made
    cluster.kubectl(f"delete namespace {NAMESPACE} --wait=false")


def read_key_line(keys: Keys) -> tuple[str, str]:
    """The name and the content of the encryption key."""
    words = (keys.state / "encryption-key").read_text().split()
    return (words[0], words[1]) if len(words) == 2 else ("key1", words[0])


def holds(host: Host, needle: str) -> str:
    """Files of the host with this text, without bundles that the test brought."""
    host.run(f"printf '%s' '{needle}' >/root/needle")
    return host.output("grep -rlF -f /root/needle /etc /opt /run /var/lib/bundler /var/log || :")


def test_the_encryption_key_is_replaced(keys: Keys) -> None:
    masters = keys.cluster.masters
    name, secret = read_key_line(keys)
    assert keys.count_under(name) >= SECRETS
    start = time.monotonic()
    with keys.working():
        keys.rotate("read", "secrets", "rotate", "read")
        keys.rotate("write", "secrets", "rotate", "write")
        for share in (0.8, 0.5, 0.2):
            wait_for(
                f"{share:.0%} are left",
                lambda share=share: keys.count_under(name) <= SECRETS * share,  # type: ignore[misc]
                seconds=400,
            )
            side_by_side(lambda host: host.run("systemctl kill -s KILL kube-rotation"), masters)
        wait_for("every Secret is written again", lambda: not keys.count_under(name), seconds=600)
        keys.rotate("drop-key", "secrets", "rotate", "drop")
        time.sleep(5)
    FIGURES.append(
        f"encryption key replaced on three control planes with {SECRETS} Secrets, with nine kills of install.sh and three"
        f" of each kube-rotation: {time.monotonic() - start:.0f} s, {len(keys.failures)} of {keys.done} requests failed"
    )
    assert keys.failures == []
    for host in masters:
        assert holds(host, secret) == ""
        done = host.run("/opt/k8s/bundle/verify.sh --only secret-keys", check=False)
        assert done.returncode == 0, done.stdout


def request_token(keys: Keys) -> str:
    path = "/api/v1/namespaces/default/serviceaccounts/default/token"
    body = {
        "apiVersion": "authentication.k8s.io/v1",
        "kind": "TokenRequest",
        "spec": {"expirationSeconds": 7200},
    }
    status, answer = keys.api.call("POST", path, body)
    assert status == 201, answer[:200]
    return str(json.loads(answer)["status"]["token"])


def is_known(host: Host, token: str) -> bool:
    """Whether the API server of this host accepts the token."""
    host.run(f"umask 077; printf 'Authorization: Bearer %s' '{token}' >/root/token")
    answer = host.output(
        "curl -sS -o /dev/null -w '%{http_code}' --cacert /etc/kubernetes/pki/ca.crt -H @/root/token"
        f" https://{host.address}:6443/api/v1/namespaces/default/pods; rm /root/token"
    )
    assert answer in {"401", "403"}, answer  # it has no rights, so 403 is an accepted token
    return answer == "403"


def test_the_key_of_service_account_tokens_is_replaced(keys: Keys) -> None:
    cluster, masters = keys.cluster, keys.cluster.masters
    line = (keys.state / "pki/service-account/key.pem").read_text().splitlines()[1]
    token, before = request_token(keys), len(keys.failures)
    start = time.monotonic()
    with keys.working():
        keys.rotate("trust", "certs", "rotate", "trust", "--only", "service-account")
        keys.rotate("issue", "certs", "rotate", "issue")
        assert all(is_known(host, token) for host in masters)
        renew_service_accounts(cluster)
        keys.rotate("drop-sa", "certs", "rotate", "drop")
        time.sleep(5)
    FIGURES.append(
        "key of service account tokens replaced on three control planes, with nine kills of install.sh:"
        f" {time.monotonic() - start:.0f} s, {len(keys.failures) - before} requests failed"
    )
    assert keys.failures == []
    new = request_token(keys)
    for host in masters:
        assert not is_known(host, token)
        assert is_known(host, new)
        assert holds(host, line) == ""


def read_tokens(host: Host) -> set[str]:
    """The bootstrap tokens that the control plane keeps in the cluster."""
    tree = host.output("cat /etc/kubernetes/bootstrap-tokens.yaml")
    found = (one.get("stringData") for one in yaml.safe_load_all(tree) if one)
    return {f"{one['token-id']}.{one['token-secret']}" for one in found if one}


def test_all_bootstrap_tokens_are_replaced(keys: Keys) -> None:
    masters, seen = keys.cluster.masters, [read_tokens(keys.cluster.masters[0])]
    with keys.working():
        for number in (1, 2, 3):  # nobody joins with the first and second ones
            keys.rotate(f"tokens{number}", "tokens", "renew", "--all")
            seen.append(read_tokens(masters[0]))
            for token in seen[-1]:
                wait_for(
                    "the new token is known",
                    lambda token=token: is_known(masters[0], token),
                    seconds=60,
                )  # type: ignore[misc]
            for token in set().union(*seen[:-1]):
                wait_for(
                    "the former token is revoked",
                    lambda token=token: not is_known(masters[0], token),
                    seconds=60,
                )  # type: ignore[misc]
    assert keys.failures == []
    former = set().union(*seen[:-1])
    assert len(former) == 3 * len(keys.cluster.workers)
    for host in masters:
        assert not any(is_known(host, token) for token in former)
        assert all(is_known(host, token) for token in seen[-1])


def test_a_full_bundle_of_the_new_state_changes_nothing_more(keys: Keys) -> None:
    """Later tests need dist/ to hold what is installed."""
    cluster = keys.cluster
    build(cluster.directory / "examples" / "lab.yaml", cluster.dist, cache=keys.cache)
    for host in cluster.hosts.values():
        directory = host.unpack(cluster.bundle(host))
        host.run(f"{directory}/install.sh --wait 10m", timeout=900)
        assert host.output(f"{directory}/install.sh").strip() == f"{host.name}: nothing to do"
    wait_for("verify.sh is green", lambda: cluster.verify().returncode == 0, seconds=240)
