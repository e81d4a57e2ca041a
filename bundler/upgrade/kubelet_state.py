"""Changes of the kubelet's resource managers, after which it refuses to start with old state files.

Source: https://kubernetes.io/docs/tasks/administer-cluster/cpu-management-policies/
"""

import re
from collections.abc import Mapping
from typing import Any

from bundler.bundle.inspect import BundleReport
from bundler.formats.bounded_yaml import YamlError, decode, read_document

CONFIG = "rootfs/etc/kubernetes/kubelet-config.yaml"
UNIT = "rootfs/etc/systemd/system/kubelet.service"
FLAG = re.compile(r"--([a-z-]+)=([^\s\\]+)")
RESERVED = {
    "systemReserved.cpu": "system-reserved",
    "kubeReserved.cpu": "kube-reserved",
    "reservedSystemCPUs": "reserved-cpus",
}
STATE_FILES: Mapping[str, tuple[Mapping[str, str], str]] = {
    "cpu_manager_state": (
        {"cpuManagerPolicy": "cpu-manager-policy", "cpuManagerPolicyOptions": "", **RESERVED},
        "none",
    ),
    "memory_manager_state": (
        {"memoryManagerPolicy": "memory-manager-policy", "reservedMemory": "reserved-memory"},
        "None",
    ),
    "": (
        {
            "topologyManagerPolicy": "topology-manager-policy",
            "topologyManagerScope": "topology-manager-scope",
        },
        "none",
    ),
}
"""State file in the kubelet's directory → fields with their flags, the first of which is the
policy, and the policy without state. The topology manager has no file."""


def list_manual_steps(before: BundleReport, after: BundleReport) -> tuple[str, ...]:
    """Return what to do by hand before install.sh on this host; nothing without such a change."""
    old, new = _read_settings(before), _read_settings(after)
    if old is None or new is None:
        return ()
    changes: list[str] = []
    files: list[str] = []
    for file, (fields, none) in STATE_FILES.items():
        found = [
            field
            for field, flag in fields.items()
            if _get(old, field, flag) != _get(new, field, flag)
        ]
        policy, flag = next(iter(fields.items()))
        if not found or {_get(each, policy, flag) or none for each in (old, new)} == {none}:
            continue
        changes += [f"{f}: {_show(old, f, fields[f])} → {_show(new, f, fields[f])}" for f in found]
        files += [file] if file else []
    if not changes:
        return ()
    node = after.facts["NODE"]
    root = new.get("--root-dir", "/var/lib/kubelet")
    removal = f" && rm -f {' '.join(f'{root}/{file}' for file in files)}" if files else ""
    return (
        f"{'; '.join(changes)}: running pods keep their old placement"
        + (", and the kubelet does not start with its old state file" if files else ""),
        f"kubectl drain {node} --ignore-daemonsets --delete-emptydir-data",
        f"on {node}: systemctl stop kubelet{removal}; then ./install.sh",
        f"kubectl uncordon {node}",
    )


def _read_settings(report: BundleReport) -> dict[str, Any] | None:
    """Return the kubelet's configuration, with its flags as `--NAME`; None without a kubelet."""
    if not (text := report.texts.get(CONFIG)):
        return None
    try:
        config = read_document(decode(text)).data
    except YamlError:
        return None
    unit = report.texts.get(UNIT, b"").decode(errors="replace")
    flags = {f"--{name}": value for name, value in FLAG.findall(unit)}
    return {**config, **flags} if isinstance(config, dict) else None


def _get(settings: Mapping[str, Any], field: str, flag: str) -> Any:
    """The flag's value, which wins, else the field's."""
    value: Any = settings
    for key in field.split("."):
        value = value.get(key) if isinstance(value, dict) else None
    return settings.get(f"--{flag}", value)


def _show(settings: Mapping[str, Any], field: str, flag: str) -> str:
    value = _get(settings, field, flag)
    return "the default" if value is None else str(value)
