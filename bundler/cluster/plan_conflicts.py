"""Checks of `extra` and addresses against the rest of the plan: what a program would refuse or
what would fail later, on the hosts.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction
from ipaddress import IPv4Address, IPv4Interface, IPv4Network
from typing import Any

from bundler.cluster.components import MINORS, minor_of
from bundler.cluster.plan import MAX_PODS, RESERVED_POD_ADDRESSES, features_of
from bundler.cluster.problem import Problem
from bundler.cluster.schema import Cluster, Docker
from bundler.cluster.settings import list_fields, list_flags, make_config, version_of

DOCKER0 = IPv4Network("172.17.0.0/16")
"""The first of Docker's own ranges, which docker0 gets without `bip`."""
BY_FLANNEL = ("bip", "ip-masq", "mtu")
"""Settings of daemon.json that flannel in etcd gives dockerd as options; it refuses both."""
RESERVATIONS = (
    ("kubeReserved", "memory"),
    ("systemReserved", "memory"),
    ("evictionHard", "memory.available"),
)
MEMORY_FLAGS = frozenset({"kube-reserved", "system-reserved", "eviction-hard", "reserved-memory"})
DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h)")
SECONDS = {"ms": Fraction(1, 1000), "s": Fraction(1), "m": Fraction(60), "h": Fraction(3600)}


@dataclass(frozen=True, slots=True)
class ProgramSetting:
    """A flag or a field of a component; the kubelet has some fields as a flag, too."""

    component: str
    field: str = ""
    flag: str = ""

    @property
    def name(self) -> str:
        """As a person writes it."""
        return self.field or f"--{self.flag}"


@dataclass(frozen=True, slots=True)
class SettingValue:
    """The value of a setting, and where cluster.yaml has it."""

    value: Any
    path: tuple[str, ...] | None  # None: it is bundler's value or the program's default


@dataclass(frozen=True, slots=True)
class Order:
    """Two settings of which the first, times `factor`, must be less than the second."""

    small: ProgramSetting
    large: ProgramSetting
    defaults: tuple[str, str]  # the programs' own
    factor: Fraction = Fraction(1)
    or_equal: bool = False
    otherwise: str = "the program does not start"


def _kubelet(field: str, flag: str = "") -> ProgramSetting:
    return ProgramSetting("kubelet", field, flag)


def _election(component: str) -> Iterator[Order]:
    is_flag = component != "kube-scheduler"
    lease, renew, retry = (
        ProgramSetting(component, flag=flag) if is_flag else ProgramSetting(component, field=field)
        for flag, field in (
            ("leader-elect-lease-duration", "leaderElection.leaseDuration"),
            ("leader-elect-renew-deadline", "leaderElection.renewDeadline"),
            ("leader-elect-retry-period", "leaderElection.retryPeriod"),
        )
    )
    yield Order(renew, lease, ("10s", "15s"))
    yield Order(retry, renew, ("2s", "10s"), factor=Fraction(12, 10))


ORDERS = (
    Order(
        _kubelet("imageGCLowThresholdPercent", "image-gc-low-threshold"),
        _kubelet("imageGCHighThresholdPercent", "image-gc-high-threshold"),
        ("80", "85"),
    ),
    Order(
        _kubelet("shutdownGracePeriodCriticalPods"), _kubelet("shutdownGracePeriod"),
        ("0s", "0s"), or_equal=True,
    ),
    Order(
        _kubelet("nodeStatusUpdateFrequency", "node-status-update-frequency"),
        ProgramSetting("kube-controller-manager", flag="node-monitor-grace-period"),
        ("10s", "40s"), otherwise="nodes change between Ready and NotReady",
    ),
    Order(
        ProgramSetting("etcd", flag="heartbeat-interval"),
        ProgramSetting("etcd", flag="election-timeout"),
        ("100", "1000"), factor=Fraction(5), or_equal=True,
    ),
    *_election("kube-controller-manager"),
    *_election("kube-scheduler"),
)  # fmt: skip

POLICIES = {
    _kubelet("cpuManagerPolicy", "cpu-manager-policy"): ("none", "static"),
    _kubelet("memoryManagerPolicy", "memory-manager-policy"): ("None", "Static"),
    _kubelet("topologyManagerPolicy", "topology-manager-policy"): (
        "none", "best-effort", "restricted", "single-numa-node",
    ),
}  # fmt: skip
"""The kubelet's settings with a fixed set of values: with another one it does not start."""

NEEDS: tuple[tuple[ProgramSetting, str, tuple[ProgramSetting, ...]], ...] = (
    (
        _kubelet("cpuManagerPolicy", "cpu-manager-policy"), "static",
        (
            _kubelet("systemReserved.cpu", "system-reserved"),
            _kubelet("kubeReserved.cpu", "kube-reserved"),
            _kubelet("reservedSystemCPUs", "reserved-cpus"),
        ),
    ),
    (
        _kubelet("memoryManagerPolicy", "memory-manager-policy"), "Static",
        (_kubelet("reservedMemory", "reserved-memory"),),
    ),
    (
        _kubelet("enforceNodeAllocatable"), "kube-reserved", (_kubelet("kubeReservedCgroup"),),
    ),
    (
        _kubelet("enforceNodeAllocatable"), "system-reserved", (_kubelet("systemReservedCgroup"),),
    ),
    (_kubelet("systemCgroups"), "", (_kubelet("cgroupRoot"),)),
)  # fmt: skip
"""Setting, its value (empty: any), and the settings of which the kubelet then requires one."""


