"""An offline root signs: requests, what comes back, and what a build makes of it."""

import json
import os
import shutil
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, pkcs7
from support.external_ca_cases import AUTHORITIES, Site, make_own_site
from support.offline_root import openssl
from support.pki_cases import make_plan

from bundler.errors import ConfigError, OutputError, PkiError
from bundler.pki import declarations, issuing
from bundler.pki.external_ca.csr_files import write_requests
from bundler.pki.external_ca.purposes import WHY
from bundler.pki.store import Pki
from bundler.state.archive import export_state, import_state
from bundler.state.directory import open_state
from bundler.state.transaction import finish_change, write_together


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return make_own_site(tmp_path)


@pytest.fixture(scope="module")
def asked(tmp_path_factory: pytest.TempPathFactory) -> Site:
    """Requests of every certificate; tests work on copies."""
    site = make_own_site(tmp_path_factory.mktemp("asked"))
    site.request(leaves=True)
    site.sign()
    return site


@pytest.fixture
def leaves(asked: Site, tmp_path: Path) -> Site:
    """The same, signed and not imported."""
    shutil.copytree(asked.directory, tmp_path / "copy")
    site = Site(directory=tmp_path / "copy", root=asked.root, plan=asked.plan)
    site.root = object.__new__(type(asked.root))
    site.root.directory = tmp_path / "copy" / "bank"
    site.root.file = site.root.directory / "root.crt"
    return site


def load(pem: bytes) -> list[x509.Certificate]:
    return x509.load_pem_x509_certificates(pem)


def names_of(pem: bytes) -> list[str]:
    return [one.subject.rfc4514_string() for one in load(pem)]


# Requests


def test_by_default_the_authorities_are_asked_for_as_intermediates(site: Site) -> None:
    wanted = site.request()
    assert [one.name for one in wanted] == list(AUTHORITIES)
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


def test_asking_again_gives_the_same_requests(site: Site) -> None:
    site.request()
    before, files = site.read(), {p.name: p.read_bytes() for p in site.requests.iterdir()}
    site.request()
    assert site.read() == before
    assert {p.name: p.read_bytes() for p in site.requests.iterdir()} == files


def test_a_build_waits_for_what_is_asked_for_and_makes_nothing(site: Site) -> None:
    site.request()
    before = site.read()
    with pytest.raises(PkiError, match="3 certificates that are signed elsewhere: etcd-ca, f") as e:
        site.build()
    assert "bundler certs import" in e.value.hint
    assert site.read() == before


def test_only_some_authorities_may_be_asked_for(site: Site) -> None:
    site.request(authorities=("kubernetes-ca",))
    site.sign()
    site.take()
    made = site.build()
    assert names_of(made.anchors["kubernetes-ca"]) == ["CN=kubernetes-ca,O=lab"]
    issuers = {name: load(made.anchors[name])[0].issuer.rfc4514_string() for name in AUTHORITIES}
    assert issuers == {
        "kubernetes-ca": "CN=Bank Root,O=Bank",
        "etcd-ca": "CN=etcd-ca,O=lab",
        "front-proxy-ca": "CN=front-proxy-ca,O=lab",
    }
    assert [one.name for one in site.request(again=True)] == ["kubernetes-ca"]


def test_authorities_that_bundler_made_are_never_asked_for(site: Site) -> None:
    site.build()
    before = site.read()
    for leaves in (False, True):
        with pytest.raises(PkiError, match="made by bundler, and an authority is never replaced"):
            site.request(leaves=leaves)
    assert site.read() == before


def test_who_signs_is_decided_once(site: Site, leaves: Site) -> None:
    site.request()
    with pytest.raises(PkiError, match="signed as an intermediate"):
        site.request(leaves=True)
    assert len(leaves.request()) == len(leaves.request(leaves=True))


def test_names_of_authorities_that_do_not_exist_are_refused(site: Site) -> None:
    for options in ({"authorities": ("ca",)}, {"authorities": ("etcd-ca",), "leaves": True}):
        with pytest.raises(ConfigError, match="--authority"):
            site.request(**options)
    assert not (site.state / "pki").exists()


