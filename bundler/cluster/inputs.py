"""What crosses the gate, as cluster.yaml has it: images, files and who signed them, packages."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import (
    Field,
    model_validator,
)

from bundler.cluster.values import (
    HEX,
    Arch,
    DnsLabel,
    ImageReference,
    Model,
    PackageMirror,
    PackageName,
    Place,
    WebAddress,
)
from bundler.formats.digests import DIGEST_LENGTHS


class Image(Model):
    """A container image that every worker (of `arch`) has before its kubelet starts.

    Fetched from its registry, or taken out of `file`: an archive of docker save or of OCI, or a
    directory of either. `ref` is NAME:TAG, and may go on with @sha256:… to pin it.

    Images that the cluster needs and that are not listed are fetched from where upstream publishes
    them: pause, CoreDNS, metrics-server.
    """

    ref: ImageReference
    file: Path | None = None
    arch: Arch | None = None
    use: Literal["pause", "verify", "coredns", "metrics-server"] | None = None


class Pin(Model):
    """One upstream file, pinned or replaced by the user: a URL, a digest, or both.

    Without a digest `bundler lock` must find one, and `bundler build` takes it from the lock.

    Keys of `artifacts` are components, or COMPONENT/ARCH where nodes are of two machines.
    """

    url: Annotated[WebAddress, Field(pattern=r"^(https?|file)://\S+$")] | None = None
    sha256: str | None = None
    sha512: str | None = None

    @model_validator(mode="after")
    def _check_digest(self) -> "Pin":
        for name, length in DIGEST_LENGTHS.items():
            digest = getattr(self, name)
            if digest is not None and not (len(digest) == length and HEX.fullmatch(digest)):
                raise ValueError(f"{name} must be {length} lower-case hexadecimal digits")
        if self.url is None and self.sha256 is None and self.sha512 is None:
            raise ValueError("needs a url, a sha256 or a sha512")
        return self


class Packages(Model):
    """Packages of the hosts' operating system, carried in the bundles with all that they need.

    `os` is ID-VERSION_ID of the hosts' os-release(5), of RPM families without the minor: rocky-9.

    `names` is by default what the nodes' roles ask of their hosts. Names that roles ask for go to
    the nodes with those roles, others, and those in `add`, to every node. `base` names what every
    host has beyond the minimal installation (Essential: yes, or Priority: required, and what these
    need; of RPM families bash, coreutils, systemd, rpm and the like).

    `mirror` holds repositories as `URL` or `URL SUITE...`, of RPM families directories that hold
    repodata/ (`$basearch` and `$releasever` stand for what they say); the builder's own where it
    runs the same distribution. `keyring` is who must have signed them (RPM: every package), by
    default the distribution's own.
    A `frozen` mirror is a snapshot: signed, and older than its metadata may be.

    `dir` holds hand-picked .deb or .rpm files instead: all of them, or `names` with what they need.
    """

    os: Annotated[str, Field(pattern=r"^[a-z]+-\d+(\.\d+)?$")]
    names: tuple[PackageName, ...] | None = None
    add: tuple[PackageName, ...] = ()
    base: tuple[PackageName, ...] = ()
    mirror: tuple[PackageMirror, ...] = ()
    components: Annotated[tuple[DnsLabel, ...], Field(min_length=1)] = ("main",)
    keyring: Path | None = None
    frozen: bool = False
    dir: Path | None = None


class UpstreamKey(Model):
    """Who must have signed a component's files: checked by `bundler lock`, which records it.

    Without that record, or with another key than it names, nothing is built.
    `openpgp` is a file with certificates (armoured or binary), such as runc's runc.keyring.
    `cosign` is a PEM file with sigstore's authorities (Fulcio's); whom the signer's certificate
    must name (`identity`) and who vouched for that (`issuer`) is known of Kubernetes' releases.
    `sigstore` is a trusted_root.json (`cosign trusted-root create`), for bundles that lie beside
    the file as `{url}.sigstore.json`: these prove, without a network, that the transparency log has
    the signature, and so when it was made.

    `signature` and `certificate` say where they lie, where that is not beside the file: `{url}` is
    the file's.
    """

    openpgp: Path | None = None
    cosign: Path | None = None
    sigstore: Path | None = None
    identity: str | None = None
    issuer: str | None = None
    signature: Place | None = None
    certificate: Place | None = None

    @model_validator(mode="after")
    def _check_scheme(self) -> "UpstreamKey":
        if sum(path is not None for path in (self.openpgp, self.cosign, self.sigstore)) != 1:
            raise ValueError("give openpgp, cosign or sigstore")
        return self
