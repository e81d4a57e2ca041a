"""Schema of cluster.yaml: audit."""

from pathlib import Path
from typing import Literal

from pydantic import Field

from bundler.cluster.schema_policy import ClientCertificate, ClientKey, Webhook
from bundler.cluster.values import DnsName, Model, San

SyslogFacility = Literal[
    "auth", "authpriv", "daemon", "user",
    "local0", "local1", "local2", "local3", "local4", "local5", "local6", "local7",
]  # fmt: skip


class AuditLog(Model):
    """The files of the audit log on each control plane."""

    max_age_days: int | None = Field(
        default=None, ge=0, le=3650, description="Days that rotated files are kept. Default: 15."
    )
    max_files: int | None = Field(
        default=None, ge=0, le=1000, description="Rotated files that are kept. Default: 10."
    )
    max_megabytes: int | None = Field(
        default=None, ge=1, le=10000, description="The size at which a file ends. Default: 100."
    )
    mode: Literal["batch", "blocking", "blocking-strict"] | None = Field(
        default=None,
        description="Whether requests wait until their event is written: `batch` does not wait,"
        " `blocking` does, and `blocking-strict` refuses a request whose event cannot be written."
        " Default: batch.",
    )


class AuditWebhook(Webhook):
    """A server that gets every event of the audit log, in lists of events."""

    mode: Literal["batch", "blocking", "blocking-strict"] = Field(
        default="batch",
        description="Whether requests wait until the server has their event, as in `log`.",
    )
    buffer_size: int = Field(
        default=10000, ge=1, le=1000000, description="Events that wait for the server."
    )
    max_batch_size: int = Field(
        default=400, ge=1, le=100000, description="Events in one request at most."
    )
    max_batch_wait: int = Field(
        default=30, ge=1, le=3600, description="Seconds until a smaller batch is sent."
    )
    initial_backoff: int = Field(
        default=10, ge=1, le=3600, description="Seconds until the first retry."
    )


class AuditSyslog(Model):
    """A syslog server (RFC 5424) that gets every event of the audit log, by the host's rsyslog."""

    host: San = Field(description="The server's DNS name or IPv4 address. Example: `logs.example`.")
    port: int | None = Field(
        default=None,
        ge=1,
        le=65535,
        description="The server's port. Default: 6514 with tls, else 514.",
    )  # fmt: skip
    protocol: Literal["tls", "tcp", "udp"] = Field(
        default="tls",
        description="How events are carried. `tls` needs `ca`, and rsyslog 8.2108 or later with its"
        " gtls driver (package rsyslog-gnutls). `tcp` and `udp` are not encrypted, and `udp` loses"
        " events.",
    )
    ca: Path | None = Field(
        default=None,
        description="A PEM file with the CA certificates to trust for the server; the path is"
        " relative to cluster.yaml. Default: none.",
    )
    server_name: DnsName | None = Field(
        default=None,
        description="The DNS name that the server's certificate must have; needed where `host` is"
        " an address, which rsyslog does not look for in certificates. Default: `host`.",
    )
    certificate: ClientCertificate = None
    key: ClientKey = None
    facility: SyslogFacility = Field(
        default="local0", description="The facility of the messages. Their severity is info."
    )
    queue_megabytes: int = Field(
        default=1024, ge=16, le=100000,
        description="Disk space on each control plane for events that wait for the server.",
    )  # fmt: skip


class Audit(Model):
    """What API servers record in their audit log, and where events go."""

    policy: Path | None = Field(
        default=None,
        description="A file with an audit policy (`audit.k8s.io/v1`) that replaces bundler's. The"
        " path is relative to cluster.yaml; rules that log secrets are warnings. Default: who"
        " changed what, without the content of anything that can hold a secret.",
    )
    log: AuditLog = Field(
        default=AuditLog(), description="The files of the audit log on each control plane."
    )
    webhook: AuditWebhook | None = Field(
        default=None, description="A server that gets every event, in addition to the files."
    )
    syslog: AuditSyslog | None = Field(
        default=None,
        description="A syslog server that gets every event, in addition to the files. The hosts"
        " need rsyslog.",
    )
