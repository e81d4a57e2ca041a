"""The audit log of a real API server: who changed what, and no token, Secret or key in any event."""

import base64
import http.client
import itertools
import json
import ssl
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
import yaml
from support.bundle_secrets import list_secrets
from support.external_ca_cluster import Host, describe, find_programs, trusting
from support.networks import take_network
from support.offline_root import openssl

ADDRESS = f"{take_network()}.1"
CORE = "/api/v1/namespaces/default"
SECRETS = f"{CORE}/secrets"
DEPLOYMENTS = "/apis/apps/v1/namespaces/default/deployments"
VAULTS = "/apis/vault.example/v1/namespaces/default/vaults"
JSON = "application/json"
MERGE = "application/merge-patch+json"
STRATEGIC = "application/strategic-merge-patch+json"
JSON_PATCH = "application/json-patch+json"
APPLY = "application/apply-patch+yaml"
PLANTED = "Swordfish"


@dataclass
class Api:
    """The API as an administrator uses it, and the secrets that were given to it or got from it."""

    host: Host
    context: ssl.SSLContext
    secrets: dict[str, set[str]] = field(default_factory=dict)
    row: str = ""

    def plant(self, value: str = "") -> str:
        """A password with the name of the row in it; or note a value that the API server made."""
        mark = f"{PLANTED}{''.join(word.title() for word in self.row.split())}"
        self.secrets.setdefault(self.row, set()).add(value or mark)
        return value or f'"{mark}\\<&'

    def ask(
        self, method: str, path: str, body: object = None, kind: str = JSON, token: str = ""
    ) -> tuple[int, Any]:
        """Send a request as the administrator, or with a token only."""
        context = trusting(self.host.pki / "ca-servers.crt") if token else self.context
        connection = http.client.HTTPSConnection(ADDRESS, 6443, context=context, timeout=30)
        headers = {"Content-Type": kind} | ({"Authorization": f"Bearer {token}"} if token else {})
        text = body if isinstance(body, str | None) else json.dumps(body)
        connection.request(method, path, text, headers)
        answer = connection.getresponse()
        content = answer.read().decode()
        connection.close()
        return answer.status, json.loads(content) if content.startswith("{") else content

    def must(self, *words: Any, **options: Any) -> Any:
        status, answer = self.ask(*words, **options)
        assert status < 300, json.dumps(answer)
        return answer

    def create_secret(self, name: str, **fields: object) -> None:
        self.must("POST", SECRETS, {"metadata": {"name": name}, **fields})

    def kubectl(self, *words: str, document: object = None, check: bool = True) -> str:
        return self.host.kubectl(*words, stdin=json.dumps(document), check=check)


