"""State directories with an external CA."""

import os
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from cryptography import x509

from bundler.cluster.plan import ClusterPlan
from bundler.pki import declarations
from bundler.pki.cluster_pki import Pki, ensure_pki
from bundler.pki.external_ca.csr_files import write_requests
from bundler.pki.external_ca.import_ca import import_ca
from bundler.pki.external_ca.import_report import ImportReport
from bundler.pki.external_ca.import_signed import import_signed
from bundler.pki.external_ca.requests import SigningRequest, ensure_requests
from bundler.state.directory import open_state
from support.offline_root import OfflineRoot, openssl
from support.pki_plans import make_plan

CA = "basicConstraints=critical,CA:TRUE,pathlen:0\n"
SIGNS = "keyUsage=critical,keyCertSign,cRLSign\n"
LEAF = "basicConstraints=critical,CA:FALSE\nkeyUsage=critical,digitalSignature\n"
CA_NAMES = ("etcd-ca", "front-proxy-ca", "kubernetes-ca")


def now() -> datetime:
    """One second later: certificates of openssl are valid from the current second."""
    return datetime.now(UTC) + timedelta(seconds=1)


@dataclass
class Site:
    """A directory with a state directory and the PKI of a bank."""

    directory: Path
    root: OfflineRoot
    plan: ClusterPlan

    @property
    def state(self) -> Path:
        return self.directory / "state"

    @property
    def requests(self) -> Path:
        return self.directory / "requests"

    def request(self, **options: object) -> tuple[SigningRequest, ...]:
        with open_state(self.state, create=True) as state:
            wanted = ensure_requests(state, self.plan, now(), **options)  # type: ignore[arg-type]
            if wanted:
                write_requests(wanted, self.plan, self.requests)
        return wanted

    def sign(self) -> None:
        """Sign all requests by README.txt; leaves are signed by three CAs of the bank."""
        signers = {"root": self.root.file}
        for name in CA_NAMES:
            file = self.root.directory / f"issuing-{name}.crt"
            if not file.exists():
                self.root.issue_ca(file.stem)
            signers[name.replace("-", "_")] = file
        self.root.follow(self.requests, **signers)

    @property
    def issuing(self) -> list[Path]:
        return sorted(self.root.directory.glob("issuing-*.crt"))

    def import_signed(
        self, *paths: Path, later: timedelta = timedelta(0), **options: object
    ) -> ImportReport:
        """Import `paths`, by default the requests directory and the issuing CAs."""
        with open_state(self.state, create=True) as state:
            return import_signed(
                state, self.plan, paths or (self.requests, *self.issuing), now() + later,
                **{"root": self.root.file, **options},  # type: ignore[arg-type]
            )  # fmt: skip

    def import_ca(
        self, name: str, certificate: Path, *, key: Path | None = None, chain: Path | None = None,
        passphrase: str = "", has_key: bool = True, **options: object,
    ) -> ImportReport:  # fmt: skip
        """Import a CA from files."""
        key = key or (certificate.with_suffix(".key") if has_key else None)
        with open_state(self.state, create=True) as state:
            return import_ca(
                state, self.plan, name, now(), certificate=certificate, key=key, chain=chain,
                ask=lambda: passphrase, **options,  # type: ignore[arg-type]
            )  # fmt: skip

    def build(self, plan: ClusterPlan | None = None, later: timedelta = timedelta(0)) -> Pki:
        with open_state(self.state, create=True) as state:
            return ensure_pki(state, plan or self.plan, now() + later)

    def read_files(self) -> dict[str, bytes]:
        """Every file of the state directory."""
        return {
            path.relative_to(self.state).as_posix(): path.read_bytes()
            for path in sorted(self.state.rglob("*"))
            if path.is_file()
        }


def make_site(directory: Path, plan: ClusterPlan | None = None) -> Site:
    return Site(
        directory=directory,
        root=OfflineRoot(directory / "bank"),
        plan=plan or make_plan(masters=1, workers=1),
    )


def load_certificates(pem: bytes) -> list[x509.Certificate]:
    return x509.load_pem_x509_certificates(pem)


def names_of(pem: bytes) -> list[str]:
    """The subject of each certificate."""
    return [one.subject.rfc4514_string() for one in load_certificates(pem)]


def verify_with_openssl(site: Site, pki: Pki) -> None:
    """Verify each certificate against its CA only, and server certificates against the root."""
    file, anchors = site.directory / "leaf.pem", site.directory / "anchors.pem"
    for spec in declarations.list_certificates(site.plan):
        name = declarations.get_ca_name(spec, site.plan)
        owner = declarations.list_owners(spec, site.plan)[0]
        pair = (pki.nodes[owner.name] if owner else pki.cluster)[spec.name]
        file.write_bytes(pair.certificate_pem)
        anchors.write_bytes(pki.trust.by_ca[name])
        openssl("verify", "-x509_strict", "-partial_chain", "-CAfile", anchors, file)
        if declarations.SERVER in spec.usages:
            openssl("verify", "-x509_strict", "-CAfile", site.root.file, "-untrusted", file, file)


def die_at_rename(count: int) -> None:
    """End this process, like kill -9, before the rename of that number."""
    left = [count]
    rename, replace = Path.rename, Path.replace

    def counted(real: Any) -> Any:
        def call(self: Path, target: Path) -> Any:
            if left[0] == 0:
                os._exit(9)
            left[0] -= 1
            return real(self, target)

        return call

    Path.rename, Path.replace = counted(rename), counted(replace)  # type: ignore[method-assign]
