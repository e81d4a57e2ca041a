"""Import of certificates that an offline root signed, and the faults that are refused."""

import os
import shutil
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, pkcs7
from support.external_ca_site import (
    CA,
    CA_NAMES,
    LEAF,
    SIGNS,
    Site,
    die_at_rename,
    load_certificates,
    make_site,
    names_of,
    verify_with_openssl,
)
from support.offline_root import openssl
from support.pki_plans import make_plan

from bundler.errors import PkiError
from bundler.pki import issuing
from bundler.state.directory import open_state


@pytest.mark.slow
def test_a_build_issues_certificates_below_imported_intermediates(site: Site) -> None:
    site.request()
    site.sign()
    report = site.import_signed()
    assert [one.name for one in report.imported] == list(CA_NAMES)
    assert [root.subject.rfc4514_string() for root in report.roots] == ["CN=Bank Root,O=Bank"]
    assert report.notes == ()
    made = site.build()
    assert names_of(made.trust.by_ca["kubernetes-ca"]) == ["CN=kubernetes-ca,O=lab"]
    assert names_of(made.trust.servers) == ["CN=kubernetes-ca,O=lab", "CN=Bank Root,O=Bank"]
    assert names_of(made.nodes["master1"]["apiserver"].certificate_pem) == [
        "CN=kube-apiserver", "CN=kubernetes-ca,O=lab",
    ]  # fmt: skip
    assert names_of(made.cluster["admin"].certificate_pem) == [
        "CN=kubernetes-admin,O=bundler:cluster-admins"
    ]
    assert not list(site.state.rglob("request.pem"))
    assert site.build().notes == ()
    verify_with_openssl(site, made)


@pytest.mark.slow
@pytest.mark.parametrize("key", ["ecdsa-p256", "rsa-2048"])
@pytest.mark.parametrize("is_leaves", [False, True], ids=["ca", "leaves"])
def test_a_single_ca_works_with_both_kinds_of_key(
    tmp_path: Path, key: str, is_leaves: bool
) -> None:
    plan = make_plan(masters=1, workers=1, authorities="single", key=key)
    site = make_site(tmp_path, plan)
    wanted = site.request(leaves=is_leaves)
    assert len(wanted) == (16 if is_leaves else 1)
    site.sign()
    site.import_signed()
    made = site.build()
    certificate = load_certificates(made.nodes["master1"]["etcd-peer"].certificate_pem)[0]
    assert issuing.get_key_kind(certificate.public_key()) == key
    verify_with_openssl(site, made)
    kinds = {issuing.get_key_kind(load_certificates(made.trust.by_ca["etcd-ca"])[0].public_key())}
    assert kinds == ({"ecdsa-p256"} if is_leaves else {key})


@pytest.mark.slow
def test_with_imported_leaves_the_state_has_no_ca_key(leaves: Site) -> None:
    report = leaves.import_signed()
    assert len(report.imported) == 16
    made = leaves.build()
    for name in CA_NAMES:
        assert not (leaves.state / "pki" / name / "key.pem").exists()
        assert made.cas[name].key_pem == b""
    assert names_of(made.trust.by_ca["kubernetes-ca"]) == [
        "CN=issuing-kubernetes-ca,O=Bank", "CN=kubelet-ca,O=lab",
    ]  # fmt: skip
    assert names_of(made.trust.by_ca["etcd-ca"]) == ["CN=issuing-etcd-ca,O=Bank"]
    assert names_of(made.trust.servers) == [
        "CN=issuing-kubernetes-ca,O=Bank", "CN=Bank Root,O=Bank", "CN=kubelet-ca,O=lab",
    ]  # fmt: skip
    assert names_of(made.kubelet_ca.certificate_pem) == ["CN=kubelet-ca,O=lab"]
    assert leaves.build().notes == ()
    verify_with_openssl(leaves, made)


@pytest.mark.slow
def test_the_kubelet_ca_can_be_requested_too(site: Site) -> None:
    site.request(leaves=True, cas=("kubelet-ca",))
    site.sign()
    site.import_signed()
    made = site.build()
    assert (
        load_certificates(made.kubelet_ca.certificate_pem)[0].issuer
        == load_certificates(site.root.file.read_bytes())[0].subject
    )


