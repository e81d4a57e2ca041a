"""Audit policies of a site (`audit.policy`): their schema, and which of their rules log secrets.

Sources: staging/src/k8s.io/apiserver/pkg/apis/audit/v1/types.go, .../apis/audit/validation, and
.../audit/policy/checker.go of Kubernetes.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import AfterValidator, ConfigDict, Field, model_validator
from pydantic.alias_generators import to_camel

from bundler.cluster.components import key_of
from bundler.cluster.problem import Problem
from bundler.cluster.values import DNS_NAME, Model

OMIT_MANAGED_FIELDS_SINCE = "1.23"
"""Older API servers ignore `omitManagedFields`."""

LEVELS_WITH_REQUEST = {"Request", "RequestResponse"}
STAGES_WITH_CONTENT = {"ResponseComplete", "Panic"}


def _check_url(value: str) -> str:
    if not re.fullmatch(r"/[^*]*\*?|\*", value):
        raise ValueError("must begin with / and may have a * only at its end")
    return value


def _check_group(value: str) -> str:
    if value and not DNS_NAME.fullmatch(value):
        raise ValueError("must be an API group without its version, such as apps")
    return value


Group = Annotated[str, AfterValidator(_check_group)]
NonResourceUrl = Annotated[str, AfterValidator(_check_url)]
Stage = Literal["RequestReceived", "ResponseStarted", "ResponseComplete", "Panic"]


class _PolicyModel(Model):
    model_config = ConfigDict(alias_generator=to_camel)


class GroupResources(_PolicyModel):
    """Resources of one API group."""

    group: Group = ""
    resources: tuple[str, ...] = ()
    resource_names: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _check_names(self) -> "GroupResources":
        if self.resource_names and not self.resources:
            raise ValueError("resourceNames needs resources")
        return self

    def has(self, group: str, resource: str) -> bool:
        """Whether `resource` (`secrets`, `serviceaccounts/token`) is among them."""
        name, _, subresource = resource.partition("/")
        patterns = {resource, "*", f"{name}/*"} | ({f"*/{subresource}"} if subresource else set())
        return self.group == group and (not self.resources or bool(patterns & {*self.resources}))


class Rule(_PolicyModel):
    """How much of the requests that it matches is logged."""

    level: Literal["None", "Metadata", "Request", "RequestResponse"]
    users: tuple[str, ...] = ()
    user_groups: tuple[str, ...] = ()
    verbs: tuple[str, ...] = ()
    resources: tuple[GroupResources, ...] = ()
    namespaces: tuple[str, ...] = ()
    non_resource_urls: tuple[NonResourceUrl, ...] = Field(default=(), alias="nonResourceURLs")
    omit_stages: tuple[Stage, ...] = ()
    omit_managed_fields: bool | None = None

    @model_validator(mode="after")
    def _check_kinds(self) -> "Rule":
        if self.non_resource_urls and (self.resources or self.namespaces):
            raise ValueError("nonResourceURLs cannot be combined with resources or namespaces")
        return self


class AuditPolicy(_PolicyModel):
    """The complete file."""

    api_version: Literal["audit.k8s.io/v1"]
    kind: Literal["Policy"]
    metadata: dict[str, object] = Field(default_factory=dict)
    rules: Annotated[tuple[Rule, ...], Field(min_length=1)]
    omit_stages: tuple[Stage, ...] = ()
    omit_managed_fields: bool | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Sensitive:
    """A resource whose content is secret."""

    kind: str
    group: str
    resource: str
    in_requests: tuple[str, ...]  # verbs whose request holds the content
    in_responses: tuple[str, ...]  # verbs whose response does


CHANGES = ("create", "update", "patch")
ANSWERS = (*CHANGES, "get", "list", "delete", "deletecollection")
SENSITIVE = (
    Sensitive(
        kind="Secrets", group="", resource="secrets", in_requests=CHANGES, in_responses=ANSWERS
    ),
    Sensitive(
        kind="ConfigMaps", group="", resource="configmaps", in_requests=CHANGES,
        in_responses=ANSWERS,
    ),
    Sensitive(
        kind="TokenRequests", group="", resource="serviceaccounts/token", in_requests=("create",),
        in_responses=("create",),
    ),
    Sensitive(
        kind="TokenReviews", group="authentication.k8s.io", resource="tokenreviews",
        in_requests=("create",), in_responses=("create",),
    ),
)  # fmt: skip


def check_audit_policy(policy: AuditPolicy, name: str, minor: str) -> Iterator[Problem]:
    """Warn of each rule that logs something secret, and of fields that the API server ignores."""
    path = ("audit", "policy")
    for number, sensitive, verbs in find_leaks(policy):
        text = (
            f"{name}: rule {number} logs {sensitive.kind} with their content"
            f" ({', '.join(verbs)}; level {policy.rules[number - 1].level}): put a rule with level"
            f" Metadata for {sensitive.resource} before it"
        )
        yield Problem(path=path, text=text, is_error=False)
    has_omit = [policy.omit_managed_fields, *(rule.omit_managed_fields for rule in policy.rules)]
    if any(has_omit) and key_of(minor) < key_of(OMIT_MANAGED_FIELDS_SINCE):
        text = (
            f"{name}: Kubernetes {minor} ignores omitManagedFields (it works from"
            f" {OMIT_MANAGED_FIELDS_SINCE})"
        )
        yield Problem(path=path, text=text, is_error=False)


def find_leaks(policy: AuditPolicy) -> Iterator[tuple[int, Sensitive, tuple[str, ...]]]:
    """Yield number of the rule (from 1), what it logs, and the verbs whose content it logs."""
    for sensitive in SENSITIVE:
        leaks: dict[int, list[str]] = {}
        for verb in dict.fromkeys((*sensitive.in_requests, *sensitive.in_responses)):
            for number, rule in _list_matching(policy, sensitive, verb):
                omitted = {*policy.omit_stages, *rule.omit_stages}
                if not omitted >= STAGES_WITH_CONTENT and _logs_content(rule, sensitive, verb):
                    leaks.setdefault(number, []).append(verb)
        for number, verbs in sorted(leaks.items()):
            yield number, sensitive, tuple(verbs)


def _list_matching(
    policy: AuditPolicy, sensitive: Sensitive, verb: str
) -> Iterator[tuple[int, Rule]]:
    """Yield the rules that may be the first to match such a request, with their numbers."""
    for number, rule in enumerate(policy.rules, start=1):
        groups = [row for row in rule.resources if row.has(sensitive.group, sensitive.resource)]
        if rule.non_resource_urls or (rule.resources and not groups):
            continue
        if rule.verbs and verb not in rule.verbs:
            continue
        yield number, rule
        is_named = bool(groups) and all(row.resource_names for row in groups)
        if not (rule.users or rule.user_groups or rule.namespaces or is_named):
            return  # it matches every such request


def _logs_content(rule: Rule, sensitive: Sensitive, verb: str) -> bool:
    if rule.level == "RequestResponse" and verb in sensitive.in_responses:
        return True
    return rule.level in LEVELS_WITH_REQUEST and verb in sensitive.in_requests
