"""Checks of `extra`: names that the program of the minor does not have are refused."""

import re
from pathlib import Path

import pytest

from bundler.cluster.loader import load_cluster
from bundler.errors import ConfigError

MARKS = re.compile(r"^    (labels|taints): .*\n", re.MULTILINE)
"""With labels or taints of a node, those of the kubelet are refused."""


@pytest.mark.parametrize(
    ("extra", "expected"),
    [
        ("kubelet: {config: {maxPodz: 5}}", r"has no field maxPodz; did you mean 'maxPods'"),
        ("kubelet: {config: {nodefs.available: 5%}}", r"kubelet 1.20 has no field nodefs.available"),
        ("kubelet: {config: {logging.format: json}}", r"no field logging.format with a dot in its name; write logging: {format: …}"),
        ("kubelet: {config: {evictionSoft.memory.available: 5%}}", r"with a dot in its name; write evictionSoft: {memory.available: …}"),
        ("kube-proxy: {config: {kubeProxyIPVSConfiguration: {scheduler: rr}}}", r"kube-proxy 1.20 has no field kubeProxyIPVSConfiguration.scheduler"),
        ("kubelet: {config: {defaultPodSysctls: {net.ipv4.tcp_syncookies: '1'}}}", r"has no field defaultPodSysctls.*; 1.37 has it"),
        ("kubelet: {config: {failCgroupV1: false}}", r"has no field failCgroupV1.*; 1.31 to 1.37 have it"),
        ("kube-scheduler: {config: {bindTimeoutSeconds: 600}}", r"has no field bindTimeoutSeconds"),
        ("kubelet: {config: {featureGates: {NoSuchGate: true}}}", r"Kubernetes 1.20 has no feature gate NoSuchGate"),
        ("kube-apiserver: {flags: {feature-gates: 'NoSuchGate=true'}}", r"Kubernetes 1.20 has no feature gate NoSuchGate"),
        ("kubelet: {config: {tracing: {endpoint: a:1}}}", r"has no field tracing.endpoint; 1.25 to 1.37 have it"),
        ("kubelet: {config: {logging: {vmodule: []}}}", r"has no field logging.vmodule; 1.23 to 1.37 have it"),
        ("kubelet: {config: {clientCAFile: /a}}", r"has no field clientCAFile; did you mean 'authentication.x509.clientCAFile'"),
        ("kubelet: {config: {evictionHrd: {memory.available: 1Gi}}}", r"did you mean 'evictionHard'"),
        ("kube-scheduler: {config: {schedulerName: a}}", r"has no field schedulerName; 1.14 to 1.17 have it"),
        ("kube-scheduler: {config: {profiles: [{}, {schedulerNam: a}]}}", r"profiles\[1\].schedulerNam: .*; did you mean 'profiles.schedulerName'"),
        ("kube-scheduler: {config: {leaderElection: {lockObjectName: a}}}", r"lockObjectName; 1.14 to 1.17 have it"),
        ("kube-proxy: {flags: {random-fully: true}}", r"kube-proxy 1.20 has no flag --random-fully"),
        ("kubelet: {config: {featureGates: {PodSecurity: true}}}", r"no feature gate PodSecurity; 1.22 to 1.27 have it"),
        ("kubelet: {config: {featureGates: {GracefulNodeShutdwn: true}}}", r"did you mean 'GracefulNodeShutdown'"),
        ("kubelet: {config: {featureGates: {GracefulNodeShutdown: perhaps}}}", r"GracefulNodeShutdown: must be true or false, not 'perhaps'"),
        ("kubelet: {config: {featureGates: {CSINodeInfo: false}}}", r"CSINodeInfo is locked at true from 1.17 on"),
        ("kubelet: {config: {featureGates: 'GracefulNodeShutdown=true'}}", r"featureGates: must be a mapping"),
        ("kubelet: {flags: {feature-gates: 'GracefulNodeShutdown'}}", r"GracefulNodeShutdown must be true or false, not ''"),
        ("kubelet: {flags: {feature-gates: 'AllAlpha=0, CSINodeInfo=f'}}", r"CSINodeInfo is locked at true"),
        ("etcd: {flags: {quota-backend-byte: 1}}", r"etcd 3.4 has no flag --quota-backend-byte; did you mean 'quota-backend-bytes'"),
        ("etcd: {flags: {max-learners: 1}}", r"etcd 3.4 has no flag --max-learners; 3.6 to 3.7 have it"),
        ("kube-apiserver: {flags: {insecure-prt: 0}}", r"has no flag --insecure-prt; did you mean 'insecure-port'"),
    ],
)  # fmt: skip
def test_a_name_that_the_program_does_not_have_is_refused(
    description: Path, extra: str, expected: str
) -> None:
    text = description.read_text()
    description.write_text(text[: text.index("extra:\n")] + f"extra:\n  {extra}\n")
    with pytest.raises(ConfigError, match=expected):
        load_cluster(description)