def test_every_certificate_can_be_asked_for(asked: Site) -> None:
    rows = json.loads((asked.requests / "request.json").read_bytes())["requests"]
    wanted = {
        f"{node.name}.{spec.name}" if node else spec.name
        for spec in declarations.list_certificates(asked.plan)
        for node in declarations.list_owners(spec, asked.plan)
    }
    assert {row["name"] for row in rows} == wanted
    api = next(row for row in rows if row["name"] == "master1.apiserver")
    assert api["signed_by"] == "kubernetes-ca"
    assert {"IP:10.254.0.1", "DNS:kubernetes", "IP:172.30.20.250"} <= set(api["names"])
    admin = next(row for row in rows if row["name"] == "admin")
    assert admin["subject"] == {"organization": "system:masters", "common_name": "kubernetes-admin"}


def test_each_certificate_has_a_reason() -> None:
    named = (
        {spec.name for spec in declarations.CERTIFICATES}
        | set(declarations.AUTHORITIES)
        | {declarations.KUBELET_CA}
    )
    assert set(WHY) == named


def test_a_request_that_says_something_else_now_is_made_anew_for_the_same_key(
    leaves: Site,
) -> None:
    before = leaves.read()
    leaves.plan = make_plan(masters=1, workers=1, endpoint="172.30.20.251")
    leaves.request()
    after = leaves.read()
    assert {name for name in before if before[name] != after[name]} == {
        "pki/nodes/master1/apiserver/request.pem"
    }


def test_requests_do_not_mix_with_somebody_elses_files(site: Site) -> None:
    site.requests.mkdir()
    (site.requests / "thesis.txt").write_text("mine")
    with pytest.raises(OutputError, match="holds other files"):
        site.request()
    assert [path.name for path in site.requests.iterdir()] == ["thesis.txt"]
    for way in (site.requests / "thesis.txt", site.requests / "thesis.txt/below"):
        with pytest.raises(OutputError, match="File exists|Not a directory"):
            write_requests((), site.plan, way)


def test_requests_of_before_that_are_none_now_go(site: Site) -> None:
    site.request(authorities=("kubernetes-ca",))
    (site.requests / "kubernetes-ca.crt").write_text("signed")
    site.request(authorities=("etcd-ca",))
    assert (site.requests / "kubernetes-ca.csr").exists()  # it is asked for still
    site.sign()
    site.take()
    site.request(authorities=("front-proxy-ca",))
    assert {path.name for path in site.requests.glob("*.csr")} == {"front-proxy-ca.csr"}


# What comes back


def test_intermediates_come_back_and_a_build_issues_under_them(site: Site) -> None:
    site.request()
    site.sign()
    report = site.take()
    assert [one.name for one in report.taken] == list(AUTHORITIES)
    assert [root.subject.rfc4514_string() for root in report.roots] == ["CN=Bank Root,O=Bank"]
    assert report.notes == ()
    made = site.build()
    assert names_of(made.anchors["kubernetes-ca"]) == ["CN=kubernetes-ca,O=lab"]
    assert names_of(made.servers_anchors) == ["CN=kubernetes-ca,O=lab", "CN=Bank Root,O=Bank"]
    assert names_of(made.nodes["master1"]["apiserver"].certificate_pem) == [
        "CN=kube-apiserver", "CN=kubernetes-ca,O=lab",
    ]  # fmt: skip
    assert names_of(made.cluster["admin"].certificate_pem) == [
        "CN=kubernetes-admin,O=system:masters"
    ]
    assert not list(site.state.rglob("request.pem"))
    assert site.build().notes == ()
    verify_with_openssl(site, made)


def verify_with_openssl(site: Site, made: Pki) -> None:
    """Each certificate, by the authority alone, and servers' by the root alone."""
    file, above = site.directory / "leaf.pem", site.directory / "above.pem"
    for spec in declarations.list_certificates(site.plan):
        name = declarations.authority_of(spec, site.plan)
        pair = (made.nodes["master1"] if spec.roles else made.cluster)[spec.name]
        file.write_bytes(pair.certificate_pem)
        above.write_bytes(made.anchors[name])
        openssl("verify", "-x509_strict", "-partial_chain", "-CAfile", above, file)
        if declarations.SERVER in spec.usages:
            openssl("verify", "-x509_strict", "-CAfile", site.root.file, "-untrusted", file, file)