def encode(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def forms(secret: str) -> set[str]:
    """The ways in which a secret may be in a line of JSON: plain, escaped, base64, hexadecimal."""
    plain = {secret, json.dumps(secret)[1:-1], quote(secret), secret.encode().hex()}
    found = set(plain)
    for _ in range(2):  # base64 of it, and base64 of a text that has it in base64
        found |= {encoded for text in found for encoded in _in_base64(text)}
    return found


def _in_base64(text: str) -> Iterator[str]:
    """The part of base64 that does not depend on what is before and after the text."""
    for before in range(3):
        encoded = encode("x" * before + text)
        yield encoded[4 if before else 0 : len(encoded.rstrip("=")) // 4 * 4 - 4]


ROWS: dict[str, Callable[[Api], None]] = {}


def row(function: Callable[[Api], None]) -> Callable[[Api], None]:
    ROWS[function.__name__.replace("_", " ")] = function
    return function


@row
def secret_created_with_plain_text(api: Api) -> None:
    api.create_secret("plain", stringData={"password": api.plant()})


@row
def secret_created_with_base64(api: Api) -> None:
    api.create_secret("encoded", data={"password": encode(api.plant())})


@row
def secret_of_each_type(api: Api) -> None:
    auth = {"auths": {"r.example": {"username": "u", "password": api.plant()}}}
    key = openssl("genrsa", "2048")
    for line in key.splitlines():
        if "-----" not in line:
            api.plant(line)
    certificate = (api.host.pki / "ca.crt").read_text()
    for name, kind, data in (
        ("docker", "kubernetes.io/dockerconfigjson", {".dockerconfigjson": json.dumps(auth)}),
        ("dockercfg", "kubernetes.io/dockercfg", {".dockercfg": json.dumps(auth["auths"])}),
        ("basic", "kubernetes.io/basic-auth", {"username": "u", "password": api.plant()}),
        ("ssh", "kubernetes.io/ssh-auth", {"ssh-privatekey": key}),
        ("tls", "kubernetes.io/tls", {"tls.crt": certificate, "tls.key": key}),
        ("other", "example.com/credential", {"value": api.plant()}),
        ("config", "Opaque", {"kubeconfig": yaml.safe_dump({"users": [{"token": api.plant()}]})}),
    ):
        api.create_secret(f"of-type-{name}", type=kind, stringData=data)


@row
def secret_applied_replaced_and_patched_by_kubectl(api: Api) -> None:
    document: dict[str, Any] = {
        "apiVersion": "v1", "kind": "Secret", "metadata": {"name": "applied"},
        "stringData": {"password": api.plant()},
    }  # fmt: skip
    api.kubectl("apply", "-f", "-", document=document)
    document["stringData"]["second"] = api.plant()
    api.kubectl("apply", "-f", "-", document=document)
    api.kubectl("apply", "--server-side", "--force-conflicts", "-f", "-", document=document)
    api.kubectl("replace", "-f", "-", document=document)
    for kind in ("merge", "strategic"):
        patch = json.dumps({"stringData": {kind: api.plant()}})
        api.kubectl("patch", "secret", "applied", "--type", kind, "-p", patch)
    add = [{"op": "add", "path": "/data/json", "value": encode(api.plant())}]
    api.kubectl("patch", "secret", "applied", "--type", "json", "-p", json.dumps(add))
    api.kubectl("annotate", "secret", "applied", f"note={api.plant()}")
    api.kubectl("create", "secret", "generic", "literal", f"--from-literal=a={api.plant()}")
    api.kubectl("get", "secret", "applied", "-o", "yaml")
    api.kubectl("get", "secrets", "-A", "-o", "json")
    api.kubectl("delete", "secret", "literal")


@row
def secret_refused(api: Api) -> None:
    """The answers to most of these quote the request or the Secret."""
    api.create_secret("refused", stringData={"password": api.plant()})
    bad = {"metadata": {"name": "bad"}, "data": {"password": api.plant()}}
    mixed = {"metadata": {"name": "bad"}, "stringData": {"password": api.plant(), "port": 1}}
    add = [{"op": "add", "path": "/data/x", "value": api.plant()}]
    named = {"apiVersion": "v1", "kind": "Secret", **bad, "metadata": {"name": "refused"}}
    quotes = 0
    for method, path, body, kind in (
        ("POST", SECRETS, bad, JSON),
        ("POST", SECRETS, mixed, JSON),
        ("POST", SECRETS, json.dumps(mixed)[:-2], JSON),
        ("POST", SECRETS, yaml.safe_dump(mixed), "application/yaml"),
        ("PUT", f"{SECRETS}/refused", named, JSON),
        ("PATCH", f"{SECRETS}/refused", bad, MERGE),
        ("PATCH", f"{SECRETS}/refused", bad, STRATEGIC),
        ("PATCH", f"{SECRETS}/refused", add, JSON_PATCH),
        ("PATCH", f"{SECRETS}/refused?fieldManager=x&force=true", json.dumps(named), APPLY),
    ):
        status, answer = api.ask(method, path, body, kind)
        assert status >= 400, answer
        quotes += PLANTED in json.dumps(answer) or encode(api.plant())[:16] in json.dumps(answer)
    assert quotes >= 5  # or this row tests nothing


@row
def token_of_a_request(api: Api) -> None:
    spec = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {}}
    answer = api.must("POST", f"{CORE}/serviceaccounts/default/token", spec)
    token = answer["status"]["token"]
    for part in token.split(".")[1:]:
        api.plant(part)
    api.ask("GET", f"{CORE}/pods", token=token)
    api.ask("GET", f"{CORE}/pods", token=token[:-4])
    for kind in ("v1", "v1beta1"):
        review = {"apiVersion": f"authentication.k8s.io/{kind}", "kind": "TokenReview"}
        body = {**review, "spec": {"token": token}}
        assert api.must("POST", f"/apis/authentication.k8s.io/{kind}/tokenreviews", body)
    wrong = {**review, "spec": {"token": [token, api.plant()]}}
    assert api.ask("POST", "/apis/authentication.k8s.io/v1/tokenreviews", wrong)[0] >= 400


@row
def token_of_a_service_account_secret(api: Api) -> None:
    fields = {"annotations": {"kubernetes.io/service-account.name": "default"}, "name": "sa"}
    body = {"metadata": fields, "type": "kubernetes.io/service-account-token"}
    api.must("POST", SECRETS, body)
    found: list[str] = []

    def has_token() -> bool:
        found[:] = [api.must("GET", f"{SECRETS}/sa").get("data", {}).get("token", "")]
        return bool(found[0])

    api.host.wait("the controller manager makes the token", has_token)
    for part in base64.b64decode(found[0]).decode().split(".")[1:]:
        api.plant(part)


@row
def bootstrap_token(api: Api) -> None:
    data = {
        "token-id": "abcdef", "token-secret": api.plant("0123456789swordf"),
        "usage-bootstrap-authentication": "true",
    }  # fmt: skip
    document = {"metadata": {"name": "bootstrap-token-abcdef"}, "stringData": data}
    kind = "bootstrap.kubernetes.io/token"
    api.must("POST", "/api/v1/namespaces/kube-system/secrets", {**document, "type": kind})
    api.ask("GET", f"{CORE}/pods", token="abcdef.0123456789swordf")
    api.ask("GET", f"{CORE}/pods", token=f"abcdef.{api.plant('0123456789sw0rdf')}")


@row
def configmap(api: Api) -> None:
    document = {
        "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "settings"},
        "data": {"application.properties": f"password={api.plant()}"},
    }  # fmt: skip
    api.kubectl("apply", "-f", "-", document=document)
    document["data"] = {"password": api.plant()}
    api.kubectl("apply", "-f", "-", document=document)
    api.kubectl("replace", "-f", "-", document=document)
    path = f"{CORE}/configmaps/settings"
    api.must("PATCH", path, {"data": {"more": api.plant()}}, kind=MERGE)
    status, answer = api.ask("PATCH", path, {"data": {"port": 1}}, MERGE)
    assert status == 422
    assert PLANTED in answer["message"]
    bad = {"metadata": {"name": "bad"}, "data": {"port": 1, "password": api.plant()}}
    assert api.ask("POST", f"{CORE}/configmaps", bad)[0] == 400
    api.kubectl("get", "configmap", "settings", "-o", "yaml")


@row
def environment_of_a_workload(api: Api) -> None:
    container = {
        "name": "web", "image": "web:1", "args": [f"--password={api.plant()}"],
        "env": [{"name": "PASSWORD", "value": api.plant()}],
    }  # fmt: skip
    labels = {"app": "web"}
    template = {"metadata": {"labels": labels}, "spec": {"containers": [container]}}
    spec = {"selector": {"matchLabels": labels}, "template": template}
    document = {
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "env"}, "spec": spec,
    }  # fmt: skip
    api.kubectl("apply", "-f", "-", document=document)
    container["env"] = [{"name": "PASSWORD", "value": f"new {api.plant()}"}]
    api.kubectl("apply", "-f", "-", document=document)
    status, answer = api.ask("PATCH", f"{DEPLOYMENTS}/env", {"spec": {"replicas": "many"}}, MERGE)
    assert status == 422
    assert PLANTED in answer["message"]
    job = {"template": {"spec": {"restartPolicy": "Never", "containers": [container]}}}
    document = {
        "apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "once"}, "spec": job,
    }  # fmt: skip
    api.kubectl("apply", "-f", "-", document=document)
    container["image"] = "web:2"
    assert api.kubectl("apply", "-f", "-", document=document, check=False) == ""


