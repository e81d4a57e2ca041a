"""States under a site's own PKI, for the tests of it."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from bundler.cluster.plan import ClusterPlan
from bundler.pki.external_ca.csr_files import write_requests
from bundler.pki.external_ca.import_ca import import_authority
from bundler.pki.external_ca.import_signed import import_signed
from bundler.pki.external_ca.report import ImportReport
from bundler.pki.external_ca.requests import SigningRequest, ensure_requests
from bundler.pki.store import Pki, ensure_pki
from bundler.state.directory import open_state
from support.offline_root import OfflineRoot
from support.pki_cases import make_plan

AUTHORITIES = ("etcd-ca", "front-proxy-ca", "kubernetes-ca")


def now() -> datetime:
    """A second on, as what openssl signs begins with the second in which it does."""
    return datetime.now(UTC) + timedelta(seconds=1)


@dataclass
class Site:
    """A folder with a state and the bank's PKI."""

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
        with open_state(self.state) as state:
            wanted = ensure_requests(state, self.plan, now(), **options)  # type: ignore[arg-type]
            if wanted:
                write_requests(wanted, self.plan, self.requests)
        return wanted

    def sign(self) -> None:
        """Everything, by README.txt; leaves under three authorities of the bank."""
        signers = {"root": self.root.file}
        for name in AUTHORITIES:
            file = self.root.directory / f"issuing-{name}.crt"
            if not file.exists():
                self.root.authority(file.stem)
            signers[name.replace("-", "_")] = file
        self.root.follow(self.requests, **signers)

    @property
    def issuing(self) -> list[Path]:
        return sorted(self.root.directory.glob("issuing-*.crt"))

    def take(
        self, *paths: Path, later: timedelta = timedelta(0), **options: object
    ) -> ImportReport:
        """Import what is in the requests' folder, or `paths`."""
        with open_state(self.state) as state:
            return import_signed(
                state, self.plan, paths or (self.requests, *self.issuing), now() + later,
                **{"root": self.root.file, **options},  # type: ignore[arg-type]
            )  # fmt: skip

    def give(
        self, name: str, certificate: Path, *, key: Path | None = None, chain: Path | None = None,
        passphrase: str = "", has_key: bool = True, **options: object,
    ) -> ImportReport:  # fmt: skip
        """Import an authority as files."""
        key = key or (certificate.with_suffix(".key") if has_key else None)
        with open_state(self.state) as state:
            return import_authority(
                state, self.plan, name, now(), certificate=certificate, key=key, chain=chain,
                ask=lambda: passphrase, **options,  # type: ignore[arg-type]
            )  # fmt: skip

    def build(self, plan: ClusterPlan | None = None, later: timedelta = timedelta(0)) -> Pki:
        with open_state(self.state) as state:
            return ensure_pki(state, plan or self.plan, now() + later)

    def read(self) -> dict[str, bytes]:
        """Every file of the state."""
        return {
            path.relative_to(self.state).as_posix(): path.read_bytes()
            for path in sorted(self.state.rglob("*"))
            if path.is_file()
        }


def make_own_site(directory: Path, plan: ClusterPlan | None = None) -> Site:
    return Site(
        directory=directory,
        root=OfflineRoot(directory / "bank"),
        plan=plan or make_plan(masters=1, workers=1),
    )