@pytest.mark.parametrize("key", ["ecdsa-p256", "rsa-2048"])
@pytest.mark.parametrize("is_leaves", [False, True], ids=["authority", "leaves"])
def test_one_authority_for_all_and_either_kind_of_key(
    tmp_path: Path, key: str, is_leaves: bool
) -> None:
    plan = make_plan(masters=1, workers=1, authorities="single", key=key)
    site = make_own_site(tmp_path, plan)
    wanted = site.request(leaves=is_leaves)
    assert len(wanted) == (14 if is_leaves else 1)
    site.sign()
    site.take()
    made = site.build()
    certificate = load(made.nodes["master1"]["etcd-peer"].certificate_pem)[0]
    assert issuing.get_key_kind(certificate.public_key()) == key
    verify_with_openssl(site, made)
    kinds = {issuing.get_key_kind(load(made.anchors["etcd-ca"])[0].public_key())}
    assert kinds == ({"ecdsa-p256"} if is_leaves else {key})


def test_leaves_come_back_and_no_key_of_an_authority_is_ever_here(leaves: Site) -> None:
    report = leaves.take()
    assert len(report.taken) == 14
    made = leaves.build()
    for name in AUTHORITIES:
        assert not (leaves.state / "pki" / name / "key.pem").exists()
        assert made.authorities[name].key_pem == b""
    assert names_of(made.anchors["kubernetes-ca"]) == [
        "CN=issuing-kubernetes-ca,O=Bank", "CN=kubelet-ca,O=lab",
    ]  # fmt: skip
    assert names_of(made.anchors["etcd-ca"]) == ["CN=issuing-etcd-ca,O=Bank"]
    assert names_of(made.servers_anchors) == [
        "CN=issuing-kubernetes-ca,O=Bank", "CN=Bank Root,O=Bank", "CN=kubelet-ca,O=lab",
    ]  # fmt: skip
    assert names_of(made.kubelet_authority.certificate_pem) == ["CN=kubelet-ca,O=lab"]
    assert leaves.build().notes == ()
    verify_with_openssl(leaves, made)


def test_the_kubelets_authority_can_be_asked_for_too(site: Site) -> None:
    site.request(leaves=True, authorities=("kubelet-ca",))
    site.sign()
    site.take()
    made = site.build()
    assert (
        load(made.kubelet_authority.certificate_pem)[0].issuer
        == load(site.root.file.read_bytes())[0].subject
    )


def test_in_any_form_and_under_any_name(site: Site) -> None:
    site.request()
    site.sign()
    back = site.directory / "back"
    back.mkdir()
    signed = [load((site.requests / f"{name}.crt").read_bytes())[0] for name in AUTHORITIES]
    root = load(site.root.file.read_bytes())[0]
    (back / "1.cer").write_bytes(signed[0].public_bytes(Encoding.DER))
    (back / "chain.p7b").write_bytes(pkcs7.serialize_certificates([signed[1], root], Encoding.DER))
    text = openssl("x509", "-in", site.requests / "kubernetes-ca.crt", "-text")
    (back / "from the mail.txt").write_text(f"Dear colleague,\n{text}\nYours\n")
    (back / "notes.pem").write_text(
        "-----BEGIN EC PARAMETERS-----\nAA==\n-----END EC PARAMETERS-----\n"
    )
    report = site.take(back, root=None)
    assert {one.path.name for one in report.taken} == {"1.cer", "chain.p7b", "from the mail.txt"}
    site.build()


def test_a_dry_run_checks_everything_and_takes_nothing(site: Site) -> None:
    site.request()
    site.sign()
    before = site.read()
    assert len(site.take(dry_run=True).taken) == 3
    assert site.read() == before


def test_nothing_to_import_is_told(site: Site) -> None:
    site.build()
    with pytest.raises(PkiError, match="no request is outstanding"):
        site.take(site.root.file)


def test_certificates_of_others_are_told_and_left_alone(site: Site) -> None:
    site.request()
    site.sign()
    stranger = site.root.issue("web", "/CN=web", "basicConstraints=CA:FALSE")
    report = site.take(site.requests, stranger)
    assert report.notes == (f"{stranger}: web answers no request of this cluster",)


CA = "basicConstraints=critical,CA:TRUE,pathlen:0\n"
SIGNS = "keyUsage=critical,keyCertSign,cRLSign\n"