@pytest.mark.parametrize(
    "extra",
    [
        "kubelet: {config: {evictionSoft: {memory.available: 200Mi}, systemReserved: {cpu: 100m}}}",
        "kubelet: {config: {featureGates: {GracefulNodeShutdown: true, AllAlpha: false}}}",
        "kube-proxy: {config: {conntrack: {maxPerCore: 0}}}",
        "kube-scheduler: {config: {percentageOfNodesToScore: 50}}",
        "kubelet: {config: {}}",
        "kube-scheduler: {config: {profiles: [{schedulerName: a, plugins: {score: {disabled: [{name: '*'}]}}}], extenders: []}}",
        "kubelet: {config: {logging: {format: json}, registryBurst: 3}}",
        "kubelet: {flags: {feature-gates: 'GracefulNodeShutdown=T, CSINodeInfo=true,'}}",
        "kubelet: {flags: {v: 4}}",
        "kubelet: {flags: {v: 4}, config: {}}",
    ],
)
def test_flags_and_fields_of_the_minor_are_accepted(description: Path, extra: str) -> None:
    text = description.read_text()
    description.write_text(text[: text.index("extra:\n")] + f"extra:\n  {extra}\n")
    load_cluster(description)


@pytest.mark.parametrize("value", ["~", "[~]", "{a: ~}", "{a: [{b: [~]}]}"])
def test_a_null_in_a_toml_file_is_refused(description: Path, value: str) -> None:
    text = description.read_text()
    text = text[: text.index("extra:\n")] + f"extra:\n  containerd: {{config: {{x: {value}}}}}\n"
    description.write_text(text.replace("engine: docker, version: 20.10.24", "engine: containerd"))
    with pytest.raises(
        ConfigError, match=r"extra.containerd.config.x.*: the file of containerd has no null"
    ):
        load_cluster(description)


TAINT = "{key: a, effect: NoSchedule, timeAdded: 3}"


