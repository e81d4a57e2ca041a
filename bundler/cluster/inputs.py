"""Schema of what a bundle carries: images, upstream files and their signers, OS packages."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator

from bundler.cluster.values import (
    HEX,
    Arch,
    DnsLabel,
    ImageReference,
    Joins,
    Model,
    PackageMirror,
    PackageName,
    PackagePurl,
    SignatureUrl,
    WebAddress,
)
from bundler.formats.digests import DIGEST_LENGTHS


class Image(Model):
    """A container image that workers have before their kubelet starts, or that they pull."""

    ref: ImageReference = Field(
        description="The image: NAME:TAG, or NAME:TAG@sha256:DIGEST to pin it. With Docker pods"
        " still have to name it by its tag. `latest` is refused, because hosts recognize an image"
        " by its tag. Example: `registry.k8s.io/pause:3.10.2`."
    )
    file: Path | None = Field(
        default=None,
        description="An archive of `docker save`, an OCI archive, or a directory with the content"
        " of either. The path is relative to cluster.yaml. Default: the image is fetched from its"
        " registry.",
    )
    arch: Arch | None = Field(
        default=None,
        description="Only workers with this CPU architecture get the image. Default: all workers.",
    )
    where: Literal["nodes", "registry"] = Field(
        default="nodes",
        description="`nodes`: every worker has the image before its kubelet starts. `registry`: the"
        " hosts of `registry` have it, and workers pull it from there by its upstream name.",
    )
    use: Literal["pause", "verify", "coredns", "metrics-server", "addon"] | None = Field(
        default=None,
        description="What the cluster uses the image for. `verify` is a web server on port 80 that"
        " verify.sh runs in its test pods; `addon` is for none of these. Default: decided by the"
        " image's name, such as `pause` of registry.k8s.io/pause.",
    )


class Pin(Model):
    """The URL, the digest, or both of one upstream file."""

    url: Annotated[WebAddress, Field(pattern=r"^(https?|file)://\S+$")] | None = Field(
        default=None,
        description="Where the file is: http, https or file. Default: where upstream publishes it.",
    )
    sha256: str | None = Field(
        default=None,
        description="The file's SHA-256 in lower-case hexadecimal. Without any digest"
        " `bundler lock` must find one.",
    )
    sha512: str | None = Field(
        default=None, description="The file's SHA-512 in lower-case hexadecimal."
    )
    made_from: tuple[PackagePurl, ...] = Field(
        default=(),
        description="The packages of a distribution that the file was made from, as package URLs"
        " with the qualifier `distro`. The SBOM has them, and `bundler audit` compares them with"
        " the distribution's advisories, because a distribution backports fixes without a new"
        " upstream version. Default: the file is what upstream released. Example:"
        ' `["pkg:deb/debian/runc@1.1.5%2Bds1-1%2Bdeb12u1?distro=debian-12"]`.',
    )

    @model_validator(mode="after")
    def _check_digest(self) -> "Pin":
        for name, length in DIGEST_LENGTHS.items():
            digest = getattr(self, name)
            if digest is not None and not (len(digest) == length and HEX.fullmatch(digest)):
                raise ValueError(f"{name} must be {length} lower-case hexadecimal digits")
        if not (self.url or self.sha256 or self.sha512):
            raise ValueError("needs a url, a sha256 or a sha512")
        return self


class Packages(Model):
    """OS packages that the bundles carry for the hosts."""

    os: Annotated[str, Field(pattern=r"^[a-z]+-[0-9]+(\.[0-9]+)?$")] = Field(
        description="The distribution of the hosts: ID-VERSION_ID of /etc/os-release; without the"
        " minor for RPM distributions. Examples: `debian-12`, `ubuntu-24.04`, `rocky-9`."
    )
    names: tuple[PackageName, ...] | None = Field(
        default=None,
        description="The packages to carry. Packages that a role needs go to the nodes with that"
        " role, all others to every node. Default: what the roles need; with `dir` every package"
        " in it.",
    )
    add: Annotated[tuple[PackageName, ...], Joins()] = Field(
        default=(), description="More packages, for every node. Example: `[curl, tcpdump]`."
    )
    base: Annotated[tuple[PackageName, ...], Joins()] = Field(
        default=(),
        description="Packages that every host already has in addition to a minimal installation;"
        " they are not carried. A minimal installation is Essential: yes and Priority: required"
        " (RPM: bash, coreutils, systemd, rpm and the like) with their dependencies.",
    )
    mirror: tuple[PackageMirror, ...] = Field(
        default=(),
        description="Repositories: `URL` or `URL SUITE...`; for RPM distributions directories with"
        " repodata/, in which `$basearch` and `$releasever` are replaced. Default: the builder's"
        " own repositories if it runs the same distribution."
        " Example: `[http://deb.example/debian bookworm bookworm-updates]`.",
    )
    components: Annotated[tuple[DnsLabel, ...], Field(min_length=1)] = Field(
        default=("main",), description="Components of the apt repositories."
    )
    keyring: Path | None = Field(
        default=None,
        description="A file with the keys to trust for the repositories (RPM: for every package)."
        " The path is relative to cluster.yaml. Default: the distribution's own key.",
    )
    frozen: bool = Field(
        default=False,
        description="The mirror is a snapshot: accept signed metadata that has expired.",
    )
    dir: Path | None = Field(
        default=None,
        description="A directory of .deb or .rpm files to carry instead of resolving packages. The"
        " path is relative to cluster.yaml.",
    )


class UpstreamKey(Model):
    """The key or CA that must have signed a component's files: exactly one of three schemes."""

    openpgp: Path | None = Field(
        default=None,
        description="A file with OpenPGP certificates, armoured or binary. The path is relative to"
        " cluster.yaml. Example: runc's `runc.keyring`.",
    )
    cosign: Path | None = Field(
        default=None,
        description="A PEM file with sigstore's CA certificates (Fulcio), for a separate signature"
        " and certificate. The path is relative to cluster.yaml.",
    )
    sigstore: Path | None = Field(
        default=None,
        description="A trusted_root.json (`cosign trusted-root create`), for sigstore bundles that"
        " also prove the entry in the transparency log. The path is relative to cluster.yaml.",
    )
    identity: str | None = Field(
        default=None,
        description="With `cosign` or `sigstore`: the identity that the signer's certificate must"
        " name. Default: known for Kubernetes releases; required for others.",
    )
    issuer: str | None = Field(
        default=None,
        description="With `cosign` or `sigstore`: the OpenID Connect issuer that must have"
        " confirmed the identity. Default: known for Kubernetes releases; required for others.",
    )
    signature: SignatureUrl | None = Field(
        default=None,
        description="The URL of the signature; `{url}` stands for the file's URL. Default:"
        " `{url}.asc` (openpgp), `{url}.sig` (cosign), `{url}.sigstore.json` (sigstore).",
    )
    certificate: SignatureUrl | None = Field(
        default=None,
        description="With `cosign`: the URL of the signer's certificate; `{url}` stands for the"
        " file's URL. Default: `{url}.cert`.",
    )

    @model_validator(mode="after")
    def _check_scheme(self) -> "UpstreamKey":
        if sum(path is not None for path in (self.openpgp, self.cosign, self.sigstore)) != 1:
            raise ValueError("give openpgp, cosign or sigstore")
        return self