@pytest.mark.parametrize(
    ("extensions", "fault"),
    [
        ("", "it is no authority"),
        (f"basicConstraints=CA:FALSE\n{SIGNS}", "it is no authority"),
        (f"{CA}keyUsage=critical,digitalSignature", "may not sign certificates"),
        (f"{CA}{SIGNS}extendedKeyUsage=serverAuth", "extendedKeyUsage lacks clientAuth"),
        (
            f"{CA}{SIGNS}nameConstraints=permitted;DNS:bank.example",
            "refuse master1, kubernetes, kubernetes.default,",
        ),
        (f"{CA}{SIGNS}nameConstraints=excluded;IP:172.30.0.0/255.255.0.0", "refuse 172.30.20.250"),
        (
            f"{CA}{SIGNS}nameConstraints=critical,permitted;dirName:d\n[d]\nO=Bank",
            "Go does not know",
        ),
        (f"{CA}{SIGNS}1.2.3.4=critical,DER:0500", "1.2.3.4 is critical"),
    ],
)
def test_what_cannot_be_an_authority_is_refused(site: Site, extensions: str, fault: str) -> None:
    site.request(authorities=("kubernetes-ca",))
    before = site.read()
    site.root.sign(site.requests / "kubernetes-ca.csr", extensions)
    with pytest.raises(PkiError, match=fault):
        site.take(site.requests)
    assert site.read() == before


@pytest.mark.parametrize(
    "extensions",
    [
        f"{CA}{SIGNS}extendedKeyUsage=serverAuth,clientAuth",
        f"{CA}{SIGNS}extendedKeyUsage=anyExtendedKeyUsage",
        f"{CA}{SIGNS}certificatePolicies=critical,1.2.3",
        f"{CA}{SIGNS}nameConstraints=critical,permitted;email:bank.example",
        f"{CA}{SIGNS}nameConstraints=permitted;IP:0.0.0.0/0.0.0.0,excluded;DNS:.example.org",
    ],
)
def test_what_does_no_harm_is_taken(site: Site, extensions: str) -> None:
    site.request(authorities=("kubernetes-ca",))
    site.root.sign(site.requests / "kubernetes-ca.csr", extensions)
    site.take(site.requests)
    site.build()


def test_an_authority_that_may_sign_authorities_is_taken_with_a_warning(site: Site) -> None:
    site.request(authorities=("kubernetes-ca",))
    site.root.sign(
        site.requests / "kubernetes-ca.csr", f"basicConstraints=CA:TRUE\n{SIGNS}", days=90
    )
    soon, deep = site.take(site.requests).notes
    assert "sooner than the 365 days of pki.days" in soon
    assert "may sign authorities in turn" in deep
    notes = site.build().notes
    assert [note for note in notes if "and its new certificates with it" in note] == [
        note for note in notes if note.startswith("warning: kubernetes-ca ends on")
    ][-1:]


def test_a_chain_must_hold_all_the_way_up(site: Site) -> None:
    site.request(authorities=("kubernetes-ca",))
    request = site.requests / "kubernetes-ca.csr"
    other = type(site.root)(site.directory / "other", subject="/CN=Other Root")
    middle = site.root.authority("middle")  # pathlen:0: it may sign no authority
    server = site.root.issue("server", "/CN=server", "basicConstraints=CA:FALSE")
    ended = site.root.authority("ended", extensions=f"basicConstraints=CA:TRUE\n{SIGNS}", days=1)
    for issuer, paths, options, fault in (
        (None, (), {"root": None}, "certificate of CN=Bank Root,O=Bank is lacking"),
        (None, (), {"root": other.file}, "certificate of CN=Bank Root,O=Bank is lacking"),
        (
            None,
            (site.root.file,),
            {"root": other.file},
            "ends with Bank Root, which is not the one",
        ),
        (middle, (middle,), {}, "middle allows 0 authorities below it, and here are more"),
        (middle, (), {}, "certificate of CN=middle,O=Bank is lacking"),
        (server, (server,), {}, "its issuer server is no authority"),
        (ended, (ended,), {"later": timedelta(days=2)}, "its issuer ended ended on"),
    ):
        signed = site.root.sign(request, f"{CA}{SIGNS}", issuer=issuer, days=3650)
        with pytest.raises(PkiError, match=fault):
            site.take(signed, *paths, **options)
    good = site.root.authority("policy", extensions=f"basicConstraints=CA:TRUE\n{SIGNS}")
    signed = site.root.sign(request, f"{CA}{SIGNS}", issuer=good)
    site.take(signed, good)
    assert names_of(site.build().servers_anchors) == [
        "CN=kubernetes-ca,O=lab", "CN=policy,O=Bank", "CN=Bank Root,O=Bank",
    ]  # fmt: skip


