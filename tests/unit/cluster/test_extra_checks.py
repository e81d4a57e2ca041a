"""Checks of `extra`: names that the program of the minor does not have are refused."""

from pathlib import Path

import pytest

from bundler.cluster.loader import load_cluster
from bundler.errors import ConfigError


@pytest.mark.parametrize(
    ("extra", "expected"),
    [
        ("kubelet: {config: {maxPodz: 5}}", r"has no field maxPodz; did you mean 'maxPods'"),
        ("kubelet: {config: {nodefs.available: 5%}}", r"kubelet 1.20 has no field nodefs.available"),
        ("kube-proxy: {config: {kubeProxyIPVSConfiguration: {scheduler: rr}}}", r"kube-proxy 1.20 has no field kubeProxyIPVSConfiguration.scheduler"),
        ("kubelet: {config: {failCgroupV1: false}}", r"has no field failCgroupV1.*; 1.31 to 1.36 have it"),
        ("kube-scheduler: {config: {bindTimeoutSeconds: 600}}", r"has no field bindTimeoutSeconds"),
        ("kubelet: {config: {featureGates: {NoSuchGate: true}}}", r"Kubernetes 1.20 has no feature gate NoSuchGate"),
        ("kube-apiserver: {flags: {feature-gates: 'NoSuchGate=true'}}", r"Kubernetes 1.20 has no feature gate NoSuchGate"),
        ("kubelet: {config: {tracing: {endpoint: a:1}}}", r"has no field tracing.endpoint; 1.25 to 1.36 have it"),
        ("kubelet: {config: {logging: {vmodule: []}}}", r"has no field logging.vmodule; 1.23 to 1.36 have it"),
        ("kubelet: {config: {clientCAFile: /a}}", r"has no field clientCAFile; did you mean 'authentication.x509.clientCAFile'"),
        ("kubelet: {config: {evictionHrd: {memory.available: 1Gi}}}", r"did you mean 'evictionHard'"),
        ("kube-scheduler: {config: {schedulerName: a}}", r"has no field schedulerName; 1.14 to 1.17 have it"),
        ("kube-scheduler: {config: {profiles: [{}, {schedulerNam: a}]}}", r"profiles\[1\].schedulerNam: .*; did you mean 'profiles.schedulerName'"),
        ("kube-scheduler: {config: {leaderElection: {lockObjectName: a}}}", r"lockObjectName; 1.14 to 1.17 have it"),
        ("kube-proxy: {flags: {random-fully: true}}", r"kube-proxy 1.20 has no flag --random-fully"),
        ("kubelet: {config: {featureGates: {PodSecurity: true}}}", r"no feature gate PodSecurity; 1.22 to 1.27 have it"),
        ("kubelet: {config: {featureGates: {GracefulNodeShutdwn: true}}}", r"did you mean 'GracefulNodeShutdown'"),
        ("kubelet: {config: {featureGates: {GracefulNodeShutdown: perhaps}}}", r"GracefulNodeShutdown must be true or false, not 'perhaps'"),
        ("kubelet: {config: {featureGates: {CSINodeInfo: false}}}", r"CSINodeInfo is locked at true from 1.17 on"),
        ("kubelet: {config: {featureGates: 'GracefulNodeShutdown=true'}}", r"featureGates: must be a mapping"),
        ("kubelet: {flags: {feature-gates: 'GracefulNodeShutdown'}}", r"GracefulNodeShutdown must be true or false, not ''"),
        ("kubelet: {flags: {feature-gates: 'AllAlpha=0, CSINodeInfo=f'}}", r"CSINodeInfo is locked at true"),
        ("etcd: {flags: {quota-backend-byte: 1}}", r"etcd 3.4 has no flag --quota-backend-byte; did you mean 'quota-backend-bytes'"),
        ("etcd: {flags: {max-learners: 1}}", r"etcd 3.4 has no flag --max-learners; 3.6 has it"),
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