@pytest.mark.slow
def test_certificates_are_found_in_any_format_and_file_name(site: Site) -> None:
    site.request()
    site.sign()
    back = site.directory / "back"
    back.mkdir()
    signed = [
        load_certificates((site.requests / f"{name}.crt").read_bytes())[0] for name in CA_NAMES
    ]
    root = load_certificates(site.root.file.read_bytes())[0]
    (back / "1.cer").write_bytes(signed[0].public_bytes(Encoding.DER))
    (back / "chain.p7b").write_bytes(pkcs7.serialize_certificates([signed[1], root], Encoding.DER))
    text = openssl("x509", "-in", site.requests / "kubernetes-ca.crt", "-text")
    (back / "from the mail.txt").write_text(f"Dear colleague,\n{text}\nYours\n")
    (back / "notes.pem").write_text(
        "-----BEGIN EC PARAMETERS-----\nAA==\n-----END EC PARAMETERS-----\n"
    )
    report = site.import_signed(back, root=None)
    assert {one.path.name for one in report.imported} == {"1.cer", "chain.p7b", "from the mail.txt"}
    site.build()


@pytest.mark.slow
def test_a_dry_run_checks_everything_and_imports_nothing(site: Site) -> None:
    site.request()
    site.sign()
    before = site.read_files()
    assert len(site.import_signed(dry_run=True).imported) == 3
    assert site.read_files() == before


def test_an_import_without_requests_is_refused(site: Site) -> None:
    site.build()
    with pytest.raises(PkiError, match="no request is outstanding"):
        site.import_signed(site.root.file)


def test_unrelated_certificates_are_reported_and_not_imported(site: Site) -> None:
    site.request()
    site.sign()
    unrelated = site.root.issue("web", "/CN=web", "basicConstraints=CA:FALSE")
    report = site.import_signed(site.requests, unrelated)
    assert report.notes == (f"{unrelated}: web matches no request of this cluster",)


