"""The apt repositories for packages: from cluster.yaml, or from the builder's configuration.

Source: sources.list(5), apt.conf(5).
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from email.parser import HeaderParser
from pathlib import Path

from bundler.cluster.inputs import Packages
from bundler.cluster.os_packages import RELEASES, OsRelease
from bundler.errors import ArtifactError

KEYRINGS = Path("/usr/share/keyrings")
APT = Path("/etc/apt")
OS_RELEASE = Path("/etc/os-release")
LINE = re.compile(
    r"deb\s+(?:\[(?P<options>[^\]]*)\]\s+)?(?P<uri>\S+)\s+(?P<suite>\S+)\s*(?P<more>.*)"
)
SCHEMES = ("http://", "https://", "file:/")


@dataclass(frozen=True, slots=True, kw_only=True)
class PackageSource:
    """One repository: suites of a distribution at a URI."""

    uri: str
    suites: tuple[str, ...]
    components: tuple[str, ...]
    signed_by: str = ""  # path of a keyring, from the builder's configuration


@dataclass(frozen=True, slots=True, kw_only=True)
class AptRepositories:
    """The repositories that packages are resolved with, and the keyring that must sign them."""

    sources: tuple[PackageSource, ...]
    keyring: Path
    is_own: bool  # from the builder's configuration, whose apt settings apply too
    frozen: bool

    def render(self, arch: str) -> str:
        """The sources in deb822 format, for apt."""
        return "\n".join(
            f"Types: deb\nURIs: {source.uri}\nSuites: {' '.join(source.suites)}\n"
            f"Components: {' '.join(source.components)}\nArchitectures: {arch}\n"
            f"Signed-By: {self.keyring}\n" + ("Check-Valid-Until: no\n" if self.frozen else "")
            for source in self.sources
        )

    @property
    def is_local(self) -> bool:
        """Whether no network is needed."""
        return all(source.uri.startswith("file:") for source in self.sources)


def find_repositories(
    packages: Packages, *, apt: Path = APT, os_release: Path = OS_RELEASE
) -> AptRepositories:
    """The repositories of `packages.os`; ArtifactError if none is configured."""
    release = RELEASES[packages.os]
    keyring = packages.keyring or KEYRINGS / f"{release.family.keyring}.gpg"
    if not keyring.is_file():
        raise ArtifactError(
            f"{keyring} is missing: it is needed to verify the packages of {packages.os}",
            hint=f"install {release.family.keyring_package}, or set packages.keyring",
        )
    sources = tuple(_from_mirrors(packages, release))
    is_own = not sources
    if is_own:
        sources = tuple(_from_builder(packages, release, apt, os_release))
    if not sources:
        raise ArtifactError(
            f"no repository of {packages.os} is known: this machine is configured for another"
            " distribution or has no sources",
            hint="set packages.mirror, such as [http://mirror.example/debian,"
            f' "http://mirror.example/debian-security {release.codename}-security"]',
        )
    return AptRepositories(sources=sources, keyring=keyring, is_own=is_own, frozen=packages.frozen)


def _from_mirrors(packages: Packages, release: OsRelease) -> Iterator[PackageSource]:
    for mirror in packages.mirror:
        uri, *suites = mirror.split()
        yield PackageSource(
            uri=uri,
            suites=tuple(suites) or release.name_suites(release.family.suites),
            components=packages.components,
        )


def _from_builder(
    packages: Packages, release: OsRelease, apt: Path, os_release: Path
) -> Iterator[PackageSource]:
    """The builder's own sources, with the suites of the target release instead of the builder's.

    Third-party repositories are recognized by their suites, components and keyrings, and skipped.
    """
    own = RELEASES.get(read_os(os_release))
    if not own or own.family != release.family:
        return
    renamed = dict(
        zip(
            own.name_suites(own.family.known_suites),
            release.name_suites(release.family.known_suites),
            strict=True,
        )
    )
    for source in read_sources(apt):
        suites = tuple(renamed[suite] for suite in source.suites if suite in renamed)
        components = tuple(name for name in packages.components if name in source.components)
        is_third_party = source.signed_by and own.family.keyring not in source.signed_by
        if suites and components and not is_third_party and source.uri.startswith(SCHEMES):
            yield PackageSource(uri=source.uri, suites=suites, components=components)


def read_os(path: Path) -> str:
    """`debian-12`, from os-release(5); empty if the file cannot be read."""
    try:
        pairs = (line.partition("=") for line in path.read_text(encoding="utf-8").splitlines())
    except OSError:
        return ""
    facts = {key: value.strip("\"'") for key, _, value in pairs}
    return f"{facts.get('ID', '')}-{facts.get('VERSION_ID', '')}"


def read_sources(apt: Path) -> Iterator[PackageSource]:
    """Every source of binary packages in an apt configuration."""
    parts = sorted((apt / "sources.list.d").glob("*"))
    for path in (apt / "sources.list", *parts):
        if path.is_file() and path.suffix == ".list":
            yield from _read_list(path.read_text(encoding="utf-8"))
        elif path.is_file() and path.suffix == ".sources":
            yield from _read_stanzas(path.read_text(encoding="utf-8"))


def _read_list(text: str) -> Iterator[PackageSource]:
    for line in text.splitlines():
        if match := LINE.fullmatch(line.partition("#")[0].strip()):
            options = dict(
                option.partition("=")[::2] for option in (match["options"] or "").split()
            )
            yield PackageSource(
                uri=match["uri"],
                suites=(match["suite"],),
                components=tuple(match["more"].split()),
                signed_by=options.get("signed-by", ""),
            )


def _read_stanzas(text: str) -> Iterator[PackageSource]:
    plain = "\n".join(line for line in text.splitlines() if not line.startswith("#"))
    for stanza in re.split(r"\n\s*\n", plain):
        fields = HeaderParser().parsestr(stanza.strip())
        if fields.get("Enabled", "yes") == "no" or "deb" not in fields.get("Types", "").split():
            continue
        for uri in fields.get("URIs", "").split():
            yield PackageSource(
                uri=uri,
                suites=tuple(fields.get("Suites", "").split()),
                components=tuple(fields.get("Components", "").split()),
                signed_by=fields.get("Signed-By", "").strip(),
            )