@row
def object_of_an_unknown_api(api: Api) -> None:
    """As of cert-manager, sealed secrets or external secrets.

    The API is not served: this build of 1.20 ends at the first custom resource (its json-iterator
    is older than its Go). The policy applies before that is known.
    """
    body = {
        "apiVersion": "vault.example/v1", "kind": "Vault", "metadata": {"name": "one"},
        "spec": {"token": api.plant()},
    }  # fmt: skip
    assert api.ask("POST", VAULTS, body)[0] == 404
    assert api.ask("PUT", f"{VAULTS}/one", body)[0] == 404
    for kind in (MERGE, JSON_PATCH, APPLY):
        assert api.ask("PATCH", f"{VAULTS}/one", body, kind)[0] == 404


@row
def uris_with_secrets(api: Api) -> None:
    value = quote(api.plant())
    for path in (
        f"{CORE}/pods/web/exec?command=mysql&command=-p{value}",
        f"{CORE}/pods/web:80/proxy/login?token={value}",
        f"{CORE}/services/https:web:443/proxy/{value}/x?token={value}",
        f"/api/v1/nodes/one/proxy/run/default/web/web?cmd={value}",
        f"/login?token={value}",
    ):
        for method in ("GET", "POST"):
            api.ask(method, path)
            api.ask(method, path, token=f"{api.plant()[1:-3]}")  # refused


