"""Audit policies: what is refused, which rules log secrets, and that the site's policy is packed."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from support.external_ca_cluster import describe
from support.projects import open_plan

from bundler.cache.store import Cache
from bundler.cluster.audit_policy import AuditPolicy, find_leaks
from bundler.cluster.components import MINORS
from bundler.cluster.loader import load_cluster
from bundler.cluster.schema import Cluster
from bundler.errors import ConfigError
from bundler.paths import templates_directory
from bundler.project import Inputs
from bundler.render.node import render_node

HEAD = "apiVersion: audit.k8s.io/v1\nkind: Policy\n"
RULES = "rules:\n  - level: Metadata\n"
BUILT_IN = templates_directory() / "audit-policy/rootfs/etc/kubernetes/audit-policy.yaml"
POLICY = "rootfs/etc/kubernetes/audit-policy.yaml"


def with_policy(description: Path, text: str, version: str = "1.20.2") -> Path:
    """The cluster with a policy in a file of its own."""
    folder = description.parent / "policies"
    folder.mkdir()
    (folder / "audit.yaml").write_text(text)
    said = description.read_text().replace("version: 1.20.2", f"version: {version}")
    description.write_text(f"{said}audit: {{policy: policies/audit.yaml}}\n")
    return description


REFUSED = [
    ("", r":1:1: must be a mapping with apiVersion, kind and rules"),
    ("rules: [\n", r":2:1: not valid YAML"),
    ("kind: Policy\nrules: [{level: Metadata}]\n", r"api_?[vV]ersion: is missing"),
    (f"apiVersion: audit.k8s.io/v1beta1\nkind: Policy\n{RULES}", r":1:1: apiVersion: must be 'audit.k8s.io/v1', not 'audit.k8s.io/v1beta1'"),
    (f"apiVersion: audit.k8s.io/v1\nkind: Event\n{RULES}", r":2:1: kind: must be 'Policy', not 'Event'"),
    (HEAD, r"rules: is missing"),
    (f"{HEAD}rules: []\n", r":3:1: rules: must not be empty"),
    (f"{HEAD}rules:\n  - level: Everything\n", r":4:5: rules\[0\].level: must be 'None', 'Metadata', 'Request' or 'RequestResponse'"),
    (f"{HEAD}rules:\n  - verbs: [get]\n", r":4:5: rules\[0\].level: is missing"),
    (f"{HEAD}rules:\n  - level: None\n    omitStage: [Panic]\n", r":5:5: rules\[0\].omitStage: unknown key; did you mean 'omitStages'"),
    (f"{HEAD}rules:\n  - level: None\n    omitStages: [Received]\n", r":5:18: rules\[0\].omitStages\[0\]: must be 'RequestReceived', .* not 'Received'"),
    (f"{HEAD}omitStages: [x]\n{RULES}", r"omitStages\[0\]: must be 'RequestReceived'"),
    (f"{HEAD}rules:\n  - level: None\n    resources: [{{group: apps/v1}}]\n", r"resources\[0\].group: must be an API group without its version"),
    (f"{HEAD}rules:\n  - level: None\n    resources: [{{resourceNames: [a]}}]\n", r"resources\[0\]: resourceNames needs resources"),
    (f"{HEAD}rules:\n  - level: None\n    nonResourceURLs: [healthz]\n", r"nonResourceURLs\[0\]: must begin with /"),
    (f"{HEAD}rules:\n  - level: None\n    nonResourceURLs: [/a*b]\n", r"nonResourceURLs\[0\]: must begin with /"),
    (f"{HEAD}rules:\n  - level: None\n    nonResourceURLs: [/a]\n    namespaces: [b]\n", r"rules\[0\]: nonResourceURLs cannot be combined"),
    (f"{HEAD}rules:\n  - level: None\n    users: bob\n", r"rules\[0\].users: must be a list, not 'bob'"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "message"), REFUSED)
def test_a_policy_that_the_api_server_would_refuse_is_an_error_with_its_place(
    description: Path, text: str, message: str
) -> None:
    with pytest.raises(ConfigError, match=f"audit.policy: .*audit.yaml.*{message}") as caught:
        load_cluster(with_policy(description, text))
    assert str(description) in caught.value.message


def test_a_policy_that_cannot_be_read_is_an_error(description: Path) -> None:
    with_policy(description, "")
    (description.parent / "policies/audit.yaml").unlink()
    with pytest.raises(ConfigError, match=r"audit\.policy: .*audit.yaml: No such file"):
        load_cluster(description)


def rule(level: str, *resources: str, **fields: Any) -> dict[str, Any]:
    """A rule for resources of the core group."""
    chosen = {"resources": [{"group": "", "resources": [*resources]}]} if resources else {}
    return {"level": level, **chosen, **fields}


REVIEWS = {"resources": [{"group": "authentication.k8s.io"}]}
TOKENS = "serviceaccounts/token"
SAFE = rule("Metadata", "secrets", "configmaps", TOKENS)
SAFE_REVIEWS = {"level": "Metadata", **REVIEWS}
OMIT = {"omitStages": ["ResponseComplete", "Panic"]}
LEAKS: list[tuple[list[dict[str, Any]], set[tuple[int, str]]]] = [
    ([rule("Metadata")], set()),
    ([rule("Request")], {(1, "secrets"), (1, "configmaps"), (1, TOKENS), (1, "tokenreviews")}),
    ([SAFE, SAFE_REVIEWS, rule("RequestResponse")], set()),
    ([SAFE, rule("RequestResponse")], {(2, "tokenreviews")}),
    ([rule("Request"), SAFE], {(1, "secrets"), (1, "configmaps"), (1, TOKENS), (1, "tokenreviews")}),
    # the first match wins, and only a rule for every such request hides those after it
    ([rule("None", "secrets"), rule("Request", "secrets")], set()),
    ([rule("None", "secrets", users=["a"]), rule("Request", "secrets")], {(2, "secrets")}),
    ([rule("None", "secrets", userGroups=["a"]), rule("Request", "secrets")], {(2, "secrets")}),
    ([rule("None", "secrets", namespaces=["a"]), rule("Request", "secrets")], {(2, "secrets")}),
    ([rule("None", "secrets", verbs=["create"]), rule("Request", "secrets")], {(2, "secrets")}),
    (
        [rule("None", "secrets", verbs=["create", "update", "patch"]), rule("Request", "secrets")],
        set(),
    ),
    (
        [
            {"level": "None", "resources": [{"resources": ["secrets"], "resourceNames": ["a"]}]},
            rule("Request", "secrets"),
        ],
        {(2, "secrets")},
    ),
    ([rule("Request", "secrets", users=["a"]), SAFE], {(1, "secrets")}),
    # requests that only read hold nothing, their answers do
    ([rule("Request", "secrets", verbs=["get", "list", "watch"])], set()),
    ([rule("RequestResponse", "secrets", verbs=["get"])], {(1, "secrets")}),
    ([rule("RequestResponse", "secrets", verbs=["watch"])], set()),
    # how a rule can name them
    ([rule("Request", "*")], {(1, "secrets"), (1, "configmaps"), (1, TOKENS)}),
    ([rule("Request", "serviceaccounts")], set()),
    ([rule("Request", "serviceaccounts/*")], {(1, TOKENS)}),
    ([rule("Request", "*/token")], {(1, TOKENS)}),
    ([rule("Request", namespaces=["a"])], {(1, "secrets"), (1, "configmaps"), (1, TOKENS), (1, "tokenreviews")}),
    ([{"level": "Request", "resources": [{"group": ""}]}], {(1, "secrets"), (1, "configmaps"), (1, TOKENS)}),
    ([{"level": "Request", "resources": [{"group": "apps"}]}], set()),
    ([{"level": "Request", "nonResourceURLs": ["*"]}], set()),
    ([{"level": "Request", **REVIEWS}], {(1, "tokenreviews")}),
    # the content is in the last stages only
    ([rule("Request", "secrets", **OMIT)], set()),
    ([rule("Request", "secrets", omitStages=["RequestReceived"])], {(1, "secrets")}),
]  # fmt: skip


@pytest.mark.parametrize(("rules", "expected"), LEAKS)
def test_the_rules_that_log_secrets_are_found_as_the_api_server_finds_them(
    rules: list[dict[str, Any]], expected: set[tuple[int, str]]
) -> None:
    policy = AuditPolicy.model_validate(
        {"apiVersion": "audit.k8s.io/v1", "kind": "Policy", "rules": rules}
    )
    assert {(number, found.resource) for number, found, _ in find_leaks(policy)} == expected


def test_a_warning_names_place_rule_verbs_and_fix(description: Path) -> None:
    text = f"{HEAD}rules:\n  - level: Metadata\n    users: [a]\n  - level: Request\n    resources: [{{resources: [secrets]}}]\n"
    loaded = load_cluster(with_policy(description, text))
    (warning,) = [line for line in loaded.warnings if "audit" in line]
    assert warning.startswith(f"{description}:")
    assert warning.endswith(
        "audit.policy: audit.yaml: rule 2 logs Secrets with their content (create, update, patch;"
        " level Request): put a rule with level Metadata for secrets before it"
    )


@pytest.mark.parametrize(("version", "ignored"), [("1.20.2", True), ("1.23.0", False)])
def test_a_field_that_old_api_servers_ignore_is_a_warning(
    description: Path, version: str, ignored: bool
) -> None:
    text = f"{HEAD}omitManagedFields: true\n{RULES}"
    warnings = load_cluster(with_policy(description, text, version)).warnings
    assert any("1.20 ignores omitManagedFields" in line for line in warnings) == ignored


def test_the_built_in_policy_logs_no_secret() -> None:
    policy = AuditPolicy.model_validate(yaml.safe_load(BUILT_IN.read_text()))
    assert list(find_leaks(policy)) == []


@pytest.mark.slow
def test_a_control_plane_has_one_policy_in_every_minor(tmp_path: Path) -> None:
    own = tmp_path / "own.yaml"
    own.write_text(f"{HEAD}{RULES}")
    inputs = Inputs(description=tmp_path / "cluster.yaml", cache=Cache(tmp_path / "cache"))
    for minor in MINORS:
        for audit, expected in (({}, BUILT_IN.read_bytes()), ({"policy": own}, own.read_bytes())):
            chosen = {"kubernetes": {"version": f"{minor}.0"}, "etcd": {}, "audit": audit}
            cluster = Cluster.model_validate(describe("192.0.2.1") | chosen)
            with open_plan(cluster, inputs) as (plan, secrets):
                tree = render_node(plan, plan.nodes[0], secrets)
            assert tree[POLICY].content == expected, minor
