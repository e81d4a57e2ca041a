"""`bundler certs check --live`: the certificates that servers present, compared with the state."""

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer
from cryptography import x509

from bundler import log
from bundler.cli.json_output import print_json
from bundler.cli.options import (
    CLUSTER_YAML,
    Description,
    Json,
    NewState,
    State,
    Warn,
    make_inputs,
)
from bundler.cluster.plan import ClusterPlan
from bundler.errors import ConfigError, PkiError
from bundler.pki import declarations
from bundler.pki.endpoints import find_endpoint, list_endpoints
from bundler.pki.inventory import parse_days
from bundler.pki.live import (
    Endpoint,
    EndpointFinding,
    check_endpoint,
    list_names,
)
from bundler.pki.rotation_stages import NEXT, PREVIOUS
from bundler.project import check_state, load
from bundler.state.directory import RESTORE, check_is_state, recover_state

PARALLEL_CONNECTIONS = 16

Endpoints = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[HOST:PORT]...",
        help="The servers to check; HOST may be the name of a node. Default: all servers.",
    ),
]
Live = Annotated[
    bool, typer.Option("--live", help="Connect to the servers over the network. Required.")
]
TrustedCa = Annotated[
    Path | None,
    typer.Option(
        "--ca", metavar="PEM", help="Trust this CA instead of the CAs in the state directory."
    ),
]


def check_command(
    endpoints: Endpoints = None,
    live: Live = False,
    ca: TrustedCa = None,
    config: Description = CLUSTER_YAML,
    state: State = None,
    new_state: NewState = False,
    warn: Warn = None,
    as_json: Json = False,
) -> None:
    """Connect to the servers of the cluster and check their certificates.

    Checks every TLS server of the cluster: etcd, API servers, controller managers, schedulers,
    kubelets and the endpoint. No key and no client certificate is sent.

    A certificate is valid if it has not ended, names the host, is signed by a CA of the state
    directory (directly, or through intermediates that the server sends), and is the certificate in
    the state directory. Kubelets make their own certificates, so that for them the last check is
    left out. It is also left out with --ca, which needs no state directory.

    Exit code 1 if a certificate is not valid, a server does not answer, or a certificate ends
    sooner than --warn.
    """
    if not live:
        raise ConfigError(
            "--live is missing: this command connects to servers over the network",
            hint="add --live; bundler certs list shows the state directory or a bundle",
        )
    days = parse_days("--warn", warn) if warn else None
    now = datetime.now(UTC)
    project = load(make_inputs(config, state=state, new_state=new_state), quiet=True)
    plan = project.plan
    if ca:
        trusted: dict[str, tuple[x509.Certificate, ...]] = {
            name: (_load(ca),) for name in declarations.list_ca_names(plan)
        }
        known: dict[str, x509.Certificate] = {}
    else:
        check_state(project)
        trusted, known = _load_state(project.state_path, plan)
    chosen = [find_endpoint(text, plan) for text in endpoints or ()] or [*list_endpoints(plan)]

    def check(endpoint: Endpoint) -> EndpointFinding:
        return check_endpoint(endpoint, trusted, known, now)

    with ThreadPoolExecutor(PARALLEL_CONNECTIONS) as pool:
        findings = tuple(pool.map(check, chosen))
    if as_json:
        print_json("certs-check", servers=[_as_row(finding, now) for finding in findings])
    else:
        _print(findings, now, days)
    late = [f for f in findings if days is not None and _days_left(f, now) < days]
    bad = [f for f in findings if f.faults]
    log.info(f"{len(findings)} servers checked, {len(bad)} failed, {len(late)} end too soon")
    if bad or late:
        raise typer.Exit(1)


def _load_state(
    directory: Path, plan: ClusterPlan
) -> tuple[dict[str, tuple[x509.Certificate, ...]], dict[str, x509.Certificate]]:
    """Load the trusted CAs, and every certificate by name."""
    check_is_state(directory)
    recover_state(directory)
    known = {
        path.parent.relative_to(directory).as_posix(): _load(path)
        for path in sorted((directory / "pki").rglob("cert.pem"))
    }
    for name in declarations.list_site_ca_names(plan):
        if f"pki/{name}" not in known:
            raise PkiError(f"{directory / 'pki' / name / 'cert.pem'}: missing", hint=RESTORE)
    trusted = {
        name: tuple(
            known[path]
            for path in (f"pki/{name}", f"pki/{NEXT}/{name}", f"pki/{PREVIOUS}/{name}")
            if path in known
        )
        for name in declarations.list_site_ca_names(plan)
    }
    return trusted, known


def _load(path: Path) -> x509.Certificate:
    try:
        return x509.load_pem_x509_certificate(path.read_bytes())
    except OSError as error:
        raise PkiError(f"{path}: {error.strerror}") from error
    except ValueError as error:
        raise PkiError(f"{path}: not a PEM certificate") from error


def _days_left(finding: EndpointFinding, now: datetime) -> int:
    """Return 0 if the server sent no certificate; that is a fault of its own."""
    return (finding.certificate.not_valid_after_utc - now).days if finding.certificate else 0


def _print(findings: Iterable[EndpointFinding], now: datetime, days: int | None) -> None:
    for finding in findings:
        left = _days_left(finding, now)
        is_late = days is not None and left < days
        mark = "!" if finding.faults or is_late else " "
        endpoint, certificate = finding.endpoint, finding.certificate
        if not certificate:
            log.result(f"{mark}     - d  {'-':10}  {endpoint.address:24} {endpoint.title}")
        else:
            line = (
                f"{mark}{left:>6} d  {certificate.not_valid_after_utc:%Y-%m-%d} "
                f" {endpoint.address:24} {certificate.subject.rfc4514_string()}"
                f" by {certificate.issuer.rfc4514_string()}"
                f" for {', '.join(list_names(certificate))}"
                f"{f' ({endpoint.title})' if endpoint.title else ''}"
            )
            log.result(log.make_printable(line))
        for fault in finding.faults:
            log.error(f"{endpoint.address}: {fault}")


def _as_row(finding: EndpointFinding, now: datetime) -> dict[str, Any]:
    certificate = finding.certificate
    row: dict[str, Any] = {
        "endpoint": finding.endpoint.address,
        "title": finding.endpoint.title,
        "known_as": finding.known_as,
        "faults": finding.faults,
    }
    if certificate:
        row |= {
            "subject": certificate.subject.rfc4514_string(),
            "issuer": certificate.issuer.rfc4514_string(),
            "names": list_names(certificate),
            "not_after": certificate.not_valid_after_utc.isoformat(),
            "days_left": _days_left(finding, now),
        }
    return row