@row
def certificate_request(api: Api) -> None:
    directory = api.host.root
    openssl(
        "req", "-new", "-newkey", "rsa:2048", "-nodes", "-keyout", directory / "user.key",
        "-out", directory / "user.csr", "-subj", "/CN=somebody",
    )  # fmt: skip
    for line in (directory / "user.key").read_text().splitlines():
        if "-----" not in line:
            api.plant(line)
    spec = {
        "signerName": "kubernetes.io/kube-apiserver-client", "usages": ["client auth"],
        "request": encode((directory / "user.csr").read_text()),
    }  # fmt: skip
    body = {"metadata": {"name": "somebody"}, "spec": spec}
    api.must("POST", "/apis/certificates.k8s.io/v1/certificatesigningrequests", body)
    api.kubectl("certificate", "approve", "somebody")
    signed = ("get", "csr", "somebody", "-o", "jsonpath={.status.certificate}")
    api.host.wait("it is signed", lambda: api.kubectl(*signed))


def change_ordinary_things(api: Api) -> None:
    """As alice, and as bob, who may do nothing."""
    for name in ("alice", "bob"):
        api.must("POST", f"{CORE}/serviceaccounts", {"metadata": {"name": name}})
    subject = {"kind": "ServiceAccount", "name": "alice", "namespace": "default"}
    role = {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "edit"}
    bindings = "/apis/rbac.authorization.k8s.io/v1/namespaces/default/rolebindings"
    body = {"metadata": {"name": "alice-edits"}, "subjects": [subject], "roleRef": role}
    api.must("POST", bindings, body)
    alice, bob = (
        api.must("POST", f"{CORE}/serviceaccounts/{name}/token", {"spec": {}})["status"]["token"]
        for name in ("alice", "bob")
    )
    labels = {"app": "web"}
    container = {"name": "web", "image": "web:1"}
    template = {"metadata": {"labels": labels}, "spec": {"containers": [container]}}
    spec = {"replicas": 1, "selector": {"matchLabels": labels}, "template": template}
    body = {"metadata": {"name": "web"}, "spec": spec}
    api.must("POST", DEPLOYMENTS, body, token=alice)
    web = f"{DEPLOYMENTS}/web"
    api.must("PATCH", web, {"spec": {"replicas": 2}}, kind=MERGE, token=alice)
    scale = {"metadata": {"name": "web", "namespace": "default"}, "spec": {"replicas": 3}}
    api.must("PUT", f"{web}/scale", scale, token=alice)
    api.must("GET", f"{SECRETS}/plain", token=alice)
    assert api.ask("DELETE", web, token=bob)[0] == 403
    api.must("DELETE", web, token=alice)
    assert api.ask("GET", f"{SECRETS}/plain", token=bob)[0] == 403
    assert api.ask("GET", f"{CORE}/pods/web/attach?stdin=true", token=alice)[0] >= 400
    api.must("DELETE", f"{bindings}/alice-edits")