@pytest.mark.parametrize(
    ("minor", "extra", "expected"),
    [
        ("1.20", "kubelet: {config: {maxPods: ten}}", "config.maxPods: must be a whole number of 32 bits, not 'ten'"),
        ("1.20", "kubelet: {config: {maxPods: '110'}}", "not '110': write 110 without quotes"),
        ("1.20", "kubelet: {config: {podsPerCore: 4294967296}}", "must be a whole number of 32 bits"),
        ("1.20", "kubelet: {config: {maxPods: 1.5}}", "not 1.5"),
        ("1.20", "kubelet: {config: {maxPods: true}}", "not true"),
        ("1.20", "kubelet: {config: {failSwapOn: 'no way'}}", "must be true or false, not 'no way'"),
        ("1.20", "kubelet: {config: {failSwapOn: 'False'}}", "write false without quotes"),
        ("1.20", "kubelet: {config: {imageMinimumGCAge: 120}}", "must be a duration such as 30s or 1h30m, not 120"),
        ("1.20", "kubelet: {config: {imageMinimumGCAge: 2 minutes}}", "must be a duration"),
        ("1.20", "kubelet: {config: {systemReserved: {cpu: 1}}}", "systemReserved.cpu: must be text, not 1: write '1' with quotes"),
        ("1.20", "kubelet: {config: {kubeReserved: {memory: 1024}}}", "kubeReserved.memory: must be text, not 1024: write '1024' with quotes"),
        ("1.20", "kubelet: {config: {evictionSoft: nil}}", "evictionSoft: must be a mapping, not 'nil'"),
        ("1.20", "kubelet: {config: {evictionHard: memory.available}}", "evictionHard: must be a mapping"),
        ("1.20", "kubelet: {config: {authorization: Webhook}}", "authorization: must be a mapping, not 'Webhook'"),
        ("1.20", "kubelet: {config: {authorization: {webhook: {cacheAuthorizedTTL: 5}}}}", "cacheAuthorizedTTL: must be a duration"),
        ("1.20", "kubelet: {config: {allowedUnsafeSysctls: 'net.*'}}", "must be a list, not 'net"),
        ("1.20", "kubelet: {config: {allowedUnsafeSysctls: [1]}}", r"allowedUnsafeSysctls\[0\]: must be text"),
        ("1.20", "kubelet: {config: {staticPodURLHeader: {a: b}}}", "staticPodURLHeader.a: must be a list"),
        ("1.20", "kubelet: {config: {featureGates: {GracefulNodeShutdown: 'true'}}}", "write true without quotes"),
        ("1.20", "kube-proxy: {config: {conntrack: {maxPerCore: many}}}", "maxPerCore: must be a whole number"),
        ("1.20", "kube-proxy: {config: {ipvs: {excludeCIDRs: 10.0.0.0/8}}}", "excludeCIDRs: must be a list"),
        ("1.20", "kube-scheduler: {config: {profiles: 3}}", "profiles: must be a list, not 3"),
        ("1.20", "kube-scheduler: {config: {profiles: [3]}}", "must be a mapping, not 3"),
        ("1.20", "kube-scheduler: {config: {profiles: [{plugins: 3}]}}", r"profiles\[0\].plugins: must be a mapping, not 3"),
        ("1.20", "kube-scheduler: {config: {profiles: [{plugins: {score: {enabled: [{name: a, weight: b}]}}}]}}", "weight: must be a whole number"),
        ("1.20", "kube-scheduler: {config: {profiles: [{plugins: {score: {enable: []}}}]}}", "enable: is not a field; fields: disabled, enabled"),
        ("1.20", "kube-scheduler: {config: {profiles: [{plugins: {scores: {}}}]}}", "has no field profiles.plugins.scores"),
        ("1.20", "kube-scheduler: {config: {extenders: [{urlPrefix: 'http://a', tlsConfig: {insecure: 1}}]}}", "insecure: must be true or false"),
        ("1.30", f"kubelet: {{config: {{registerWithTaints: [{TAINT}]}}}}", "timeAdded: must be text"),
        ("1.30", "kubelet: {config: {reservedMemory: [{numaNode: 0, limits: {memory: lots}}]}}", "memory: must be a quantity"),
        ("1.24", "kubelet: {config: {logging: {flushFrequency: 5s}}}", "flushFrequency: must be a whole number, not '5s'"),
        ("1.30", "kubelet: {config: {logging: {flushFrequency: soon}}}", "must be a duration such as 30s or 1h30m or a whole number"),
        ("1.20", "docker: {config: {insecure-registries: a.example}}", "insecure-registries: must be a list, not 'a.example'"),
        ("1.20", "docker: {config: {log-opts: {max-file: 3}}}", "log-opts.max-file: must be text, not 3: write '3' with quotes"),
        ("1.20", "docker: {config: {insecure-registry: []}}", "docker 20.10 has no field insecure-registry; did you mean 'insecure-registries'"),
        ("1.20", "docker: {config: {cdi-spec-dirs: []}}", "docker 20.10 has no field cdi-spec-dirs; 25.0 to 28.5 have it"),
        ("1.20", "docker: {config: {live-restore: 'yes'}}", "live-restore: must be true or false, not 'yes'"),
        ("1.20", "docker: {config: {log-opts: 3}}", "log-opts: must be a mapping, not 3"),
        ("1.30", "containerd: {config: {plugins: 3}}", "plugins: must be a mapping, not 3"),
        ("1.30", "containerd: {config: {plugins: {io.containerd.grpc.v1.cri: {registry: {config_path: [a]}}}}}", "config_path: must be text, not a list"),
    ],
)  # fmt: skip
def test_a_value_that_the_program_cannot_read_is_refused_once(
    description: Path, minor: str, extra: str, expected: str
) -> None:
    text = MARKS.sub("", description.read_text())
    text = text[: text.index("extra:\n")] + f"extra:\n  {extra}\n"
    if minor != "1.20":
        text = text.replace("1.20.2", f"{minor}.1")
        text = text.replace("engine: docker, version: 20.10.24", "engine: containerd")
    description.write_text(text)
    with pytest.raises(ConfigError, match=expected) as raised:
        load_cluster(description)
    assert str(raised.value).count("extra.") == 1, raised.value


