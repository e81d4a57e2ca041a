"""The content of each issued certificate, read back with cryptography."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from support.pki_plans import NOW, make_plan

from bundler.errors import PkiError
from bundler.pki import declarations, issuing

SPECS = {spec.name: spec for spec in declarations.CERTIFICATES}
SERVER = ExtendedKeyUsageOID.SERVER_AUTH
CLIENT = ExtendedKeyUsageOID.CLIENT_AUTH


def make_issuer(name=declarations.KUBERNETES_CA, days=3650, now=NOW):
    key = issuing.make_key("ecdsa-p256")
    return issuing.Issuer(certificate=issuing.issue_ca(name, "lab", key, now, days), key=key)


def issue(name, *, plan=None, node=0, key=None, issuer=None, now=NOW, days=365):
    plan = plan or make_plan()
    spec = SPECS[name]
    content = declarations.make_content(spec, plan, plan.nodes[node] if spec.roles else None)
    key = key or issuing.make_key("ecdsa-p256")
    return issuing.issue(content, key.public_key(), issuer or make_issuer(), now, days)


def get(certificate, kind):
    return certificate.extensions.get_extension_for_class(kind)


@pytest.mark.parametrize(
    ("name", "common_name", "organization", "usages"),
    [
        ("apiserver", "kube-apiserver", None, {SERVER}),
        ("controller-manager-server", "kube-controller-manager", None, {SERVER}),
        ("scheduler-server", "kube-scheduler", None, {SERVER}),
        ("etcd-server", "master1", None, {SERVER, CLIENT}),
        ("etcd-peer", "master1", None, {SERVER, CLIENT}),
        ("etcd-healthcheck-client", "kube-etcd-healthcheck-client", None, {CLIENT}),
        ("apiserver-etcd-client", "kube-apiserver-etcd-client", None, {CLIENT}),
        ("apiserver-kubelet-client", "kube-apiserver-kubelet-client", None, {CLIENT}),
        ("front-proxy-client", "aggregator", None, {CLIENT}),
        ("controller-manager", "system:kube-controller-manager", None, {CLIENT}),
        ("scheduler", "system:kube-scheduler", None, {CLIENT}),
        ("kube-proxy", "system:kube-proxy:master1", "bundler:kube-proxies", {CLIENT}),
        ("kube-router", "bundler:kube-router:master1", "bundler:kube-routers", {CLIENT}),
        ("csr-approver", "bundler:csr-approver", None, {CLIENT}),
        ("node-remover", "bundler:node-remover", None, {CLIENT}),
        ("node-labeler", "bundler:node-labeler", None, {CLIENT}),
        ("admin", "kubernetes-admin", "bundler:cluster-admins", {CLIENT}),
        ("flannel-etcd-client", "flannel-etcd-client:master1", None, {CLIENT}),
        ("registry-server", "kube-registry:master1", None, {SERVER}),
        ("metrics-server", "metrics-server", None, {SERVER}),
    ],
)
def test_each_certificate_has_its_name_and_no_more_usages_than_it_needs(
    name, common_name, organization, usages
):
    certificate = issue(name)
    subject = {attribute.oid: attribute.value for attribute in certificate.subject}
    expected = {NameOID.COMMON_NAME: common_name}
    if organization:
        expected[NameOID.ORGANIZATION_NAME] = organization
    assert subject == expected
    assert set(get(certificate, x509.ExtendedKeyUsage).value) == usages


def test_the_table_above_has_every_declared_certificate():
    assert len(SPECS) == len(declarations.CERTIFICATES) == 20
    assert {spec.ca for spec in declarations.CERTIFICATES} == {
        *declarations.CA_NAMES,
        declarations.FLANNEL_ETCD_CA,
    }


def test_no_certificate_is_in_system_masters():
    groups = {
        spec.name: spec.organization for spec in declarations.CERTIFICATES if spec.organization
    }
    assert groups == {
        "admin": "bundler:cluster-admins",
        "kube-proxy": "bundler:kube-proxies",
        "kube-router": "bundler:kube-routers",
    }


def test_no_two_nodes_share_a_name_however_long():
    spec = SPECS["kube-proxy"]
    plan = make_plan()
    long = [replace(plan.nodes[0], name=f"{'n' * 60}-{number}") for number in (1, 2)]
    names = [declarations.make_content(spec, plan, node).common_name for node in long]
    assert len(set(names)) == 2
    assert all(name.startswith("system:kube-proxy:nnn") and len(name) == 64 for name in names)
    key = issuing.make_key("ecdsa-p256")
    content = declarations.make_content(spec, plan, long[0])
    assert issuing.issue(content, key.public_key(), make_issuer(), NOW, 1).subject


def test_the_api_server_certificate_has_every_name_that_clients_use():
    names = get(issue("apiserver"), x509.SubjectAlternativeName).value
    assert set(names.get_values_for_type(x509.IPAddress)) == {
        IPv4Address(text)
        for text in ("10.254.0.1", "127.0.0.1", "172.30.20.250", "172.30.20.11", "172.30.20.12")
    }
    assert set(names.get_values_for_type(x509.DNSName)) == {
        "kubernetes",
        "kubernetes.default",
        "kubernetes.default.svc",
        "kubernetes.default.svc.cluster.local",
        "localhost",
        "master1",
        "master2",
    }


def test_an_endpoint_name_becomes_a_dns_san():
    plan = make_plan(endpoint="api.example.org")
    names = get(issue("apiserver", plan=plan), x509.SubjectAlternativeName).value
    assert "api.example.org" in names.get_values_for_type(x509.DNSName)


def test_an_endpoint_that_is_a_node_address_is_one_san():
    plan = make_plan(endpoint="172.30.20.11")
    names = get(issue("apiserver", plan=plan), x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.IPAddress).count(IPv4Address("172.30.20.11")) == 1


@pytest.mark.parametrize("name", ["etcd-server", "etcd-peer", "scheduler-server"])
def test_a_node_certificate_names_only_its_own_host(name):
    content = declarations.make_content(SPECS[name], make_plan(), make_plan().nodes[1])
    assert content.names == (
        "master2",
        "localhost",
        IPv4Address("172.30.20.12"),
        IPv4Address("127.0.0.1"),
    )


def test_a_client_certificate_has_no_sans():
    with pytest.raises(x509.ExtensionNotFound):
        get(issue("admin"), x509.SubjectAlternativeName)


def test_a_ca_may_sign_leaves_only():
    certificate = make_issuer().certificate
    constraints = get(certificate, x509.BasicConstraints)
    usage = get(certificate, x509.KeyUsage)
    assert constraints.critical
    assert constraints.value == x509.BasicConstraints(ca=True, path_length=0)
    assert usage.critical
    assert usage.value.key_cert_sign
    assert usage.value.crl_sign
    assert not usage.value.digital_signature
    assert not usage.value.key_encipherment


@pytest.mark.parametrize(("kind", "enciphers"), [("ecdsa-p256", False), ("rsa-2048", True)])
def test_a_leaf_is_not_a_ca_and_its_key_usage_matches_its_key(kind, enciphers):
    certificate = issue("apiserver", key=issuing.make_key(kind))
    constraints = get(certificate, x509.BasicConstraints)
    usage = get(certificate, x509.KeyUsage)
    assert constraints.critical
    assert constraints.value == x509.BasicConstraints(ca=False, path_length=None)
    assert usage.critical
    assert usage.value.digital_signature
    assert usage.value.key_encipherment is enciphers
    assert not usage.value.key_cert_sign
    assert issuing.get_key_kind(certificate.public_key()) == kind


def test_a_leaf_identifies_its_ca_by_key():
    issuer = make_issuer()
    certificate = issue("admin", issuer=issuer)
    certificate.verify_directly_issued_by(issuer.certificate)
    ca = get(issuer.certificate, x509.SubjectKeyIdentifier).value.digest
    assert get(certificate, x509.AuthorityKeyIdentifier).value.key_identifier == ca


def test_serial_numbers_are_long_and_unique():
    issuer = make_issuer()
    serials = {issue("admin", issuer=issuer).serial_number for _ in range(20)}
    assert len(serials) == 20
    assert max(serials).bit_length() > 128
    assert max(serials).bit_length() < 160


def test_a_certificate_is_valid_from_five_minutes_before_now():
    certificate = issue("admin", issuer=make_issuer(now=NOW - timedelta(days=1)), days=10)
    assert certificate.not_valid_before_utc == datetime(2026, 3, 4, 5, 1, tzinfo=UTC)
    assert certificate.not_valid_after_utc == datetime(2026, 3, 14, 5, 6, tzinfo=UTC)


def test_a_leaf_never_outlives_its_ca():
    issuer = make_issuer(days=100)
    certificate = issue("admin", issuer=issuer, days=365)
    assert certificate.not_valid_after_utc == issuer.certificate.not_valid_after_utc


def test_an_ended_ca_signs_nothing():
    with pytest.raises(PkiError, match="kubernetes-ca ended on 2026-06-12"):
        issue("admin", issuer=make_issuer(days=100), now=NOW + timedelta(days=101))


def test_a_clock_before_the_start_of_the_ca_is_refused():
    with pytest.raises(PkiError, match="the clock of this machine shows 2026-03-01") as caught:
        issue("admin", issuer=make_issuer(), now=datetime(2026, 3, 1, tzinfo=UTC))
    assert caught.value.hint == "correct the clock of this machine"


@pytest.mark.parametrize("name", sorted(SPECS))
def test_reading_a_certificate_returns_its_declared_content(name):
    plan = make_plan()
    spec = SPECS[name]
    wanted = declarations.make_content(spec, plan, plan.nodes[0] if spec.roles else None)
    assert declarations.explain_change(declarations.read_content(issue(name)), wanted) is None


def test_the_order_of_names_does_not_matter():
    content = declarations.make_content(SPECS["apiserver"], make_plan(), make_plan().nodes[0])
    assert declarations.explain_change(replace(content, names=content.names[::-1]), content) is None


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"names": ("a", IPv4Address("10.0.0.1"), "c")}, "SANs gained 10.0.0.1, c"),
        ({"names": ()}, "SANs lost a"),
        ({"names": ("b",)}, "SANs gained b and SANs lost a"),
        ({"common_name": "y"}, "its name changed from x to y"),
        ({"organization": "o"}, "its organization changed to o"),
        ({"usages": (CLIENT.dotted_string,)}, "its usages changed"),
    ],
)
def test_a_change_is_described_in_words(change, reason):
    found = declarations.Content(
        common_name="x", organization=None, usages=(SERVER.dotted_string,), names=("a",)
    )
    assert declarations.explain_change(found, replace(found, **change)) == reason


@pytest.mark.parametrize(
    ("kind", "header"), [("ecdsa-p256", b"EC PRIVATE KEY"), ("rsa-2048", b"RSA PRIVATE KEY")]
)
def test_keys_have_the_traditional_format_that_every_kubernetes_reads(kind, header):
    key = issuing.make_key(kind)
    assert issuing.encode_private_key(key).startswith(b"-----BEGIN " + header + b"-----\n")
    assert issuing.encode_public_key(key.public_key()).startswith(b"-----BEGIN PUBLIC KEY-----\n")


def test_no_key_shows_in_a_repr():
    issuer = make_issuer()
    assert "PRIVATE" not in repr(issuer)
    number = issuer.key.private_numbers().private_value
    assert str(number) not in repr(issuer)
    assert isinstance(issuer.key, ec.EllipticCurvePrivateKey)