@dataclass
class Log:
    api: Api
    text: str
    events: list[dict[str, Any]]

    def find(self, **wanted: Any) -> list[dict[str, Any]]:
        """Events with these values; `user` is the end of the user's name."""
        return [event for event in self.events if wanted.items() <= _summarize(event).items()]


def _summarize(event: dict[str, Any]) -> dict[str, Any]:
    about = event.get("objectRef", {})
    resource = "/".join(filter(None, (about.get("resource"), about.get("subresource"))))
    return {
        "user": event["user"].get("username", "").rpartition(":")[2],
        "verb": event["verb"],
        "resource": resource,
        "name": about.get("name"),
        "stage": event["stage"],
        "level": event["level"],
        "code": event.get("responseStatus", {}).get("code"),
    }


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Log:
    """The audit log after every row, and ordinary changes."""
    directory = tmp_path_factory.mktemp("audit")
    programs = find_programs(directory / "programs")
    host = Host.install(directory, programs, describe(ADDRESS))
    try:
        host.start_api()
        host.apply_addons()  # its Secrets, too, must not be in the log
        host.start("kube-controller-manager")
        api = Api(host, _administrator(host, directory))
        exists = f"{CORE}/serviceaccounts/default"
        host.wait("the service account exists", lambda: api.ask("GET", exists)[0] == 200)
        for api.row, fill in ROWS.items():
            fill(api)
        change_ordinary_things(api)
        api.must("POST", "/api/v1/namespaces", {"metadata": {"name": "the-last-change"}})
        file = host.root / "var/log/kubernetes/audit.log"
        host.wait("events are written", lambda: '"name":"the-last-change"' in file.read_text())
    finally:
        host.stop()
    text = file.read_text()
    return Log(api, text, [json.loads(line) for line in text.splitlines()])


def _administrator(host: Host, directory: Path) -> ssl.SSLContext:
    config = yaml.safe_load((host.root / "etc/kubernetes/admin.kubeconfig").read_text())
    user = config["users"][0]["user"]
    for kind, end in (("certificate", "crt"), ("key", "key")):
        content = base64.b64decode(user[f"client-{kind}-data"])
        (directory / f"administrator.{end}").write_bytes(content)
    return trusting(host.pki / "ca-servers.crt", directory / "administrator.crt")


@pytest.mark.parametrize("name", ROWS)
def test_no_event_holds_a_secret(log: Log, name: str) -> None:
    assert log.api.secrets[name]
    for secret in log.api.secrets[name]:
        for form in forms(secret):
            at = log.text.find(form)
            assert at < 0, f"{secret} as {form}: {log.text[max(0, at - 300) : at + 100]}"


def test_no_event_holds_a_secret_of_the_bundle(log: Log) -> None:
    secrets = list_secrets(log.api.host.root)
    assert len(secrets) > 30
    assert [secret for secret in secrets for form in forms(secret) if form in log.text] == []


def test_every_form_of_a_secret_is_searched_for() -> None:
    secret = f'{PLANTED}"\\<&end'
    written = json.dumps(json.dumps({"before": secret, "after": 1}))
    for before, after in itertools.product(("", "a", "ab"), ("", "x", "yz")):
        encoded = encode(before + secret + after)
        for text in (encoded, encode(f"{before}: {encoded} {after}")):
            assert any(form in text for form in forms(secret)), text
    assert any(form in written for form in forms(PLANTED))


