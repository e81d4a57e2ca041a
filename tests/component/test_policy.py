"""The policy keys act: a real API server with all of them asks a server of the site.

Kubernetes 1.20.2 is the lab's. BUNDLER_KUBERNETES names a directory with kube-apiserver, kubectl, etcd and etcdctl
of a newer one (from 1.36 on), which has keys of its own.
"""

import http.client
import json
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from support.external_ca_cluster import Host, describe, find_programs, trusting
from support.networks import take_network
from support.newer_kubernetes import NEW, find_newer_programs
from support.policy_server import TOKEN, PolicyServer

from bundler.cluster.loader import load_cluster

POLICY = "etc/kubernetes/policy"
PODS = "/api/v1/namespaces/default/pods"
SECRET_FILES = {
    "image-policy.kubeconfig",
    "token.kubeconfig",
    "authorization-rights.kubeconfig",
    "audit.kubeconfig",
}
OTHER_FILES = {
    "": {"admission.yaml", "oidc-ca.crt"},
    "newer": {
        "admission.yaml",
        "authentication.yaml",
        "authorization.yaml",
        "ValidatingAdmissionPolicy",
    },
}
NO_FORBIDDEN_NAMES = [
    {
        "apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicy",
        "metadata": {"name": "names.static.k8s.io"},
        "spec": {
            "failurePolicy": "Fail",
            "matchConstraints": {
                "resourceRules": [
                    {
                        "apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"],
                        "resources": ["configmaps"],
                    }
                ]
            },
            "validations": [
                {"expression": "object.metadata.name != 'forbidden'", "message": "not this name"}
            ],
        },
    },
    {
        "apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicyBinding",
        "metadata": {"name": "names-binding.static.k8s.io"},
        "spec": {"policyName": "names.static.k8s.io", "validationActions": ["Deny"]},
    },
]  # fmt: skip


def describe_policy(site: PolicyServer) -> dict[str, Any]:
    return {
        "admission": {
            "plugins": ["AlwaysPullImages"],
            "pod_security": {"enforce": "baseline", "exempt_namespaces": ["kube-system", "trusted"]},
            "event_rate_limit": [{"type": "Namespace", "qps": 1, "burst": 5}],
            "image_policy": site.webhook("images", retry_backoff=100),
        },
        "authentication": {
            "oidc": [
                {
                    "issuer": site.issuer, "audiences": ["own"], "ca": str(site.ca.file),
                    "username": {"claim": "name"}, "groups": {"claim": "teams", "prefix": "team:"},
                    "required_claims": {"site": "fra1", "desk": "night"},
                }
            ],
            "webhook": site.webhook("tokens", token=str(site.directory / "token")),
        },
        "authorization": {"webhooks": [site.webhook("rights", name="rights")]},
        "audit": {
            "webhook": site.webhook("events", max_batch_wait=1),
            "log": {"max_age_days": 30, "mode": "blocking"},
        },
    }  # fmt: skip


def add_newer_keys(description: dict[str, Any], directory: Path) -> None:
    """What Kubernetes 1.20 does not have."""
    manifests = [directory / f"{each['kind']}.yaml" for each in NO_FORBIDDEN_NAMES]
    for path, each in zip(manifests, NO_FORBIDDEN_NAMES, strict=True):
        path.write_text(yaml.safe_dump(each))
    description["admission"] |= {
        "manifests": [str(path) for path in manifests],
    }
    second = description["authentication"]["oidc"][0] | {
        "issuer": "https://second.example", "audiences": ["one", "two"],
    }  # fmt: skip
    description["authentication"]["oidc"].append(second)
    description["authorization"]["webhooks"][0] |= {"position": "last", "failure_policy": "Deny"}


@dataclass
class Api:
    """The API server and the site that it asks."""

    host: Host
    site: PolicyServer
    release: str = ""

    def ask(self, method: str, path: str, token: str, body: object = None) -> tuple[int, Any]:
        """Send a request with a token."""
        context = trusting(self.host.pki / "ca-servers.crt")
        connection = http.client.HTTPSConnection(
            self.host.address, 6443, context=context, timeout=30
        )
        headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
        connection.request(method, path, json.dumps(body) if body else None, headers)
        answer = connection.getresponse()
        text = answer.read()
        content = json.loads(text) if text.startswith(b"{") else text
        connection.close()
        return answer.status, content

    def apply(self, *words: str, **document: object) -> str:
        return self.host.kubectl("create", "-f", "-", *words, stdin=json.dumps(document))


def decide_rights(review: Any) -> dict[str, Any]:
    spec = review["spec"]
    wanted = spec.get("resourceAttributes", {})
    allowed = spec["user"] == "site-user" and wanted.get("resource") == "configmaps"
    return {"allowed": allowed, "reason": "the site says so"}


def decide_image(review: Any) -> dict[str, Any]:
    images = [one["image"] for one in review["spec"]["containers"]]
    allowed = all(image.startswith("registry.site/") for image in images)
    return {"allowed": allowed, "reason": "" if allowed else "images of the site only"}


