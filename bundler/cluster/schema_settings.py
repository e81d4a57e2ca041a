"""Schema of cluster.yaml: Kubernetes, etcd, DNS, certificates, and the upkeep of the cluster."""

from typing import Annotated, Literal

from pydantic import Field

from bundler.catalog import default_kubernetes
from bundler.cluster.values import (
    Address,
    Calendar,
    DnsLabel,
    HostPath,
    Joins,
    LineName,
    Model,
    PerHost,
    Reason,
    Version,
)


class Kubernetes(Model):
    """The Kubernetes version, and the kubelet's directory."""

    version: Version = Field(
        default_factory=default_kubernetes,
        description="The version of Kubernetes, 1.14 to 1.37. Most other components get the version"
        " that belongs to this minor unless their own key says otherwise. Without it a newer"
        " bundler may take a newer one: name it for a cluster that stays. Example: `1.36.4`.",
    )
    kubelet_root: Annotated[HostPath, PerHost()] = Field(
        default="/var/lib/kubelet",
        description="The kubelet's directory: pod volumes, and its own certificates.",
    )


class EtcdBackup(Model):
    """Snapshots of etcd, taken on each member by etcd-backup.timer."""

    enabled: bool = Field(default=True, description="Take snapshots on every etcd member.")
    schedule: Calendar = Field(
        default="00/6:30",
        description="When snapshots are taken: OnCalendar of systemd.time(7). The default is 00:30,"
        " 06:30, 12:30 and 18:30.",
    )
    keep: int = Field(
        default=8,
        ge=1,
        le=1000,
        description="How many snapshots are kept in `directory`, the oldest being deleted first."
        " Each is as large as the database was.",
    )
    directory: HostPath = Field(
        default="/var/backups/etcd",
        description="Where snapshots are stored on each member. It must not be in etcd's own"
        " directories.",
    )
    copy_to: HostPath | None = Field(
        default=None,
        description="A mount point of another machine or disk, to which snapshots are also copied."
        " While nothing is mounted there the copy fails with an error. Example: `/mnt/backup`.",
    )


class Etcd(Model):
    """The etcd version, its directories and its maintenance."""

    version: Version | None = Field(
        default=None,
        description="The version of etcd. Default: the version that belongs to the Kubernetes"
        " minor.",
    )
    data_dir: Annotated[HostPath, PerHost()] = Field(
        default="/var/lib/etcd",
        description="The directory of etcd's data. uninstall.sh removes it only with --purge-data.",
    )
    wal_dir: Annotated[HostPath | None, PerHost()] = Field(
        default=None,
        description="A directory on another disk for the write-ahead log. Default: inside"
        " `data_dir`. Example: `/data/etcd-wal`.",
    )
    defragment: Calendar = Field(
        default="Sun 03:00",
        description="When each member returns unused space to the disk: OnCalendar of"
        " systemd.time(7). Members do it one after another, and only while all are healthy.",
    )
    backup: Annotated[EtcdBackup, PerHost()] = Field(
        default=EtcdBackup(), description="Snapshots of etcd that each member takes by itself."
    )


class Dns(Model):
    """Cluster DNS."""

    provider: Literal["coredns", "none"] = Field(
        default="coredns",
        description="The DNS server of the cluster. With `none` pods cannot find Services by name.",
    )
    version: Version | None = Field(
        default=None,
        description="The version of CoreDNS. Default: the version that belongs to the Kubernetes"
        " minor.",
    )
    replicas: int = Field(default=2, ge=1, le=20, description="How many CoreDNS pods run.")
    upstream: Literal["host"] | tuple[Address, ...] = Field(
        default="host",
        description="The DNS servers for names outside the cluster: `host` for the resolvers of the"
        " node, or a list of addresses. With `[]` pods can resolve only names of the cluster."
        " Example: `[192.0.2.53]`.",
    )


class MetricsServer(Model):
    """metrics-server, which `kubectl top` and autoscalers read."""

    version: Version | None = Field(
        default=None,
        description="The version of metrics-server. Default: the version that belongs to the"
        " Kubernetes minor.",
    )


class PkiSettings(Model):
    """CAs, key type and lifetimes of certificates."""

    authorities: Literal["separate", "single"] = Field(
        default="separate",
        description="`separate`: Kubernetes, etcd and the front proxy each have their own CA."
        " `single`: one CA signs everything, and etcd accepts every client certificate of the"
        " cluster; only for compatibility.",
    )
    key: Literal["ecdsa-p256", "rsa-2048"] = Field(
        default="ecdsa-p256",
        description="The key type of CAs and certificates. `rsa-2048` is for clients that cannot"
        " use ECDSA.",
    )
    ca_days: int = Field(
        default=3650, ge=30, le=36500, description="How many days a new CA certificate is valid."
    )
    days: int = Field(
        default=365,
        ge=1,
        le=3650,
        description="How many days other new certificates are valid. `bundler certs renew` issues"
        " new ones.",
    )
    token_days: int = Field(
        default=30,
        ge=1,
        le=365,
        description="How many days after its creation a worker can join with its bootstrap token."
        " A build replaces tokens that have ended. A token is used once: a host that is installed"
        " again needs a new one from `bundler tokens renew`.",
    )


class Security(Model):
    """Weak settings that this cluster needs, and the users of its units."""

    accept: Annotated[tuple[DnsLabel, ...], Joins()] = Field(
        default=(),
        description="The names of settings that weaken the cluster and are wanted. `bundler check`"
        " names each that it finds; without its name here `--strict` refuses it. RUNBOOK.md and"
        " verify.sh list what is accepted. Example: `[apiserver-profiling]`.",
    )
    user_ids: dict[DnsLabel, Annotated[int, Field(ge=1, le=60000)]] = Field(
        default_factory=dict,
        description="UIDs of the users that units run as, where those of bundler (640 to 649) are"
        " taken on a host; each is the GID of the user's group too. The same on all hosts."
        " Example: `{etcd: 2640, kube-apiserver: 2641}`.",
    )


class Lifecycle(Model):
    """Release lines that upstream no longer maintains."""

    accept: dict[LineName, Reason] = Field(
        default_factory=dict,
        description="Release lines that get no more fixes and are used all the same, each with the"
        " reason. `bundler check` names each line that has ended, when, and what to take instead;"
        " without its name here `--strict` refuses it. RUNBOOK.md shows the reasons."
        " Example: `{kubernetes-1.20: the vendor supports nothing newer until 2027-06}`.",
    )


class Upgrade(Model):
    """How workers are upgraded one after another."""

    max_unavailable: int = Field(
        default=1,
        ge=1,
        le=1000,
        description="How many workers may be drained or not Ready at the same time. Other workers"
        " wait.",
    )
    drain_minutes: int = Field(
        default=10,
        ge=1,
        le=240,
        description="How many minutes a drain may take. Pod disruption budgets are respected; if"
        " pods are still there after that time, the installation stops and changes nothing.",
    )


class Monitoring(Model):
    """What hosts write for a monitoring system."""

    textfile_dir: Annotated[HostPath, PerHost()] = Field(
        default="/var/lib/prometheus/node-exporter",
        description="The directory of node_exporter's textfile collector (its flag"
        " --collector.textfile.directory). If it exists, kube-certs.timer writes there when each"
        " certificate of the host expires. The default is Debian's.",
    )