def test_a_signature_over_sha1_is_refused(site: Site) -> None:
    site.request(authorities=("kubernetes-ca",))
    request = site.requests / "kubernetes-ca.csr"
    (site.requests / "x.conf").write_text(f"{CA}{SIGNS}")
    openssl(
        "x509", "-req", "-sha1", "-in", request, "-CA", site.root.file, "-CAkey",
        site.root.file.with_suffix(".key"), "-CAcreateserial", "-extfile",
        site.requests / "x.conf", "-out", request.with_suffix(".crt"),
    )  # fmt: skip
    with pytest.raises(PkiError, match="signed over sha1"):
        site.take(site.requests)


LEAF = "basicConstraints=critical,CA:FALSE\nkeyUsage=critical,digitalSignature\n"


@pytest.mark.parametrize(
    ("name", "subject", "extensions", "fault"),
    [
        ("admin", "/CN=kubernetes-admin", "", "organization is absent, but must be system:masters"),
        (
            "scheduler",
            "/O=Bank/CN=system:kube-scheduler",
            "",
            "organization is Bank, but must be abs",
        ),
        ("scheduler", "/CN=scheduler", "", "common name is scheduler, but must be system:kube-sch"),
        ("scheduler", None, "extendedKeyUsage=serverAuth", "lacks clientAuth"),
        ("scheduler", None, "extendedKeyUsage=clientAuth,serverAuth", "must not have serverAuth"),
        ("scheduler", None, "", "extendedKeyUsage lacks clientAuth"),
        ("scheduler", None, "subjectAltName=DNS:x", "subjectAltName must not have x"),
        (
            "master1.etcd-peer",
            None,
            "subjectAltName=DNS:master1",
            "lacks 127.0.0.1, 172.30.20.11, l",
        ),
    ],
)
def test_a_leaf_that_is_not_what_the_plan_says_is_refused(
    leaves: Site, name: str, subject: str | None, extensions: str, fault: str
) -> None:
    before = leaves.read()
    request = leaves.requests / f"{name}.csr"
    if subject:
        key = next(leaves.state.rglob(f"{name.rpartition('.')[2]}/key.pem"))
        openssl("req", "-new", "-key", key, "-subj", subject, "-out", request)
    issuer = next(file for file in leaves.issuing if ("etcd" in name) == ("etcd" in file.name))
    if "etcd" not in name:
        issuer = leaves.root.directory / "issuing-kubernetes-ca.crt"
    leaves.root.sign(request, LEAF + extensions, issuer=issuer)
    with pytest.raises(PkiError, match=fault):
        leaves.take()
    assert leaves.read() == before


def test_all_faults_are_told_at_once(leaves: Site) -> None:
    kubernetes = leaves.root.directory / "issuing-kubernetes-ca.crt"
    leaves.root.sign(leaves.requests / "admin.csr", f"{CA}{SIGNS}", issuer=kubernetes)
    etcd = leaves.root.directory / "issuing-etcd-ca.crt"
    leaves.root.sign(
        leaves.requests / "scheduler.csr", f"{LEAF}extendedKeyUsage=clientAuth", issuer=etcd
    )
    (leaves.requests / "kube-proxy.crt").unlink()
    (leaves.requests / "broken.crt").write_text("nothing")
    shutil.copy(leaves.requests / "csr-approver.csr", leaves.requests / "again.csr")
    leaves.root.sign(
        leaves.requests / "again.csr", f"{LEAF}extendedKeyUsage=clientAuth", issuer=kubernetes
    )
    with pytest.raises(PkiError) as caught:
        leaves.take()
    message = caught.value.message
    for fault in (
        "broken.crt: no certificate in it",
        "admin.crt (admin): it is an authority",
        "admin.crt (admin): it may sign certificates",
        "admin.crt (admin): its keyUsage lacks digitalSignature",
        "admin.crt (admin): its extendedKeyUsage lacks clientAuth",
        "scheduler.crt (scheduler): signed by issuing-etcd-ca, but others of kubernetes-ca by issu",
        "kube-proxy: none of the certificates is for the key of its request",
        "csr-approver: more than one certificate for its key",
    ):
        assert fault in message
    assert "nothing was taken" in caught.value.hint