def know_token(review: Any) -> dict[str, Any]:
    known = review["spec"]["token"] == "token-of-the-site"
    user = {"user": {"username": "site-user", "groups": ["site"]}} if known else {}
    return {"authenticated": known, **user}


@pytest.fixture(scope="module", params=["", NEW])
def api(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    directory = tmp_path_factory.mktemp("policy")
    versions: dict[str, Any] = {}
    if request.param:
        programs, versions = find_newer_programs()
    else:
        programs = find_programs(directory / "programs")
    address = f"{take_network()}.1"
    (directory / "site").mkdir()
    site = PolicyServer(directory / "site", address)
    site.answers = {
        "images": decide_image, "rights": decide_rights, "tokens": know_token, "events": lambda _: {}
    }  # fmt: skip
    policy = describe_policy(site) | versions
    if request.param:
        add_newer_keys(policy, directory)
    (directory / "cluster.yaml").write_text(yaml.safe_dump(describe("192.0.2.1") | policy))
    assert load_cluster(directory / "cluster.yaml").weakenings == {}
    host = Host.install(directory, programs, describe(address) | policy)
    try:
        host.start_api()
        host.apply_addons()
        host.kubectl("create", "serviceaccount", "default")
        yield Api(host, site, request.param)
    finally:
        host.stop()
        site.stop()


def list_users(status: int, answer: Any) -> tuple[int, str]:
    return status, answer["message"].partition('User "')[2].partition('"')[0]


def test_a_token_of_the_issuer_is_accepted_with_prefixes(api: Api) -> None:
    claims = {"aud": "own", "name": "alice", "teams": ["readers"], "site": "fra1", "desk": "night"}
    token = api.site.sign(**claims)
    api.host.wait("the issuer is known", lambda: api.ask("GET", "/api/v1/nodes", token)[0] != 401)
    assert list_users(*api.ask("GET", "/api/v1/nodes", token)) == (403, "oidc:alice")
    api.host.kubectl("create", "clusterrole", "readers", "--verb=list", "--resource=pods")
    words = ("clusterrolebinding", "readers", "--clusterrole=readers", "--group=team:readers")
    api.host.kubectl("create", *words)
    api.host.wait("the group counts", lambda: api.ask("GET", PODS, token)[0] == 200)
    refused: list[dict[str, object]] = [
        {"aud": "other"},
        {"site": "ber1"},
        {"desk": "day"},
        {"exp": 1},
        {"iss": "https://other"},
    ]
    for change in refused:
        assert api.ask("GET", PODS, api.site.sign(**(claims | change)))[0] == 401, change
    head, body, signature = token.split(".")
    assert api.ask("GET", PODS, f"{head}.{body}.{signature[::-1]}")[0] == 401
    assert api.ask("GET", PODS, api.site.sign(**(claims | {"teams": ["system:masters"]})))[0] == 403


def test_a_webhook_says_whose_a_token_is(api: Api) -> None:
    status, user = list_users(*api.ask("GET", "/api/v1/nodes", "token-of-the-site"))
    assert (status, user) == (403, "site-user")
    assert api.site.asked["tokens"][-1]["apiVersion"] == "authentication.k8s.io/v1"
    assert api.ask("GET", "/api/v1/nodes", "another-token")[0] == 401


def test_a_webhook_decides_what_rbac_does_not(api: Api) -> None:
    path = "/api/v1/namespaces/default/configmaps"
    assert api.ask("GET", path, "token-of-the-site")[0] == 200
    assert api.ask("GET", "/api/v1/namespaces/default/secrets", "token-of-the-site")[0] == 403
    review = api.site.asked["rights"][-1]
    assert review["apiVersion"] == "authorization.k8s.io/v1"
    assert review["spec"]["groups"] == ["site", "system:authenticated"]
    assert api.site.clients["rights"] == "api-server"
    before = len(api.site.asked["rights"])
    api.host.kubectl("get", "secrets")
    assert len(api.site.asked["rights"]) == before, "RBAC had decided"


def make_pod(name: str, image: str) -> dict[str, Any]:
    container = {"name": "c", "image": image}
    return {
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name},
        "spec": {"automountServiceAccountToken": False, "containers": [container]},
    }  # fmt: skip


def test_a_webhook_decides_which_images_pods_may_use(api: Api) -> None:
    api.apply(**make_pod("ours", "registry.site/web:1"))
    pod = json.loads(api.host.kubectl("get", "pod", "ours", "-o", "json"))
    assert pod["spec"]["containers"][0]["imagePullPolicy"] == "Always", "AlwaysPullImages"
    with pytest.raises(AssertionError, match="images of the site only"):
        api.apply(**make_pod("other", "elsewhere.example/web:1"))
    assert api.site.clients["images"] == "api-server"
    answer = api.site.answers.pop("images")
    try:
        with pytest.raises(AssertionError, match="ImagePolicyWebhook|forbidden|404|server"):
            api.apply(**make_pod("unknown", "registry.site/unknown:1"))
    finally:
        api.site.answers["images"] = answer


