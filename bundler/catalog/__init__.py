"""The catalog: upstream files with their digests, and versions that belong together.

pins.tsv              component, version, arch, algorithm, digest, URL, how many public sources
                      state the digest, and which
kubernetes-programs.tsv  the same for Kubernetes' programs: a row is a version and machine, a column
                      the sha256 of a program; a second row has those that other sources state
defaults.tsv          Kubernetes minor, component, version, and the source of that pairing
flags.yaml            flags that bundler sets, with reasons (bundler/cluster/settings.py)
fields.yaml           configuration fields that bundler sets, with reasons: the same
accepted-flags.tsv    flags of the real programs, by minor (bundler/cluster/accepted.py)
accepted-fields.tsv   configuration fields of the real programs: the same
deprecated-flags.tsv  flags that upstream has deprecated: the same
feature-gates.tsv     feature gates of Kubernetes: the same
known-addons.yaml     add-ons that were tried (bundler/cluster/known_addons.py)
known-addon-images.tsv  the images of each of their releases
apis.tsv              kinds of the Kubernetes API, with group and version: the same
key-settings.tsv      what keys of cluster.yaml set (bundler/cluster/extra_checks.py)
cis.tsv               checks of the CIS benchmark and the STIG (bundler/cluster/cis.py)
profile-keys.tsv      what `profile` sets in other keys (bundler/cluster/profile.py)
weakenings.tsv        settings that weaken the cluster (bundler/cluster/weakenings.py)
advisories.tsv        known vulnerabilities of what bundles hold
advisories.py         the rows of advisories.tsv
end-of-life.tsv       until when upstream maintains a release line
lifecycles.py         the rows of end-of-life.tsv
service-users.tsv     users of units (bundler/cluster/service_users.py)
unit-files.tsv        what these units read and own: the same
sandbox.tsv           sandboxes of units: the same
sandbox-levels.tsv    their exposure levels, before and after (docs/reference/service-users.md)
hot_reload.tsv        which program reloads which file (bundler/pki/hot_reload.py)
kubernetes.py         which upstream files Kubernetes' programs come from
signatures.py         how upstream projects sign their files
licences.py           the project and licence of each program
licences.tsv          the rows of licences.py
"""

import csv
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from itertools import zip_longest

KUBERNETES_PROGRAMS = (
    "kube-apiserver",
    "kube-controller-manager",
    "kube-scheduler",
    "kubectl",
    "kubelet",
    "kube-proxy",
)
"""Kubernetes' programs in bundles: upstream publishes each alone, and all in one archive."""

_PROGRAM_URL = "https://dl.k8s.io/release/v{version}/bin/linux/{arch}/"

URLS = {
    "kubernetes-server": "https://dl.k8s.io/v{version}/kubernetes-server-linux-{arch}.tar.gz",
    "kubernetes-node": "https://dl.k8s.io/v{version}/kubernetes-node-linux-{arch}.tar.gz",
    "etcd": "https://github.com/etcd-io/etcd/releases/download/v{version}/etcd-v{version}-linux-{arch}.tar.gz",
    "docker": "https://download.docker.com/linux/static/stable/{machine}/docker-{version}.tgz",
    "cni-plugins": "https://github.com/containernetworking/plugins/releases/download/v{version}/cni-plugins-linux-{arch}-v{version}.tgz",
    "containerd": "https://github.com/containerd/containerd/releases/download/v{version}/containerd-{version}-linux-{arch}.tar.gz",
    "crictl": "https://github.com/kubernetes-sigs/cri-tools/releases/download/v{version}/crictl-v{version}-linux-{arch}.tar.gz",
    "cri-dockerd": "https://github.com/Mirantis/cri-dockerd/releases/download/v{version}/cri-dockerd-{version}.{arch}.tgz",
    "flanneld": "https://github.com/flannel-io/flannel/releases/download/v{version}/flanneld-{arch}",
    "kube-router": "https://github.com/cloudnativelabs/kube-router/releases/download/v{version}/kube-router_{version}_linux_{arch}.tar.gz",
    "helm": "https://get.helm.sh/helm-v{version}-linux-{arch}.tar.gz",
    "flannel-cni-plugin": "https://github.com/flannel-io/cni-plugin/releases/download/v{version}/flannel-{arch}",
    "registry": "https://github.com/distribution/distribution/releases/download/v{version}/registry_{version}_linux_{arch}.tar.gz",
    "runc": "https://github.com/opencontainers/runc/releases/download/v{version}/runc.{arch}",
    **{program: f"{_PROGRAM_URL}{program}" for program in KUBERNETES_PROGRAMS},
}  # fmt: skip
"""Component → where upstream publishes it; used for versions without a pin.

No bundle has files of kubernetes-node or flannel-cni-plugin: the programs of nodes come from the
server's archive or are downloaded alone, and flannel uses plugins of cni-plugins. They can still be
listed and pinned. helm renders charts while a bundle is built, and is in none either.
"""