def check_plan_conflicts(cluster: Cluster) -> Iterator[Problem]:
    """Every setting that contradicts another, or the addresses of the cluster."""
    if minor_of(cluster.kubernetes.version) not in MINORS:
        return
    yield from _check_pods(cluster)
    yield from _check_orders(cluster)
    yield from _check_policies(cluster)
    yield from _check_memory(cluster)
    yield from _check_bridge(cluster)
    yield from _check_upstream(cluster)


def _check_pods(cluster: Cluster) -> Iterator[Problem]:
    """More pods on a node than its pod subnet has addresses: they wait in ContainerCreating."""
    prefix = cluster.network.pod_subnet_prefix
    found = _find(cluster, _kubelet("maxPods", "max-pods"))
    most = 2 ** (32 - prefix) - RESERVED_POD_ADDRESSES
    pods = _number(found.value)
    if found.path is None or pods is None or pods <= most:
        return
    wanted = 32 - (int(pods) + RESERVED_POD_ADDRESSES - 1).bit_length()
    text = (
        f"{int(pods)} pods do not fit into a worker's /{prefix}, which has {most} addresses for"
        f" pods: use {min(MAX_PODS, most)}, or network.pod_subnet_prefix {wanted} in a new cluster"
    )
    yield Problem(path=found.path, text=text)


def _check_orders(cluster: Cluster) -> Iterator[Problem]:
    for order in ORDERS:
        small, large = _find(cluster, order.small), _find(cluster, order.large)
        path = small.path or large.path
        if path is None:
            continue
        shown = [
            default if found.value is None else str(found.value)
            for found, default in zip((small, large), order.defaults, strict=True)
        ]
        one, other = (_number(value) for value in shown)
        if one is None or other is None:  # of the wrong type, which is another problem
            continue
        one *= order.factor
        if one < other or (order.or_equal and one == other):
            continue
        times = f"{float(order.factor):g} times " if order.factor != 1 else ""
        relation = "at most" if order.or_equal else "less than"
        text = (
            f"{times}{order.small.name} ({shown[0]}) must be {relation} {order.large.name}"
            f" ({shown[1]}) of {order.large.component}: otherwise {order.otherwise}"
        )
        yield Problem(path=path, text=text)


def _check_policies(cluster: Cluster) -> Iterator[Problem]:
    """Values that the kubelet does not know, or that need another setting."""
    for setting, choices in POLICIES.items():
        found = _find(cluster, setting)
        if found.path and found.value not in choices:
            text = f"must be one of {', '.join(choices)}, not '{found.value}'"
            yield Problem(path=found.path, text=text)
    for setting, value, needed in NEEDS:
        found = _find(cluster, setting)
        held = found.value if isinstance(found.value, list) else [found.value]
        if found.path is None or (value and value not in held):
            continue
        if not any(_find(cluster, other).value for other in needed):
            names = " or ".join(other.name for other in needed)
            text = (
                f"{setting.name} {value or found.value} needs {names}: set it under extra.kubelet"
            )
            yield Problem(path=found.path, text=text)


def _check_memory(cluster: Cluster) -> Iterator[Problem]:
    """Reserved memory of all NUMA nodes that is not what the node reserves: the kubelet ends."""
    extra = cluster.extra.get("kubelet")
    entries = extra.config.get("reservedMemory") if extra else None
    if extra is None or not isinstance(entries, list) or not MEMORY_FLAGS.isdisjoint(extra.flags):
        return
    limits = [each.get("limits") or {} for each in entries if isinstance(each, dict)]
    held = [_bytes(limit.get("memory", 0)) for limit in limits]
    config = make_config(cluster, "kubelet", lambda _: "null")
    wanted = [_bytes((config.get(field) or {}).get(key, 0)) for field, key in RESERVATIONS]
    if None in held or None in wanted:  # a percentage, or of the wrong type
        return
    total, needed = (sum(filter(None, each)) for each in (held, wanted))
    if total != needed:
        names = " + ".join(f"{field}.{key}" for field, key in RESERVATIONS)
        text = (
            f"the memory of all entries is {total} bytes, and {names} are {needed}: the kubelet"
            " starts only if both are equal"
        )
        yield Problem(path=("extra", "kubelet", "config", "reservedMemory"), text=text)


def _bytes(value: object) -> int | None:
    """The bytes of a quantity such as 100Mi; None for others, such as 10%."""
    match = re.fullmatch(r"(\d+)([KMGT]i?|k)?", str(value))
    if not match:
        return None
    unit = match[2] or ""
    base = 1024 if unit.endswith("i") else 1000
    factor: int = base ** ("KMGT".index(unit[0].upper()) + 1 if unit else 0)
    return int(match[1]) * factor