def test_authorities_that_are_one_are_refused_where_three_are_wanted(leaves: Site) -> None:
    kubernetes = leaves.root.directory / "issuing-kubernetes-ca.crt"
    leaves.root.follow(
        leaves.requests, root=leaves.root.file, kubernetes_ca=kubernetes, etcd_ca=kubernetes,
        front_proxy_ca=leaves.root.directory / "issuing-front-proxy-ca.crt",
    )  # fmt: skip
    with pytest.raises(PkiError, match="it is the same as etcd-ca: whoever has a certificate of"):
        leaves.take()


def test_leaves_that_a_root_signed_are_taken_with_a_warning(tmp_path: Path) -> None:
    site = make_own_site(tmp_path, make_plan(masters=1, workers=0, authorities="single"))
    site.request(leaves=True)
    site.root.follow(site.requests, kubernetes_ca=site.root.file)
    notes = site.take().notes
    assert any(
        "kubernetes-ca is a root (Bank Root): the cluster believes everything" in n for n in notes
    )
    made = site.build()
    assert names_of(made.nodes["master1"]["apiserver"].certificate_pem) == ["CN=kube-apiserver"]


# Life after


def test_a_new_host_waits_for_its_certificates(leaves: Site) -> None:
    leaves.take()
    leaves.build()
    before = leaves.read()
    leaves.plan = make_plan(masters=2, workers=1)
    with pytest.raises(PkiError, match="apiserver of master2, .*etcd-peer of master2"):
        leaves.build()
    assert leaves.read() == before
    wanted = {one.name for one in leaves.request()}
    assert wanted == {
        "master1.apiserver",  # its names changed
        *(f"master2.{spec.name}" for spec in declarations.CERTIFICATES if spec.roles),
    }
    leaves.sign()
    leaves.take()
    assert set(leaves.build().nodes) == {"master1", "master2", "worker1"}


def test_a_changed_name_waits_for_a_new_certificate(leaves: Site) -> None:
    leaves.take()
    leaves.build()
    plan = make_plan(masters=1, workers=1, endpoint="172.30.20.251")
    with pytest.raises(PkiError, match=r"apiserver of master1 \(SANs gained 172.30.20.251 and"):
        leaves.build(plan)


def test_leaves_are_renewed_for_the_same_keys(leaves: Site) -> None:
    leaves.take()
    leaves.build()
    assert leaves.request() == ()
    warned = leaves.build(later=timedelta(days=350)).notes
    assert any("to renew it, have it signed anew for the same key" in note for note in warned)
    with pytest.raises(PkiError, match="admin of the cluster ended on") as caught:
        leaves.build(later=timedelta(days=400))
    assert "bundler certs request --all" in caught.value.hint
    assert "delete" not in caught.value.hint
    keys = {name: content for name, content in leaves.read().items() if name.endswith("key.pem")}
    assert len(leaves.request(again=True)) == 14
    leaves.build()  # what is there holds until then
    leaves.sign()
    leaves.take()
    after = leaves.read()
    assert {name: after[name] for name in keys} == keys
    assert leaves.build().notes == ()


def test_leaves_under_another_authority_than_before_are_refused(leaves: Site) -> None:
    leaves.take()
    leaves.build()
    leaves.request(again=True)
    for file in leaves.issuing:
        file.unlink()
    leaves.sign()  # the bank made new ones of the same names
    with pytest.raises(PkiError, match="until now it was CN=issuing-kubernetes-ca,O=Bank, and h"):
        leaves.take()


def test_an_intermediate_is_renewed_and_what_it_signed_stays(site: Site) -> None:
    site.request()
    site.sign()
    site.take()
    site.build()
    before = site.read()
    assert site.request() == ()
    site.request(again=True)
    site.build()
    for name in AUTHORITIES:
        site.root.sign(site.requests / f"{name}.csr", f"{CA}{SIGNS}", days=5000)
    site.take()
    assert site.build().notes == ()
    after = site.read()
    changed = {name for name in before if before[name] != after[name]}
    assert changed == {f"pki/{name}/cert.pem" for name in AUTHORITIES}
    assert set(after) == set(before)


def test_a_renewed_intermediate_keeps_its_name(site: Site) -> None:
    site.request(authorities=("kubernetes-ca",))
    site.sign()
    site.take()
    site.request(again=True)
    key, request = site.state / "pki/kubernetes-ca/key.pem", site.requests / "kubernetes-ca.csr"
    openssl("req", "-new", "-key", key, "-subj", "/CN=new name", "-out", request)
    site.root.sign(request, f"{CA}{SIGNS}")
    with pytest.raises(PkiError, match="name and key of an authority must stay"):
        site.take(site.requests)