CHECKSUMS = {
    "kubernetes-server": ("sha512", "{url}.sha512"),
    "kubernetes-node": ("sha512", "{url}.sha512"),
    "etcd": ("sha256", "{directory}/SHA256SUMS"),
    "cni-plugins": ("sha256", "{url}.sha256"),
    "containerd": ("sha256", "{url}.sha256sum"),
    "crictl": ("sha256", "{url}.sha256"),
    "runc": ("sha256", "{directory}/runc.sha256sum"),
    **dict.fromkeys(KUBERNETES_PROGRAMS, ("sha256", "{url}.sha256")),
}
"""Component → algorithm and URL of the digest that upstream publishes next to the file.

Docker, cri-dockerd, distribution and flannel publish none in such a file; kube-router publishes a
list whose name differs between versions.
"""

BUILD_TOOLS = frozenset(("helm",))
"""Components that only the build runs: they are in no bundle and in no lock."""

UNPINNED = frozenset(("kube-router",))
"""Components without a pin: no public source but upstream's own page states their digests."""

KUBERNETES_ARCHIVE = "kubernetes-server"
COMPONENTS = tuple(URLS)
MAX_SIZES = dict.fromkeys(COMPONENTS, 256 << 20) | {
    "kubernetes-server": 1 << 30,
    "kubernetes-node": 512 << 20,
}
"""Component → the bytes that its file may have, more than twice the largest of upstream's.

A digest is checked when all of a file was read, and a mirror may send without end.
"""
_Key = tuple[tuple[int, str], ...]
MACHINES = {"amd64": "x86_64", "arm64": "aarch64"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Artifact:
    """One upstream file: its URL and its digest."""

    component: str
    version: str
    arch: str
    url: str
    algorithm: str  # sha256 | sha512
    digest: str  # lower-case hexadecimal
    source: str  # where the digest comes from
    sources: int = 0  # public sources that state the digest; 0: it is not of the catalog
    made_from: tuple[str, ...] = ()  # purls of a distribution's packages; none: upstream's release
    most: int  # bytes that a file of its kind may have
    size: int | None = None  # bytes, if known

    @property
    def pin(self) -> str:
        """`sha256:…`; empty without a digest."""
        return f"{self.algorithm}:{self.digest}" if self.digest else ""

    @property
    def label(self) -> str:
        """`etcd 3.4.23 (amd64)`."""
        return f"{self.component} {self.version} ({self.arch})"


def find_artifact(component: str, version: str, arch: str) -> Artifact | None:
    """The built-in pin, or None."""
    return _pins().get((component, version, arch))


def artifact_url(component: str, version: str, arch: str) -> str:
    """Where upstream publishes the file, with or without a pin."""
    return URLS[component].format(version=version, arch=arch, machine=MACHINES[arch])


def checksum_url(artifact: Artifact) -> tuple[str, str] | None:
    """Algorithm and URL of the digest that upstream publishes for the file; None without one."""
    own = artifact_url(artifact.component, artifact.version, artifact.arch)
    if artifact.component not in CHECKSUMS or artifact.url != own:
        return None
    algorithm, template = CHECKSUMS[artifact.component]
    directory = artifact.url.rpartition("/")[0]
    return algorithm, template.format(url=artifact.url, directory=directory)


def list_versions(component: str) -> tuple[str, ...]:
    """Every version with a built-in pin, oldest first."""
    found = {pin.version for pin in _pins().values() if pin.component == component}
    return tuple(sorted(found, key=_version_key))


def list_available(component: str, arch: str) -> tuple[str, ...]:
    """Every version that a build can take without a pin of the user, oldest first.

    Kubernetes' server archive is also available as its programs, each alone.
    """
    found = _list_pinned(component, arch)
    if component == KUBERNETES_ARCHIVE:
        found |= set.intersection(*(_list_pinned(name, arch) for name in KUBERNETES_PROGRAMS))
    return tuple(sorted(found, key=_version_key))


@cache
def default_kubernetes() -> str:
    """The newest patch of the newest minor that has default versions and two available patches.

    A minor with one patch is a few weeks old at most.
    """
    minors = {row["minor"] for row in read_table("defaults.tsv")}
    both = set.intersection(*(set(list_available(KUBERNETES_ARCHIVE, arch)) for arch in MACHINES))
    patches: dict[str, list[str]] = {}
    for version in sorted(both, key=_version_key):
        patches.setdefault(version.rpartition(".")[0], []).append(version)
    usable = [minor for minor, found in patches.items() if minor in minors and len(found) > 1]
    return patches[max(usable, key=_version_key)][-1]


def closest_versions(component: str, version: str, arch: str) -> tuple[str, ...]:
    """Up to three available versions, the closest first: of the same minor, then of others."""
    wanted = _version_key(version)
    known = list_available(component, arch)
    return tuple(sorted(known, key=lambda v: _distance(_version_key(v), wanted))[:3])


@cache
def default_version(component: str, minor: str) -> str:
    """The component's version that belongs to a Kubernetes minor; KeyError without a row."""
    for row in read_table("defaults.tsv"):
        if (row["minor"], row["component"]) == (minor, component):
            return row["version"]
    raise KeyError((component, minor))


@cache
def _pins() -> dict[tuple[str, str, str], Artifact]:
    pins = {}
    for row in list_pin_rows():
        artifact = Artifact(
            component=row["component"],
            version=row["version"],
            arch=row["arch"],
            url=row["url"],
            algorithm=row["algorithm"],
            digest=row["digest"],
            source=f"catalog: {row['source']}",
            sources=int(row["sources"]),
            most=MAX_SIZES[row["component"]],
        )
        pins[artifact.component, artifact.version, artifact.arch] = artifact
    return pins


def list_pin_rows() -> Iterator[dict[str, str]]:
    """The rows of pins.tsv, and in the same form those of kubernetes-programs.tsv."""
    yield from read_table("pins.tsv")
    for row in read_table("kubernetes-programs.tsv"):
        for program in KUBERNETES_PROGRAMS:
            if row[program]:
                url = artifact_url(program, row["version"], row["arch"])
                own = {"component": program, "algorithm": "sha256", "digest": row[program]}
                yield row | own | {"url": url}


def _list_pinned(component: str, arch: str) -> set[str]:
    return {v for name, v, machine in _pins() if (name, machine) == (component, arch)}


def read_table(name: str) -> Iterator[dict[str, str]]:
    """The rows of a table of the catalog."""
    text = (files(__package__) / name).read_text(encoding="utf-8")
    yield from csv.DictReader(text.splitlines(), delimiter="\t")


def _distance(one: _Key, other: _Key) -> tuple[int, ...]:
    """How far apart two versions are at major, minor and so on; a different suffix counts 1."""
    pairs = zip_longest(one, other, fillvalue=(0, ""))
    return tuple(abs(a - b) + (name != its) for (a, name), (b, its) in pairs)


def _version_key(version: str) -> _Key:
    parts = version.replace("-", ".").split(".")
    return tuple((int(p), "") if p.isdigit() else (-1, p) for p in parts)