def _check_bridge(cluster: Cluster) -> Iterator[Problem]:
    """Settings of Docker's bridge that dockerd refuses, and docker0 over other addresses."""
    extra = cluster.extra.get("docker")
    if not isinstance(cluster.runtime, Docker) or extra is None:
        return
    features, config = features_of(cluster), extra.config
    where = ("extra", "docker", "config")
    if "flannel-etcd" in features:
        for key in (key for key in BY_FLANNEL if key in config):
            text = "flannel gives it to dockerd, which refuses it twice: remove it"
            yield Problem(path=(*where, key), text=text)
    elif config.get("bridge") == "none" and "bip" in config:
        yield Problem(path=(*where, "bip"), text="dockerd refuses bip with bridge none: remove one")
    elif "no-docker0" not in features and config.get("bridge", "docker0") in {"", "docker0"}:
        yield from _check_docker0(cluster, config)  # any other is a bridge of the host


def _check_docker0(cluster: Cluster, config: Mapping[str, Any]) -> Iterator[Problem]:
    key = next(key for key in ("bip", *config) if key in config)
    where = ("extra", "docker", "config", key)
    try:
        bridge = IPv4Interface(str(config["bip"])).network if "bip" in config else DOCKER0
    except ValueError:
        text = "must be the bridge's address with its prefix length, such as 172.26.0.1/16"
        yield Problem(path=where, text=text)
        return
    for what, taken in _list_addresses(cluster):
        if bridge.overlaps(taken):
            text = (
                f"docker0 has {bridge}, which overlaps {what}: set bip to a range that nothing"
                " else uses, or remove it: the cluster does not need docker0"
            )
            yield Problem(path=where, text=text)


def _list_addresses(cluster: Cluster) -> Iterator[tuple[str, IPv4Network]]:
    """What the hosts must reach, with its name."""
    network = cluster.network
    yield f"network.pod_cidr {network.pod_cidr}", network.pod_cidr
    yield f"network.service_cidr {network.service_cidr}", network.service_cidr
    yield from ((f"the address of {n.name}", IPv4Network(n.address)) for n in cluster.nodes)
    host = (cluster.control_plane.endpoint or "").rpartition(":")[0]
    if re.fullmatch(r"[\d.]+", host):
        yield f"the endpoint {host}", IPv4Network(host)
    if cluster.dns.upstream != "host":
        yield from ((f"dns.upstream {a}", IPv4Network(a)) for a in cluster.dns.upstream)


def _check_upstream(cluster: Cluster) -> Iterator[Problem]:
    """DNS servers that CoreDNS cannot reach, or that are CoreDNS itself."""
    if cluster.dns.upstream == "host" or cluster.dns.provider == "none":
        return
    network = cluster.network
    ranges = {"service_cidr": network.service_cidr, "pod_cidr": network.pod_cidr}
    for index, address in enumerate(cluster.dns.upstream):
        where = ("dns", "upstream", index)
        for key, cidr in ranges.items():
            if address in cidr:
                text = (
                    f"{address} is inside network.{key} {cidr}: CoreDNS would forward queries to"
                    " the cluster itself; give DNS servers outside the cluster"
                )
                yield Problem(path=where, text=text)
        if not _is_reachable(address):
            text = f"{address} is no DNS server that a pod can reach: give the address of a server"
            yield Problem(path=where, text=text)


def _is_reachable(address: IPv4Address) -> bool:
    return not (address.is_loopback or address.is_unspecified or address.is_multicast)


def _find(cluster: Cluster, setting: ProgramSetting) -> SettingValue:
    """The value from `extra`, where flags win, else that of bundler's tables."""
    extra = cluster.extra.get(setting.component)
    base = ("extra", setting.component)
    if extra and setting.flag in extra.flags:
        return SettingValue(extra.flags[setting.flag], (*base, "flags", setting.flag))
    keys = tuple(setting.field.split(".")) if setting.field else ()
    if extra and keys and (value := _dig(extra.config, keys)) is not None:
        return SettingValue(value, (*base, "config", *keys))
    minor = minor_of(version_of(cluster, setting.component))
    if setting.field:
        rows = [_dig(row["fields"], keys) for row in list_fields(setting.component, minor)]
        return SettingValue(next((v for v in reversed(rows) if v is not None), None), None)
    flags = (r for r in list_flags(setting.component) if r.flag == setting.flag)
    return SettingValue(next((row.value for row in flags if row.holds_for(minor)), None), None)


def _dig(config: Mapping[str, Any], keys: tuple[str, ...]) -> Any:
    value: Any = config
    for key in keys:
        value = value.get(key) if isinstance(value, dict) else None
    return value


def _number(value: object) -> Fraction | None:
    """A number, or the seconds of a duration such as 1m30s; None for anything else."""
    text = str(value)
    if re.fullmatch(r"\d+(\.\d+)?", text):
        return Fraction(text)
    if DURATION.sub("", text) or not text:
        return None
    return sum((Fraction(n) * SECONDS[unit] for n, unit in DURATION.findall(text)), Fraction(0))