CHANGES = [
    {"user": "alice", "verb": "create", "resource": "deployments", "name": "web", "code": 201},
    {"user": "alice", "verb": "patch", "resource": "deployments", "name": "web"},
    {"user": "alice", "verb": "update", "resource": "deployments/scale", "name": "web"},
    {"user": "alice", "verb": "delete", "resource": "deployments", "name": "web", "code": 200},
    {"user": "bob", "verb": "delete", "resource": "deployments", "name": "web", "code": 403},
    {"user": "alice", "verb": "get", "resource": "secrets", "name": "plain", "code": 200},
    {"user": "bob", "verb": "get", "resource": "secrets", "name": "plain", "code": 403},
    {"user": "alice", "verb": "get", "resource": "pods/attach", "name": "web"},
    # verify.sh needs an event on every control plane: each API server reads Secrets when it starts
    {"user": "apiserver", "verb": "list", "resource": "secrets", "code": 200},
    {"verb": "create", "resource": "secrets", "name": "plain", "code": 201},
    {"verb": "create", "resource": "secrets", "name": "bootstrap-token-abcdef", "code": 201},
    {"verb": "patch", "resource": "secrets", "name": "applied"},
    {"verb": "update", "resource": "secrets", "name": "applied"},
    {"verb": "delete", "resource": "secrets", "name": "literal"},
    {"verb": "create", "resource": "configmaps", "name": "settings"},
    {"verb": "patch", "resource": "configmaps", "name": "settings"},
    {"verb": "create", "resource": "serviceaccounts/token", "name": "alice", "code": 201},
    {"verb": "create", "resource": "vaults", "code": 404},
    {"verb": "update", "resource": "vaults", "name": "one"},
    {"verb": "patch", "resource": "vaults", "name": "one"},
    {"verb": "create", "resource": "certificatesigningrequests", "name": "somebody"},
    {"verb": "update", "resource": "certificatesigningrequests/approval", "name": "somebody"},
    {"verb": "create", "resource": "namespaces", "name": "the-last-change", "level": "Request"},
]


@pytest.mark.parametrize("change", CHANGES, ids=lambda row: " ".join(map(str, row.values())))
def test_the_log_says_who_did_what(log: Log, change: dict[str, Any]) -> None:
    assert log.find(**change)


def test_a_change_of_permissions_is_logged_with_its_content(log: Log) -> None:
    (event,) = log.find(verb="create", resource="rolebindings", name="alice-edits")
    assert event["user"]["username"] == "kubernetes-admin"
    assert event["requestObject"]["roleRef"]["name"] == "edit"
    assert event["requestObject"]["subjects"][0]["name"] == "alice"
    assert log.find(verb="delete", resource="rolebindings", name="alice-edits", code=200)


def test_the_answer_to_a_patch_is_not_logged(log: Log) -> None:
    """From 1.24 the event has the answer's message, and that of a bad patch quotes the object."""
    for event in log.events:
        about = event.get("objectRef", {})
        if event["level"] == "Metadata" and event["verb"] in {"patch", "update"}:
            assert event["stage"] == "RequestReceived", event
            assert "responseStatus" not in event, event
            assert about["name"]


def test_nothing_is_logged_that_changes_nothing(log: Log) -> None:
    reads = {"get", "list", "watch"}
    read = {event["objectRef"]["resource"] for event in log.events if event["verb"] in reads}
    assert read == {"pods", "secrets"}  # attach
    resources = {summary["resource"] for summary in map(_summarize, log.events)}
    assert "leases" not in {
        summary["resource"]
        for summary in map(_summarize, log.events)
        if summary["verb"] in {"update", "patch"}
    }
    assert not resources & {"events", "tokenreviews", "pods/exec", "pods/proxy", ""}
    assert {event["level"] for event in log.events} == {"Metadata", "Request"}
