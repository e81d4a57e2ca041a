"""What a bundle or a cluster holds, in the names under which databases have it."""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from packageurl import PackageURL

from bundler.bundle.sbom import PROPERTIES, SBOM
from bundler.catalog import Artifact, find_artifact
from bundler.cluster.os_packages import RELEASES, manager_of
from bundler.cluster.plan import ClusterPlan
from bundler.errors import OutputError
from bundler.sources.images.needed import list_needed
from bundler.sources.lock import LockEntry
from bundler.sources.resolved import Resolved

GO = "golang"
MODULES = {
    "kubernetes": ("k8s.io/kubernetes",),
    "etcd": ("go.etcd.io/etcd", "go.etcd.io/etcd/v3", "go.etcd.io/etcd/server/v3"),
    "containerd": ("github.com/containerd/containerd", "github.com/containerd/containerd/v2"),
    "runc": ("github.com/opencontainers/runc",),
    "docker": (
        "github.com/docker/docker", "github.com/docker/cli", "github.com/moby/moby",
        "github.com/moby/moby/v2",
    ),
    "cni-plugins": ("github.com/containernetworking/plugins",),
    "crictl": ("sigs.k8s.io/cri-tools", "github.com/kubernetes-sigs/cri-tools"),
    "cri-dockerd": ("github.com/Mirantis/cri-dockerd",),
    "flanneld": ("github.com/flannel-io/flannel", "github.com/coreos/flannel"),
    "kube-router": (
        "github.com/cloudnativelabs/kube-router", "github.com/cloudnativelabs/kube-router/v2",
    ),
    "coredns": ("github.com/coredns/coredns",),
    "metrics-server": ("sigs.k8s.io/metrics-server",),
}  # fmt: skip
"""Component → the Go modules under which databases have its vulnerabilities."""
PROGRAMS = (
    "kube-apiserver", "kube-controller-manager", "kube-proxy", "kube-scheduler", "kubectl",
    "kubelet",
)  # fmt: skip
SAME = dict.fromkeys(("kubernetes-server", "kubernetes-node", *PROGRAMS), "kubernetes")
"""Files of upstream → the component whose version they have."""
ECOSYSTEMS = {
    "debian": "Debian:{release}",
    "ubuntu": "Ubuntu:{release}:LTS",
    "rhel": "Red Hat:enterprise_linux:{release}",
    "rocky": "Rocky Linux:{release}",
    "almalinux": "AlmaLinux:{release}",
    "alpine": "Alpine:v{release}",
}
"""Distribution → its ecosystem in OSV; it has none for Fedora, CentOS Stream, Oracle and Amazon."""
VERSION = re.compile(r"v?(\d+\.\d+\.\d+(-[\w.]+)?)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One thing with a version; an empty version is not known."""

    kind: str  # artifact, program, image or package
    name: str
    version: str
    scheme: str  # golang, deb, rpm or apk; empty: no database has such a thing
    source: str = ""  # of a package: the source package, which advisories are about
    source_version: str = ""  # if it is not the package's own
    components: tuple[str, ...] = ()  # in the built-in table
    packages: tuple[tuple[str, str], ...] = ()  # (ecosystem, name) in OSV
    distribution: tuple[str, str] = ("", "")  # of a package: debian, 12
    purl: str = field(default="", compare=False)  # one thing has one for each architecture
    image: str = ""  # of a package inside an image
    unread: str = ""  # why nothing is known of it
    own: bool = False  # an artifact whose digest is not the catalog's: perhaps another build

    @property
    def compared(self) -> str:
        """The version that advisories are about."""
        return self.source_version or self.version

    @property
    def label(self) -> str:
        """`runc 1.1.5`, `nginx 1.22.1-9 (docker.io/library/nginx)`."""
        inside = f" ({self.image})" if self.image else ""
        return f"{self.name} {self.version}".strip() + inside


@dataclass(frozen=True, slots=True, kw_only=True)
class Contents:
    """The parts of one bundle or cluster, and the settings of its programs as text."""

    name: str
    parts: tuple[Part, ...]
    settings: Mapping[str, str] = field(default_factory=dict)  # program → text


SETTING_FILES = {
    "etcd": ("rootfs/etc/systemd/system/etcd.service",),
    "kubelet": ("rootfs/etc/kubernetes/kubelet-config.yaml",),
    "nginx": (
        "rootfs/etc/kube-nginx/nginx.conf",
        "rootfs/etc/etcd-flannel-proxy/nginx.conf",
        "rootfs/etc/kube-registry/nginx.conf",
    ),
}
"""Program → its flags or configuration in a bundle."""


def read_bundle_parts(name: str, bundle: Mapping[str, bytes]) -> Contents:
    """The parts in a bundle's SBOM; OutputError if it has none, or another program wrote it.

    `bundle` has the small files of the bundle by path.
    """
    if SBOM not in bundle:
        raise OutputError(
            f"{name}: {SBOM} is missing", hint="build it again with this version of bundler"
        )
    try:
        components = json.loads(bundle[SBOM])["components"]
        parts = tuple(part for one in components for part in _read_component(one, ""))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise OutputError(f"{name}: {SBOM}: bundler did not write this SBOM") from error
    texts = {
        program: b"\n".join(bundle.get(path, b"") for path in paths).decode(errors="replace")
        for program, paths in SETTING_FILES.items()
    }
    return Contents(name=name, parts=parts, settings=texts)


def list_cluster_parts(plan: ClusterPlan, resolved: Resolved) -> Contents:
    """The parts that a build of a cluster would have; OS packages only with a lock."""
    cluster = plan.cluster
    artifacts = (part for a in resolved.artifacts.values() for part in _list_artifact_parts(a))
    references = (needed.reference for needed in list_needed(plan))
    images = (make_image(f"{r.registry}/{r.repository}", r.tag or "", "") for r in references)
    packages = map(_from_entry, resolved.packages or ())
    lines: dict[str, list[str]] = {}
    for name, extra in cluster.list_extra():
        of_component = lines.setdefault(name, [])
        of_component += [f"--{flag}={value}" for flag, value in extra.flags.items()]
        of_component += [f"{key}: {value}" for key, value in extra.config.items()]
    settings = {name: "\n".join(dict.fromkeys(several)) for name, several in lines.items()}
    parts = dict.fromkeys((*artifacts, *images, *packages))
    return Contents(name=plan.name, parts=tuple(parts), settings=settings)


def _list_artifact_parts(artifact: Artifact) -> Iterator[Part]:
    """The packages that a file was made from, else the upstream file."""
    if artifact.made_from:
        yield from map(_read_purl, artifact.made_from)
    else:
        purl = _make_purl(artifact.component, artifact.version)
        own = bool(artifact.digest) and not _is_pinned(
            artifact.component, artifact.version, artifact.arch, artifact.digest
        )
        yield make_artifact(artifact.component, artifact.version, purl, own=own)


def _is_pinned(component: str, version: str, arch: str, digest: str) -> bool:
    """Whether the catalog has this digest for the file."""
    built_in = find_artifact(component, version, arch)
    return built_in is not None and built_in.digest == digest


def _read_purl(text: str) -> Part:
    return make_package(PackageURL.from_string(text))


def make_artifact(component: str, version: str, purl: str, *, own: bool = False) -> Part:
    """The part of an upstream file."""
    name = SAME.get(component, component)
    modules = MODULES.get(name, ())
    return Part(
        kind="artifact",
        name=name,
        version=version,
        scheme=GO if modules else "",
        components=(name,),
        packages=tuple(("Go", module) for module in modules),
        purl=purl,
        own=own,
    )


def make_image(repository: str, tag: str, purl: str) -> Part:
    """The part of an image: an add-on of Kubernetes by its name and tag, else nothing known."""
    name = repository.rpartition("/")[2]
    version = VERSION.fullmatch(tag)
    modules = MODULES.get(name, ()) if version else ()
    return Part(
        kind="image",
        name=repository,
        version=version[1] if version and modules else tag,
        scheme=GO if modules else "",
        components=(name,) if modules else (),
        packages=tuple(("Go", module) for module in modules),
        purl=purl,
    )


def make_package(purl: PackageURL, image: str = "") -> Part:
    """The part of a package of a distribution, which `distro` and `upstream` describe."""
    qualifiers = purl.qualifiers if isinstance(purl.qualifiers, dict) else {}
    family, _, release = str(qualifiers.get("distro", "")).partition("-")
    source = re.sub(r"-[^-]+-[^-]+\.src\.rpm$", "", str(qualifiers.get("upstream", purl.name)))
    source, _, source_version = source.partition("@")
    names = dict.fromkeys((source, purl.name) if purl.type == "rpm" else (source,))
    major = ".".join(release.split(".")[:2]) if family in {"ubuntu", "alpine"} else (
        release.split(".")[0]
    )  # fmt: skip
    ecosystem = ECOSYSTEMS.get(family, "").format(release=major)
    epoch = str(qualifiers.get("epoch", ""))  # of rpm: for deb it is in the version
    return Part(
        kind="package",
        name=purl.name,
        version=f"{epoch}:{purl.version}" if epoch else purl.version or "",
        scheme=purl.type,
        source=source,
        source_version=source_version,
        components=tuple(f"{family}-{major}/{name}" for name in names) if family else (),
        packages=tuple((ecosystem, name) for name in names) if ecosystem else (),
        distribution=(family, release),
        purl=purl.to_string(),
        image=image,
    )


def _read_component(one: Mapping[str, Any], image: str) -> Iterator[Part]:
    """The parts of a component of an SBOM, and of those inside it."""
    properties = {p["name"]: str(p["value"]) for p in one.get("properties", ())}
    kind = properties.get(f"{PROPERTIES}kind", "")
    name, version, purl = (str(one.get(key) or "") for key in ("name", "version", "purl"))
    if kind == "artifact":
        ancestors = one.get("pedigree", {}).get("ancestors", ())
        yield from (_read_purl(str(each["purl"])) for each in ancestors)
        if not ancestors:
            arch = properties.get(f"{PROPERTIES}arch", "")
            digests = [str(each["content"]) for each in one.get("hashes", ())]
            own = not any(_is_pinned(name, version, arch, digest) for digest in digests)
            yield make_artifact(name, version, purl, own=own and bool(digests))
    elif kind == "image":
        yield make_image(name, version, purl)
        image = name
        if reason := properties.get(f"{PROPERTIES}packages-not-read"):
            yield Part(kind=kind, name=f"packages in {name}", version="", scheme="", unread=reason)
    elif kind in {"package", "image-package"} and purl:
        yield make_package(PackageURL.from_string(purl), image)
    if kind == "image":
        for inner in one.get("components", ()):
            yield from _read_component(inner, image)


def _from_entry(entry: LockEntry) -> Part:
    release = entry.release
    where = {"arch": entry.arch, "distro": release}
    kind = {"dpkg": "deb", "rpm": "rpm"}[manager_of(release)]
    return make_package(
        PackageURL(kind, release.partition("-")[0], entry.name, entry.version, where)
    )


def _make_purl(component: str, version: str) -> str:
    return PackageURL("generic", None, component, version).to_string()


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """What holds a part: bundles or a cluster, and the purls that it has there."""

    holders: tuple[str, ...]
    purls: tuple[str, ...]


def merge(contents: Sequence[Contents]) -> Mapping[Part, Held]:
    """Each part once."""
    found: dict[Part, list[tuple[str, str]]] = {}
    for one in contents:
        for part in one.parts:
            found.setdefault(part, []).append((one.name, part.purl))
    return {
        part: Held(
            holders=tuple(dict.fromkeys(name for name, _ in pairs)),
            purls=tuple(dict.fromkeys(purl for _, purl in pairs if purl)),
        )
        for part, pairs in found.items()
    }


CODENAMES = {
    tuple(name.split("-", 1)): release.codename
    for name, release in RELEASES.items()
    if release.family.manager == "dpkg"
}
"""(distribution, release) → codename."""