@pytest.mark.parametrize(
    ("extensions", "fault"),
    [
        ("", "it is not a CA"),
        (f"basicConstraints=CA:FALSE\n{SIGNS}", "it is not a CA"),
        (f"{CA}keyUsage=critical,digitalSignature", "may not sign certificates"),
        (f"{CA}{SIGNS}extendedKeyUsage=serverAuth", "extendedKeyUsage does not have clientAuth"),
        (f"{CA}{SIGNS}extendedKeyUsage=clientAuth", "extendedKeyUsage does not have serverAuth"),
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
def test_an_unusable_ca_certificate_is_refused(site: Site, extensions: str, fault: str) -> None:
    site.request(cas=("kubernetes-ca",))
    before = site.read_files()
    site.root.sign(site.requests / "kubernetes-ca.csr", extensions)
    with pytest.raises(PkiError, match=fault):
        site.import_signed(site.requests)
    assert site.read_files() == before


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
def test_harmless_extensions_are_accepted(site: Site, extensions: str) -> None:
    site.request(cas=("kubernetes-ca",))
    site.root.sign(site.requests / "kubernetes-ca.csr", extensions)
    site.import_signed(site.requests)
    site.build()


def test_a_ca_that_may_sign_cas_is_imported_with_a_warning(site: Site) -> None:
    site.request(cas=("kubernetes-ca",))
    site.root.sign(
        site.requests / "kubernetes-ca.csr", f"basicConstraints=CA:TRUE\n{SIGNS}", days=90
    )
    soon, deep = site.import_signed(site.requests).notes
    assert "sooner than the 365 days of pki.days" in soon
    assert "may sign further CAs" in deep
    notes = site.build().notes
    assert [note for note in notes if "and its new certificates end on" in note] == [
        note for note in notes if note.startswith("warning: kubernetes-ca and its new")
    ][-1:]


@pytest.mark.slow
def test_the_complete_chain_must_be_valid(site: Site) -> None:
    site.request(cas=("kubernetes-ca",))
    request = site.requests / "kubernetes-ca.csr"
    other = type(site.root)(site.directory / "other", subject="/CN=Other Root")
    middle = site.root.issue_ca("middle")  # pathlen:0: it may sign no CA
    server = site.root.issue("server", "/CN=server", "basicConstraints=CA:FALSE")
    ended = site.root.issue_ca("ended", extensions=f"basicConstraints=CA:TRUE\n{SIGNS}", days=1)
    for issuer, paths, options, fault in (
        (None, (), {"root": None}, "certificate of CN=Bank Root,O=Bank is missing"),
        (None, (), {"root": other.file}, "certificate of CN=Bank Root,O=Bank is missing"),
        (
            None,
            (site.root.file,),
            {"root": other.file},
            "ends with Bank Root, which is not the certificate of --root",
        ),
        (middle, (middle,), {}, "middle allows 0 CAs below it, but the chain has more"),
        (middle, (), {}, "certificate of CN=middle,O=Bank is missing"),
        (server, (server,), {}, "its issuer server is not a CA"),
        (ended, (ended,), {"later": timedelta(days=2)}, "its issuer ended ended on"),
    ):
        signed = site.root.sign(request, f"{CA}{SIGNS}", issuer=issuer, days=3650)
        with pytest.raises(PkiError, match=fault):
            site.import_signed(signed, *paths, **options)
    good = site.root.issue_ca("policy", extensions=f"basicConstraints=CA:TRUE\n{SIGNS}")
    signed = site.root.sign(request, f"{CA}{SIGNS}", issuer=good)
    site.import_signed(signed, good)
    assert names_of(site.build().trust.servers) == [
        "CN=kubernetes-ca,O=lab", "CN=policy,O=Bank", "CN=Bank Root,O=Bank",
    ]  # fmt: skip


def test_a_sha1_signature_is_refused(site: Site) -> None:
    site.request(cas=("kubernetes-ca",))
    request = site.requests / "kubernetes-ca.csr"
    (site.requests / "x.conf").write_text(f"{CA}{SIGNS}")
    openssl(
        "x509", "-req", "-sha1", "-in", request, "-CA", site.root.file, "-CAkey",
        site.root.file.with_suffix(".key"), "-CAcreateserial", "-extfile",
        site.requests / "x.conf", "-out", request.with_suffix(".crt"),
    )  # fmt: skip
    with pytest.raises(PkiError, match="signed with sha1"):
        site.import_signed(site.requests)


@pytest.mark.parametrize(
    ("name", "subject", "extensions", "fault"),
    [
        (
            "admin",
            "/CN=kubernetes-admin",
            "",
            "organization is absent, but must be bundler:cluster-admins",
        ),
        (
            "scheduler",
            "/O=Bank/CN=system:kube-scheduler",
            "",
            "organization is Bank, but must be abs",
        ),
        ("scheduler", "/CN=scheduler", "", "common name is scheduler, but must be system:kube-sch"),
        ("scheduler", None, "extendedKeyUsage=serverAuth", "does not have clientAuth"),
        ("scheduler", None, "extendedKeyUsage=clientAuth,serverAuth", "must not have serverAuth"),
        ("scheduler", None, "", "extendedKeyUsage does not have clientAuth"),
        ("scheduler", None, "subjectAltName=DNS:x", "subjectAltName must not have x"),
        (
            "master1.etcd-peer",
            None,
            "subjectAltName=DNS:master1",
            "does not have 127.0.0.1, 172.30.20.11, l",
        ),
    ],
)
@pytest.mark.slow
def test_a_leaf_that_differs_from_the_plan_is_refused(
    leaves: Site, name: str, subject: str | None, extensions: str, fault: str
) -> None:
    before = leaves.read_files()
    request = leaves.requests / f"{name}.csr"
    if subject:
        key = next(leaves.state.rglob(f"{name.rpartition('.')[2]}/key.pem"))
        openssl("req", "-new", "-key", key, "-subj", subject, "-out", request)
    issuer = next(file for file in leaves.issuing if ("etcd" in name) == ("etcd" in file.name))
    if "etcd" not in name:
        issuer = leaves.root.directory / "issuing-kubernetes-ca.crt"
    leaves.root.sign(request, LEAF + extensions, issuer=issuer)
    with pytest.raises(PkiError, match=fault):
        leaves.import_signed()
    assert leaves.read_files() == before


def test_all_faults_are_reported_at_once(leaves: Site) -> None:
    kubernetes = leaves.root.directory / "issuing-kubernetes-ca.crt"
    leaves.root.sign(leaves.requests / "admin.csr", f"{CA}{SIGNS}", issuer=kubernetes)
    etcd = leaves.root.directory / "issuing-etcd-ca.crt"
    leaves.root.sign(
        leaves.requests / "scheduler.csr", f"{LEAF}extendedKeyUsage=clientAuth", issuer=etcd
    )
    (leaves.requests / "controller-manager.crt").unlink()
    (leaves.requests / "broken.crt").write_text("nothing")
    shutil.copy(leaves.requests / "csr-approver.csr", leaves.requests / "again.csr")
    leaves.root.sign(
        leaves.requests / "again.csr", f"{LEAF}extendedKeyUsage=clientAuth", issuer=kubernetes
    )
    with pytest.raises(PkiError) as caught:
        leaves.import_signed()
    message = caught.value.message
    for fault in (
        "broken.crt: holds no certificate",
        "admin.crt (admin): it must not be a CA",
        "admin.crt (admin): it must not be able to sign certificates",
        "admin.crt (admin): its keyUsage does not have digitalSignature",
        "admin.crt (admin): its extendedKeyUsage does not have clientAuth",
        "scheduler.crt (scheduler): signed by issuing-etcd-ca, but other certificates of kubern",
        "controller-manager: no certificate has the key of its request",
        "csr-approver: more than one certificate has its key",
    ):
        assert fault in message
    assert "nothing was imported" in caught.value.hint


@pytest.mark.slow
def test_one_ca_in_place_of_three_is_refused(leaves: Site) -> None:
    kubernetes = leaves.root.directory / "issuing-kubernetes-ca.crt"
    leaves.root.follow(
        leaves.requests, root=leaves.root.file, kubernetes_ca=kubernetes, etcd_ca=kubernetes,
        front_proxy_ca=leaves.root.directory / "issuing-front-proxy-ca.crt",
    )  # fmt: skip
    with pytest.raises(PkiError, match="it has the same key as etcd-ca, so certificates of one CA"):
        leaves.import_signed()


@pytest.mark.slow
def test_leaves_signed_by_a_root_are_imported_with_a_warning(tmp_path: Path) -> None:
    site = make_site(tmp_path, make_plan(masters=1, workers=0, authorities="single"))
    site.request(leaves=True)
    site.root.follow(site.requests, kubernetes_ca=site.root.file)
    notes = site.import_signed().notes
    assert any(
        "kubernetes-ca is a root (Bank Root): the cluster trusts everything" in n for n in notes
    )
    made = site.build()
    assert names_of(made.nodes["master1"]["apiserver"].certificate_pem) == ["CN=kube-apiserver"]


@pytest.mark.slow
def test_a_killed_import_is_completed_or_has_no_effect(leaves: Site, tmp_path: Path) -> None:
    before = leaves.read_files()
    seen = set()
    for point in range(200):
        copy = Site(directory=tmp_path / str(point), root=leaves.root, plan=leaves.plan)
        shutil.copytree(leaves.state, copy.state)
        pid = os.fork()
        if pid == 0:
            die_at_rename(point)
            try:
                copy.import_signed(leaves.requests, *leaves.issuing)
            finally:
                os._exit(0)
        ended = os.waitpid(pid, 0)[1]
        if ended == 0:
            break
        with open_state(copy.state):
            pass  # finishes the transaction
        after = copy.read_files()
        if after == before:
            seen.add("not imported")
        else:
            seen.add("imported")
            copy.build()
            assert not list(copy.state.rglob("request.pem"))
        assert not list(copy.state.rglob(".change"))
        shutil.rmtree(copy.directory)
    assert seen == {"imported", "not imported"}
    assert point > 30