def test_events_above_the_limit_are_refused(api: Api) -> None:
    about = {"kind": "Pod", "name": "ours", "namespace": "default"}
    event = {"apiVersion": "v1", "kind": "Event", "involvedObject": about, "reason": "Test"}
    items = [{**event, "metadata": {"name": f"e{number}"}} for number in range(30)]
    document = {"apiVersion": "v1", "kind": "List", "items": items}
    with pytest.raises(AssertionError, match="limit reached"):
        api.apply(**document)
    kept = json.loads(api.host.kubectl("get", "events", "-o", "json"))["items"]
    assert 5 <= len([one for one in kept if one["reason"] == "Test"]) < 30


def test_the_audit_webhook_gets_events(api: Api) -> None:
    api.host.kubectl("create", "configmap", "noted")

    def is_noted() -> bool:
        lists = api.site.asked.get("events", [])
        events = [event for one in lists for event in one["items"]]
        return any(
            (event["verb"], event.get("objectRef", {}).get("name")) == ("create", "noted")
            for event in events
        )

    api.host.wait("the event arrives", is_noted, seconds=60)
    assert api.site.asked["events"][0]["apiVersion"] == "audit.k8s.io/v1"
    assert api.site.clients["events"] == "api-server"
    assert '"noted"' in (api.host.root / "var/log/kubernetes/audit.log").read_text()


def test_credentials_are_in_secret_files_only_and_in_no_log(api: Api) -> None:
    files = {file.name: file for file in (api.host.root / POLICY).iterdir()}
    secret = {name for name, file in files.items() if stat.S_IMODE(file.stat().st_mode) == 0o600}
    assert secret == SECRET_FILES
    assert set(files) == SECRET_FILES | OTHER_FILES[api.release]
    key = api.site.client.with_suffix(".key").read_text().splitlines()[2]
    log = (api.host.root / "kube-apiserver.log").read_text(errors="replace")
    for value in (TOKEN, key):
        assert value not in log
        unit = api.host.root / "etc/systemd/system/kube-apiserver.service"
        assert value not in unit.read_text()


def test_the_api_server_restarts_when_a_file_of_the_policy_changes(api: Api) -> None:
    unit = (api.host.root / "etc/systemd/system/kube-apiserver.service").read_text()
    restart = next(line for line in unit.splitlines() if line.startswith("RestartOn="))
    assert f"/{POLICY}" in restart.split()


only_newer = pytest.mark.parametrize("api", [NEW], indirect=True)


def make_privileged_pod(namespace: str) -> dict[str, Any]:
    pod = make_pod("privileged", "registry.site/web:1")
    pod["metadata"]["namespace"] = namespace
    pod["spec"]["containers"][0]["securityContext"] = {"privileged": True}
    return pod


REFUSALS = {
    "": "PodSecurityPolicy: unable to admit pod",
    "newer": 'violates PodSecurity "baseline:latest"',
}
HOST_ROOT = {"name": "host", "hostPath": {"path": "/"}}


def test_a_privileged_pod_is_refused_outside_exempt_namespaces(api: Api) -> None:
    """Before 1.23 an administrator may use every policy, so a user who may create pods, and no more, creates these."""
    if api.release:
        api.host.kubectl("create", "namespace", "trusted")
    api.host.kubectl("-n", "trusted", "create", "serviceaccount", "default")
    for namespace in ("default", "trusted"):
        own = ("-n", namespace, "create")
        api.host.kubectl(*own, "role", "builder", "--verb=create", "--resource=pods")
        api.host.kubectl(*own, "rolebinding", "builder", "--role=builder", "--user=builder")
    for field, value in (("hostNetwork", True), ("hostPID", True), ("volumes", [HOST_ROOT])):
        pod = make_pod("on-the-host", "registry.site/web:1")
        pod["spec"][field] = value
        with pytest.raises(AssertionError, match=REFUSALS[api.release]):
            api.apply("--as=builder", **pod)
    for who in [["--as=builder"], []] if api.release else [["--as=builder"]]:
        with pytest.raises(AssertionError, match=REFUSALS[api.release]):
            api.apply(*who, **make_privileged_pod("default"))
    assert "created" in api.apply("--as=builder", **make_privileged_pod("trusted"))
    assert "created" in api.apply("--as=builder", **make_pod("ordinary", "registry.site/web:1"))


@only_newer
def test_a_manifest_refuses_objects_and_nobody_can_change_it(api: Api) -> None:
    with pytest.raises(AssertionError, match="not this name"):
        api.host.kubectl("create", "configmap", "forbidden")
    api.host.kubectl("create", "configmap", "allowed")
    found = api.host.kubectl("get", "validatingadmissionpolicies", "-o", "name")
    assert "names.static.k8s.io" not in found


@only_newer
def test_the_webhook_that_does_not_answer_refuses(api: Api) -> None:
    """`failure_policy: Deny`. Without it RBAC would go on to answer: 403."""
    path = "/api/v1/namespaces/default/configmaps/unasked"
    answer = api.site.answers.pop("rights")
    try:
        status, said = api.ask("GET", path, "token-of-the-site")
        assert (status, said[:21]) == (500, b"Internal Server Error")
    finally:
        api.site.answers["rights"] = answer
    assert api.ask("GET", f"{path}-2", "token-of-the-site")[0] == 404
