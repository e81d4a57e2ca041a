"""The values of templates out of the state directory: keys, certificates, kubeconfigs, tokens."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Network
from typing import Any

from bundler.cluster.plan import ClusterPlan, NodePlan
from bundler.pki.cluster_pki import Pki
from bundler.pki.declarations import KUBELET_CA
from bundler.pki.key_pairs import KeyPair
from bundler.pki.kubeconfig import (
    render_file_kubeconfig,
    render_kubeconfig,
    render_token_kubeconfig,
)
from bundler.render.policy import group_keys
from bundler.state.encryption import EncryptionKey
from bundler.state.tokens import Tokens

PEOPLE = ("admin",)
"""Kubeconfigs for people, whose programs may trust only root CAs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Secrets:
    """What the state directory has: everything that is unique to this cluster."""

    state_id: str
    pki: Pki = field(repr=False)
    pod_subnets: Mapping[str, IPv4Network]  # by worker; flannel assigns its own
    tokens: Tokens = field(repr=False)
    encryption_keys: tuple[EncryptionKey, ...] = field(repr=False)  # the one that writes first
    initial_etcd_members: tuple[str, ...]


STATE_NAMES = (
    "admin_group",
    "anchors",
    "authorities_believed",
    "authority_signs",
    "bootstrap_kubeconfig",
    "certificate",
    "encryption_ids",
    "encryption_groups",
    "etcd_servers_anchors",
    "initial_etcd_members",
    "key",
    "kubeconfig",
    "kubelet_kubeconfig",
    "not_after",
    "not_before",
    "service_account_ids",
    "service_account_key",
    "servers_anchors",
    "service_account_public",
    "state_id",
    "token_expires",
    "tokens",
)
"""The names whose values come from the state directory."""


def make_state_values(plan: ClusterPlan, node: NodePlan, secrets: Secrets) -> dict[str, Any]:
    """Make the values of STATE_NAMES; functions take the name of a certificate or CA."""
    pki, keys = secrets.pki, secrets.pki.service_account
    pairs = _list_pairs(pki, node.name)
    cas = {**pki.cas, KUBELET_CA: pki.kubelet_ca}
    own = secrets.tokens.current.get(node.name)
    groups = group_keys(plan.cluster, secrets.encryption_keys)

    def pair(name: str) -> KeyPair:
        return cas.get(name) or pki.cluster.get(name) or pki.nodes[node.name][name]

    def kubeconfig(name: str, user: str, server: str) -> str:
        return (
            render_kubeconfig(
                cluster=plan.name,
                server=server,
                ca_pem=pki.trust.servers if name in PEOPLE else pki.trust.api,
                user=user,
                client=pair(name),
            )
            .decode()
            .rstrip()
        )

    def bootstrap_kubeconfig() -> str:
        return render_token_kubeconfig(
            cluster=plan.name, server=plan.endpoint, ca_pem=pki.trust.api,
            user="kubelet-bootstrap", token=secrets.tokens.current[node.name].text,
        ).decode().rstrip()  # fmt: skip

    def kubelet_kubeconfig() -> str:
        """For a program that acts as its node, with the certificate that the kubelet renews."""
        return render_file_kubeconfig(
            cluster=plan.name, server=plan.endpoint, ca_pem=pki.trust.api,
            user=f"system:node:{node.name}",
            client=f"{plan.cluster.kubernetes.kubelet_root}/pki/kubelet-client-current.pem",
        ).decode().rstrip()  # fmt: skip

    return {
        "admin_group": pki.admin_group,
        "state_id": secrets.state_id,
        "tokens": secrets.tokens,
        "token_expires": int(own.expires.timestamp()) if own else "",
        "anchors": lambda name: pki.trust.by_ca[name].decode().rstrip(),
        "servers_anchors": pki.trust.servers.decode().rstrip(),
        "etcd_servers_anchors": pki.trust.etcd_servers.decode().rstrip(),
        "authority_signs": pki.signing_rotation_id,
        "authorities_believed": pki.trusted_rotation_ids,
        "encryption_groups": groups,
        "encryption_ids": tuple(
            f"{provider}:{key.name}"  # as in front of each value in etcd
            for provider, group in groups.items()
            for key in group
        ),
        "initial_etcd_members": secrets.initial_etcd_members,
        "not_before": get_not_before(pki, node.name),
        "not_after": min(int(pair.not_after.timestamp()) for pair in pairs),
        "certificate": lambda name: pair(name).certificate_pem.decode().rstrip(),
        "key": lambda name: pair(name).key_pem.decode().rstrip(),
        "service_account_key": keys.key_pem.decode().rstrip(),
        "service_account_public": b"".join(keys.public_pem.values()).decode().rstrip(),
        "service_account_ids": tuple(keys.public_pem),
        "kubeconfig": kubeconfig,
        "bootstrap_kubeconfig": bootstrap_kubeconfig,
        "kubelet_kubeconfig": kubelet_kubeconfig,
    }


def get_not_before(pki: Pki, node: str) -> int:
    """Return when the newest certificate in a node's bundle became valid, in seconds."""
    return max(int(pair.not_before.timestamp()) for pair in _list_pairs(pki, node))


def _list_pairs(pki: Pki, node: str) -> list[KeyPair]:
    return [*pki.nodes.get(node, {}).values(), *pki.cluster.values()]