@pytest.mark.parametrize(
    "extra",
    [
        "kubelet: {config: {imageMinimumGCAge: '0', nodeStatusReportFrequency: 1h2m3.5s, kubeAPIQPS: ~}}",
        "kubelet: {config: {cpuCFSQuotaPeriod: 100ms, reservedMemory: [{numaNode: 0, limits: {memory: 100Mi}}]}}",
        "kubelet: {config: {logging: {flushFrequency: 5000000000, options: {json: {infoBufferSize: '0'}}}}}",
        "kubelet: {config: {registerWithTaints: [{key: a, effect: NoSchedule}], podPidsLimit: -1}}",
        "kube-proxy: {config: {clientConnection: {qps: 1.5}, iptables: {masqueradeBit: 14}}}",
        "kube-scheduler: {config: {profiles: [{pluginConfig: [{name: a, args: {any: [thing, 3]}}]}]}}",
        "containerd: {config: {plugins: {own: [3]}, oom_score: -999, debug: {level: info}}}",
    ],
)  # fmt: skip
def test_values_that_the_program_can_read_are_accepted(description: Path, extra: str) -> None:
    text = MARKS.sub("", description.read_text()).replace("1.20.2", "1.26.1")
    text = text[: text.index("extra:\n")] + f"extra:\n  {extra}\n"
    description.write_text(text.replace("engine: docker, version: 20.10.24", "engine: containerd"))
    load_cluster(description)


@pytest.mark.parametrize(
    ("version", "extra", "expected"),
    [
        ("1.31.14", "flags: {feature-gates: ComponentSLIs=false}", ""),
        ("1.32.13", "flags: {feature-gates: ComponentSLIs=false}", "ComponentSLIs is locked at true from 1.32 on"),
        ("1.33.13", "flags: {feature-gates: MultiCIDRServiceAllocator=false}", ""),
        ("1.34.10", "flags: {feature-gates: MultiCIDRServiceAllocator=false}", "is locked at true from 1.34 on"),
        ("1.34.10", "config: {featureGates: {SystemdWatchdog: false}}", ""),
        ("1.35.7", "config: {featureGates: {SystemdWatchdog: false}}", "is locked at true from 1.35 on"),
        ("1.36.4", "config: {featureGates: {DisableCPUQuotaWithExclusiveCPUs: false}}", ""),
        ("1.37.1", "config: {featureGates: {DisableCPUQuotaWithExclusiveCPUs: false}}", "is locked at true from 1.37 on"),
        ("1.36.4", "config: {featureGates: {ReloadKubeletClientCAFile: false}}", ""),
        ("1.36.4", "config: {featureGates: {SidecarContainers: true}}", ""),
        ("1.37.1", "config: {featureGates: {SidecarContainers: true}}", "no feature gate SidecarContainers; 1.28 to 1.36 have it"),
        ("1.37.1", "flags: {feature-gates: DeclarativeValidationTakeover=true}", "is locked at false from 1.37 on"),
        ("1.37.1", "config: {featureGates: {SELinuxMount: false}}", ""),
        ("1.37.1", "config: {defaultPodSysctls: {net.ipv4.tcp_syncookies: '1'}}", ""),
        ("1.36.4", "flags: {boot-id-file: /a}", ""),
        ("1.37.1", "flags: {boot-id-file: /a}", "has no flag --boot-id-file; 1.14 to 1.36 have it"),
        ("1.37.1", "flags: {containerd-namespace: k8s.io}", "has no flag --containerd-namespace; 1.20 to 1.36 have it"),
        ("1.37.1", "flags: {housekeeping-interval: 10s}", ""),
    ],
)  # fmt: skip
def test_what_a_newer_kubelet_refuses_at_its_start_is_refused(
    tmp_path: Path, version: str, extra: str, expected: str
) -> None:
    path = tmp_path / "cluster.yaml"
    path.write_text(
        "apiVersion: bundler/v1alpha1\nname: small\nruntime: {engine: containerd}\n"
        f"kubernetes: {{version: {version}}}\n"
        "nodes: [{name: one, address: 192.0.2.1, roles: [etcd, control-plane, worker]}]\n"
        f"extra: {{kubelet: {{{extra}}}}}\n"
    )
    if expected:
        with pytest.raises(ConfigError, match=expected):
            load_cluster(path)
    else:
        load_cluster(path)