def test_a_lost_authority_is_not_made_by_bundler_instead(site: Site, leaves: Site) -> None:
    site.request()
    site.sign()
    site.take()
    site.build()
    leaves.take()
    leaves.build()
    for one in (site, leaves):
        for name in ("kubernetes-ca", "etcd-ca"):
            shutil.move(one.state / "pki" / name, one.directory / name)
            with pytest.raises(PkiError, match=f"pki/{name}: missing, but what was made after it"):
                one.build()
            shutil.move(one.directory / name, one.state / "pki" / name)
    shutil.rmtree(leaves.state / "pki/kubelet-ca")
    with pytest.raises(PkiError, match="kubelet-ca: missing"):
        leaves.build()


def test_a_host_that_the_authoritys_constraints_refuse_is_told_before_anything_is_signed(
    site: Site,
) -> None:
    site.request(authorities=("kubernetes-ca",))
    constraints = "nameConstraints=critical,excluded;IP:172.30.20.22/255.255.255.255"
    site.root.sign(site.requests / "kubernetes-ca.csr", f"{CA}{SIGNS}{constraints}")
    site.take(site.requests)
    site.build()
    before = site.read()
    with pytest.raises(PkiError, match="constraints of kubernetes-ca refuse 172.30.20.22"):
        site.build(make_plan(masters=1, workers=2))
    assert site.read() == before


def test_the_state_is_carried_with_its_requests_and_origins(site: Site, tmp_path: Path) -> None:
    site.request()
    before = site.read()
    export_state(site.state, tmp_path / "x", "correct horse battery")
    import_state(tmp_path / "x", tmp_path / "elsewhere", "correct horse battery")
    site.directory = tmp_path / "other"
    shutil.copytree(tmp_path / "elsewhere", site.state)
    assert site.read().keys() | {".lock"} == before.keys()


# All or nothing


def test_an_import_that_is_killed_at_any_moment_is_finished_or_never_was(
    leaves: Site, tmp_path: Path
) -> None:
    before = leaves.read()
    seen = set()
    for point in range(200):
        copy = Site(directory=tmp_path / str(point), root=leaves.root, plan=leaves.plan)
        shutil.copytree(leaves.state, copy.state)
        pid = os.fork()
        if pid == 0:
            die_at_rename(point)
            try:
                copy.take(leaves.requests, *leaves.issuing)
            finally:
                os._exit(0)
        ended = os.waitpid(pid, 0)[1]
        if ended == 0:
            break
        with open_state(copy.state):
            pass  # which finishes what was begun
        after = copy.read()
        if after == before:
            seen.add("not taken")
        else:
            seen.add("taken")
            copy.build()
            assert not list(copy.state.rglob("request.pem"))
        assert not list(copy.state.rglob(".change"))
        shutil.rmtree(copy.directory)
    assert seen == {"taken", "not taken"}
    assert point > 30


@pytest.mark.parametrize("options", [{}, {"leaves": True, "authorities": ("kubelet-ca",)}])
def test_requests_that_are_killed_at_any_moment_are_asked_for_again_all_of_them(
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
        assert names == set(AUTHORITIES) or (options and "kubelet-ca" in names), point
        shutil.rmtree(site.state)


def die_at_rename(count: int) -> None:
    """End this process, as kill -9 does, before the rename of that number."""
    left = [count]
    rename, replace = Path.rename, Path.replace

    def counted(real):
        def call(self, target):
            if left[0] == 0:
                os._exit(9)
            left[0] -= 1
            return real(self, target)

        return call

    Path.rename, Path.replace = counted(rename), counted(replace)


def test_a_change_of_several_files_is_not_begun_where_it_cannot_be_laid_down(
    tmp_path: Path,
) -> None:
    (tmp_path / "a").write_text("old")
    write_together(tmp_path, {"a": b"new", "b/c": b"made"}, ("gone",))
    assert (tmp_path / "a").read_text() == "new"
    assert (tmp_path / "b/c").stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "b").stat().st_mode & 0o777 == 0o700
    (tmp_path / ".change").mkdir()
    (tmp_path / ".change/index.json").write_text("{")
    with pytest.raises(PkiError, match="not what bundler wrote there"):
        finish_change(tmp_path)
