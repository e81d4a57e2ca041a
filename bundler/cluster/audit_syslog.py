"""`audit.syslog`: files with which the rsyslog of a control plane follows the audit log.

rsyslog knows rotated files by their inode, keeps its place over restarts, and queues events on disk
while the server does not answer. Source: rsyslog's documentation of imfile, omfwd and queues.
"""

from collections.abc import Iterator
from ipaddress import IPv4Address

from bundler.cluster.client_checks import check_client
from bundler.cluster.problem import Problem
from bundler.cluster.schema import Cluster, Node, Role
from bundler.cluster.schema_audit import AuditSyslog
from bundler.cluster.site_files import SYSLOG_CONFIG, PlannedFile
from bundler.files import SECRET_MODE

CLIENT = "/etc/kubernetes/policy/audit-syslog"
UNIT = "rsyslog.service"
ORIGIN = "audit.syslog"
PORTS = {"tls": 6514, "tcp": 514, "udp": 514}
LARGEST_EVENT = "256k"  # the API server truncates events at 100 KiB; with UDP a message has 64 KiB

CONFIG = """\
# Sends each event of the API server's audit log to a syslog server. Made from audit.syslog.
global(maxMessageSize="{largest}")
module(load="imfile")
template(name="kubernetes-audit" type="string"
    string="<%PRI%>1 %TIMESTAMP:::date-rfc3339% %HOSTNAME% kube-apiserver - audit - %msg%")
ruleset(name="kubernetes-audit" queue.type="LinkedList" queue.filename="kubernetes-audit"
        queue.maxDiskSpace="{queue}m" queue.saveOnShutdown="on") {{
    action(type="omfwd" target="{host}" port="{port}" template="kubernetes-audit"
        action.resumeRetryCount="-1" action.resumeInterval="5" {transport})
}}
input(type="imfile" file="/var/log/kubernetes/audit.log" ruleset="kubernetes-audit"
    tag="kube-apiserver" facility="{facility}" severity="info" reopenOnTruncate="on")
"""
TRANSPORTS = {
    "udp": 'protocol="udp"',
    "tcp": 'protocol="tcp" TCP_Framing="octet-counted"',
    "tls": 'protocol="tcp" TCP_Framing="octet-counted" StreamDriver="gtls" StreamDriverMode="1"'
    ' StreamDriverAuthMode="x509/name" StreamDriverPermittedPeers="{name}"'
    f' StreamDriver.CAFile="{CLIENT}-ca.crt"',
}
CLIENT_PAIR = f' StreamDriver.CertFile="{CLIENT}.crt" StreamDriver.KeyFile="{CLIENT}.key"'


def list_syslog_files(cluster: Cluster, node: Node) -> Iterator[PlannedFile]:
    """Yield rsyslog's configuration and its certificates, for a control plane."""
    syslog = cluster.audit.syslog
    if not syslog or Role.CONTROL_PLANE not in node.roles:
        return
    yield PlannedFile(
        path=SYSLOG_CONFIG, mode=0o644, owner="root:root", source=None,
        content=_render_config(syslog), restart=(UNIT,), origin=ORIGIN,
    )  # fmt: skip
    sources = {
        f"{CLIENT}-ca.crt": (0o644, syslog.ca),
        f"{CLIENT}.crt": (0o644, syslog.certificate),
        f"{CLIENT}.key": (SECRET_MODE, syslog.key),
    }
    for path, (mode, source) in sources.items():
        if source:
            yield PlannedFile(
                path=path,
                mode=mode,
                owner="root:root",
                source=source,
                restart=(UNIT,),
                origin=ORIGIN,
            )


def _render_config(syslog: AuditSyslog) -> str:
    transport = TRANSPORTS[syslog.protocol].format(name=syslog.server_name or syslog.host)
    return CONFIG.format(
        host=syslog.host,
        port=syslog.port or PORTS[syslog.protocol],
        facility=syslog.facility,
        queue=syslog.queue_megabytes,
        largest=LARGEST_EVENT,
        transport=transport + (CLIENT_PAIR if syslog.certificate else ""),
    )


def check_syslog(cluster: Cluster) -> Iterator[Problem]:
    """Files that cannot be used, and keys that do not go together."""
    syslog, where = cluster.audit.syslog, ("audit", "syslog")
    if not syslog:
        return
    yield from check_client(syslog, where)
    if syslog.protocol == "tls" and not syslog.ca:
        text = "tls needs ca: give the CA certificates to trust for the server"
        yield Problem(path=where, text=text)
    if syslog.protocol == "tls" and isinstance(syslog.host, IPv4Address) and not syslog.server_name:
        text = "is an address, which rsyslog does not look for in certificates: add server_name"
        yield Problem(path=(*where, "host"), text=text)
    if syslog.protocol != "tls":
        for field in ("ca", "certificate", "key", "server_name"):
            if getattr(syslog, field):
                text = f"is of no use with {syslog.protocol}: remove it, or set `protocol: tls`"
                yield Problem(path=(*where, field), text=text)
