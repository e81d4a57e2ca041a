"""Schema of cluster.yaml: the encryption of Secrets in etcd."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from bundler.cluster.values import HostPath, Kind, Model


class KmsPlugin(Model):
    """The program on control planes that talks to the key management service of the site."""

    program: Path = Field(
        description="The program, statically linked, on the builder. It is installed as"
        " /opt/k8s/bin/kms-plugin and runs as kube-kms-plugin.service on each control plane."
    )
    arguments: tuple[str, ...] = Field(
        default=(),
        description="Its arguments; no secrets: use `environment`. It must listen at `socket`."
        " Example: `[-listen-addr, unix:///run/kube-kms/plugin.sock]`.",
    )
    environment: Path | None = Field(
        default=None,
        description="A file with lines NAME=VALUE for its environment, such as credentials. It is"
        " in the bundles of the control planes, in a file that only root can read.",
    )


class Kms(Model):
    """A key management service, which API servers reach through a plugin on the same host."""

    name: Annotated[str, Field(pattern=r"^[a-z]([-a-z0-9]{0,61}[a-z0-9])?$"), Kind("name")] = Field(
        description="The name of the plugin. etcd holds it in front of each value, so it cannot"
        " change. Example: `vault`."
    )
    version: Literal["v1", "v2"] = Field(
        default="v2",
        description="The version of the plugin's API: `v2` from Kubernetes 1.27 on, `v1` up to"
        " 1.28.",
    )
    socket: HostPath = Field(
        default="/run/kube-kms/plugin.sock", description="The socket that the plugin listens at."
    )
    timeout: int = Field(
        default=3, ge=1, le=60, description="Seconds that the API server waits for an answer."
    )
    plugin: KmsPlugin | None = Field(
        default=None,
        description="The program that listens at `socket`. Default: the site runs it itself.",
    )


class Encryption(Model):
    """How Secrets are encrypted in etcd."""

    provider: Literal["aescbc", "secretbox", "aesgcm", "kms"] | None = Field(
        default=None,
        description="The provider that encrypts: a build changes between aescbc and secretbox, and"
        " `bundler secrets rotate` to and from `aesgcm` (a weak setting) and `kms`. Default:"
        " aescbc, and secretbox from Kubernetes 1.30 on.",
    )
    resources: tuple[Literal["secrets", "configmaps"], ...] = Field(
        default=("secrets",),
        description="What is encrypted. `secrets` must be among it, and it cannot change in a"
        " cluster that exists. Example: `[secrets, configmaps]`.",
    )
    kms: Kms | None = Field(
        default=None,
        description="The key management service of `provider: kms`. Keep it here until every"
        " value is under another provider.",
    )
