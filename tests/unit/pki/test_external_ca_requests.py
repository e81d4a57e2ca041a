"""Certificate requests for an offline root."""

import json
import os
import shutil
from pathlib import Path

import pytest
from support.external_ca_site import (
    CA_NAMES,
    Site,
    die_at_rename,
    load_certificates,
    names_of,
)
from support.offline_root import openssl
from support.pki_plans import make_plan

from bundler.errors import ConfigError, OutputError, PkiError
from bundler.pki import declarations
from bundler.pki.external_ca.csr_files import write_requests
from bundler.pki.external_ca.purposes import PURPOSES
from bundler.state.archive import export_state, import_state


def test_by_default_the_cas_are_requested_as_intermediates(site: Site) -> None:
    wanted = site.request()
    assert [one.name for one in wanted] == list(CA_NAMES)
    for one in wanted:
        file = site.requests / f"{one.name}.csr"
        text = openssl("req", "-in", file, "-noout", "-text", "-verify", "-nameopt", "RFC2253")
        assert f"Subject: CN={one.name},O=lab" in text
        assert "CA:TRUE, pathlen:0" in text
        assert "Certificate Sign, CRL Sign" in text
        assert file.stat().st_mode & 0o777 == 0o644
    assert not list(site.requests.rglob("*.key"))
    rows = json.loads((site.requests / "request.json").read_bytes())["requests"]
    assert [row["sha256"] for row in rows] == [
        openssl("dgst", "-sha256", "-r", site.requests / row["file"]).split()[0] for row in rows
    ]


def test_a_second_run_writes_the_same_requests(site: Site) -> None:
    site.request()
    before, files = site.read_files(), {p.name: p.read_bytes() for p in site.requests.iterdir()}
    site.request()
    assert site.read_files() == before
    assert {p.name: p.read_bytes() for p in site.requests.iterdir()} == files


def test_a_build_waits_for_requested_certificates_and_creates_nothing(site: Site) -> None:
    site.request()
    before = site.read_files()
    with pytest.raises(
        PkiError, match="3 certificates that must be signed elsewhere: not imported yet: etcd-ca, f"
    ) as e:
        site.build()
    assert "bundler certs import" in e.value.hint
    assert site.read_files() == before


def test_single_cas_can_be_requested(site: Site) -> None:
    site.request(cas=("kubernetes-ca",))
    site.sign()
    site.import_signed()
    made = site.build()
    assert names_of(made.trust.by_ca["kubernetes-ca"]) == ["CN=kubernetes-ca,O=lab"]
    issuers = {
        name: load_certificates(made.trust.by_ca[name])[0].issuer.rfc4514_string()
        for name in CA_NAMES
    }
    assert issuers == {
        "kubernetes-ca": "CN=Bank Root,O=Bank",
        "etcd-ca": "CN=etcd-ca,O=lab",
        "front-proxy-ca": "CN=front-proxy-ca,O=lab",
    }
    assert [one.name for one in site.request(again=True)] == ["kubernetes-ca"]


def test_cas_that_bundler_made_cannot_be_requested(site: Site) -> None:
    site.build()
    before = site.read_files()
    for leaves in (False, True):
        with pytest.raises(PkiError, match="made by bundler.*a CA is never replaced"):
            site.request(leaves=leaves)
    assert site.read_files() == before


def test_who_signs_is_decided_once(site: Site, leaves: Site) -> None:
    site.request()
    with pytest.raises(PkiError, match="an intermediate that is signed elsewhere"):
        site.request(leaves=True)
    assert len(leaves.request()) == len(leaves.request(leaves=True))


def test_unknown_ca_names_are_refused(site: Site) -> None:
    for options in ({"cas": ("ca",)}, {"cas": ("etcd-ca",), "leaves": True}):
        with pytest.raises(ConfigError, match="--authority"):
            site.request(**options)
    assert not (site.state / "pki").exists()


def test_every_certificate_can_be_requested(signed_leaves: Site) -> None:
    rows = json.loads((signed_leaves.requests / "request.json").read_bytes())["requests"]
    wanted = {
        f"{node.name}.{spec.name}" if node else spec.name
        for spec in declarations.list_certificates(signed_leaves.plan)
        for node in declarations.list_owners(spec, signed_leaves.plan)
    }
    assert {row["name"] for row in rows} == wanted
    api = next(row for row in rows if row["name"] == "master1.apiserver")
    assert api["signed_by"] == "kubernetes-ca"
    assert {"IP:10.254.0.1", "DNS:kubernetes", "IP:172.30.20.250"} <= set(api["names"])
    admin = next(row for row in rows if row["name"] == "admin")
    assert admin["subject"] == {
        "organization": "bundler:cluster-admins",
        "common_name": "kubernetes-admin",
    }


def test_each_certificate_has_a_purpose() -> None:
    named = (
        {c.name for c in declarations.CERTIFICATES if c.ca != declarations.FLANNEL_ETCD_CA}
        | set(declarations.CA_NAMES)
        | {declarations.KUBELET_CA}
    )
    assert set(PURPOSES) == named


def test_an_outdated_request_is_created_again_for_the_same_key(
    leaves: Site,
) -> None:
    before = leaves.read_files()
    leaves.plan = make_plan(masters=1, workers=1, endpoint="172.30.20.251")
    leaves.request()
    after = leaves.read_files()
    assert {name for name in before if before[name] != after[name]} == {
        "pki/nodes/master1/apiserver/request.pem"
    }


def test_requests_are_not_written_between_other_files(site: Site) -> None:
    site.requests.mkdir()
    (site.requests / "thesis.txt").write_text("mine")
    with pytest.raises(OutputError, match="holds files that are not certificate requests"):
        site.request()
    assert [path.name for path in site.requests.iterdir()] == ["thesis.txt"]
    for path in (site.requests / "thesis.txt", site.requests / "thesis.txt/below"):
        with pytest.raises(OutputError, match="File exists|Not a directory"):
            write_requests((), site.plan, path)


def test_obsolete_requests_are_removed(site: Site) -> None:
    site.request(cas=("kubernetes-ca",))
    (site.requests / "kubernetes-ca.crt").write_text("signed")
    site.request(cas=("etcd-ca",))
    assert (site.requests / "kubernetes-ca.csr").exists()  # it is signed_leaves for still
    site.sign()
    site.import_signed()
    site.request(cas=("front-proxy-ca",))
    assert {path.name for path in site.requests.glob("*.csr")} == {"front-proxy-ca.csr"}


@pytest.mark.slow
def test_an_exported_state_includes_requests_and_origins(site: Site, tmp_path: Path) -> None:
    site.request()
    before = site.read_files()
    export_state(site.state, tmp_path / "x", "correct horse battery")
    import_state(tmp_path / "x", tmp_path / "elsewhere", "correct horse battery")
    site.directory = tmp_path / "other"
    shutil.copytree(tmp_path / "elsewhere", site.state)
    assert site.read_files().keys() | {".lock"} == before.keys()


@pytest.mark.slow
@pytest.mark.parametrize("options", [{}, {"leaves": True, "cas": ("kubelet-ca",)}])
def test_after_a_killed_run_the_next_one_writes_all_requests(
    site: Site, options: dict[str, object]
) -> None:
    for point in range(14):
        pid = os.fork()
        if pid == 0:
            die_at_rename(point)
            try:
                site.request(**options)
            finally:
                os._exit(0)
        os.waitpid(pid, 0)
        names = {one.name for one in site.request()}
        assert names == set(CA_NAMES) or (options and "kubelet-ca" in names), point
        shutil.rmtree(site.state)
