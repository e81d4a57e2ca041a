"""ensure_pki: what it creates, reuses, issues again and refuses in pki/ of the state directory."""

import os
import shutil
from dataclasses import replace
from datetime import timedelta
from ipaddress import IPv4Address
from pathlib import Path

import pytest
from cryptography import x509
from support.pki_plans import NOW, ensure_state, make_plan, read_files

from bundler.cluster.schema import Role
from bundler.errors import PkiError
from bundler.pki import declarations, issuing
from bundler.state.directory import open_state
from bundler.state.encryption import ensure_encryption_keys

MASTER_NAMES = {
    "apiserver",
    "controller-manager-server",
    "scheduler-server",
    "etcd-server",
    "etcd-peer",
}


def test_the_first_build_creates_everything_and_reports_it(tmp_path):
    made = ensure_state(tmp_path / "state")
    assert set(made.cas) == set(declarations.CA_NAMES)
    assert {name: set(pairs) for name, pairs in made.nodes.items()} == {
        "master1": MASTER_NAMES,
        "master2": MASTER_NAMES,
        "worker1": {"kube-proxy"},
    }
    assert set(made.cluster) == {
        spec.name for spec in declarations.CERTIFICATES if not spec.roles and not spec.feature
    }
    assert made.notes[0] == "service-account key pair: created"
    assert "kubernetes-ca: created, ends on 2036-03-01" in made.notes
    assert any(
        note.startswith("certificates of master2: created apiserver,") for note in made.notes
    )


def test_the_second_build_changes_no_byte_and_reports_nothing(state):
    before = read_files(state)
    first, second = ensure_state(state), ensure_state(state, now=NOW + timedelta(days=100))
    assert first == second
    assert second.notes == ()
    assert read_files(state) == before


def test_the_returned_pair_equals_the_files_on_disk(state):
    made = ensure_state(state)
    directory = state / "pki" / "nodes" / "master1" / "apiserver"
    pair = made.nodes["master1"]["apiserver"]
    assert pair.certificate_pem == (directory / "cert.pem").read_bytes()
    assert pair.key_pem == (directory / "key.pem").read_bytes()
    certificate = x509.load_pem_x509_certificate(pair.certificate_pem)
    assert (pair.not_before, pair.not_after) == (
        certificate.not_valid_before_utc,
        certificate.not_valid_after_utc,
    )


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077])
def test_every_file_is_0600_and_every_directory_0700_whatever_the_umask(tmp_path, umask):
    before = os.umask(umask)
    try:
        ensure_state(tmp_path / "state", make_plan(masters=1, workers=0))
    finally:
        os.umask(before)
    for path in [tmp_path / "state", *(tmp_path / "state").rglob("*")]:
        if path.is_dir():
            assert path.stat().st_mode & 0o077 == 0, path
        else:
            assert path.stat().st_mode & 0o777 == 0o600, path


def test_a_third_control_plane_node_reissues_only_the_api_server_certificates(state):
    before = read_files(state / "pki")
    made = ensure_state(state, make_plan(masters=3), NOW + timedelta(days=1))
    after = read_files(state / "pki")
    assert {name for name in before if before[name] != after[name]} == {
        "nodes/master1/apiserver/cert.pem",
        "nodes/master2/apiserver/cert.pem",
    }
    assert {name.split("/")[1] for name in set(after) - set(before)} == {"master3"}
    assert made.notes == (
        (
            "certificates of master3: created apiserver, controller-manager-server,"
            " scheduler-server, etcd-server, etcd-peer"
        ),
        "apiserver of master1: issued again, because SANs gained 172.30.20.13, master3",
        "apiserver of master2: issued again, because SANs gained 172.30.20.13, master3",
    )


def test_a_new_worker_changes_no_other_certificate(state):
    before = read_files(state)
    notes = ensure_state(state, make_plan(workers=3)).notes
    assert notes == tuple(f"certificates of worker{n}: created kube-proxy" for n in (2, 3))
    after = read_files(state)
    assert {name: after[name] for name in before} == before
    made = {Path(name).parts[:4] for name in after.keys() - before.keys()}
    assert made == {("pki", "nodes", f"worker{n}", "kube-proxy") for n in (2, 3)}


def test_certificates_that_all_nodes_shared_are_moved_to_the_archive(state):
    old = (state / "pki/scheduler/key.pem").read_bytes()
    for name in ("flannel", "kube-proxy"):
        shutil.copytree(state / "pki/scheduler", state / "pki" / name)
    assert ensure_state(state).notes == (
        "flannel of the cluster: archived, because flannel uses the certificate of its node's kubelet",
        "kube-proxy of the cluster: archived, because each worker has its own",
    )
    assert not (state / "pki/kube-proxy").exists()
    (archived,) = state.glob("archive/*/pki/kube-proxy/key.pem")
    assert archived.read_bytes() == old
    assert ensure_state(state).notes == ()


def test_an_archiving_that_was_killed_is_completed(state):
    (state / "pki/kube-proxy").mkdir()
    assert len(ensure_state(state).notes) == 1
    assert not (state / "pki/kube-proxy").exists()


def test_a_removed_control_plane_node_is_removed_from_the_sans(state):
    made = ensure_state(state, make_plan(masters=1))
    assert made.notes == (
        "apiserver of master1: issued again, because SANs lost 172.30.20.12, master2",
    )
    assert (state / "pki/nodes/master2/apiserver/key.pem").exists()


def test_more_names_of_a_host_are_in_all_api_servers_and_its_own_certificates(state):
    plan = make_plan()
    first, *others = plan.nodes
    names = ("api.example", IPv4Address("198.51.100.7"))
    made = ensure_state(state, replace(plan, nodes=(replace(first, sans=names), *others)))
    gained = "issued again, because SANs gained 198.51.100.7, api.example"
    assert set(made.notes) == {
        *(f"{name} of master1: {gained}" for name in MASTER_NAMES),
        f"apiserver of master2: {gained}",
    }
    assert {note.rpartition("lost ")[2] for note in ensure_state(state).notes} == {
        "198.51.100.7, api.example"
    }


def test_a_new_endpoint_reissues_with_the_same_key(state):
    key = (state / "pki/nodes/master1/apiserver/key.pem").read_bytes()
    made = ensure_state(state, make_plan(endpoint="api.example.org"))
    assert made.nodes["master1"]["apiserver"].key_pem == key
    assert made.notes[0] == (
        "apiserver of master1: issued again, because SANs gained api.example.org"
        " and SANs lost 172.30.20.250"
    )


def test_a_changed_key_kind_applies_to_new_keys_only_and_is_reported(state):
    before = read_files(state)
    made = ensure_state(state, make_plan(key="rsa-2048"))
    assert read_files(state) == before
    assert made.notes == (
        (
            "pki.key is rsa-2048, which applies to new keys only: 21 existing keys of another"
            " kind are kept (apiserver of master1 …)"
        ),
    )


@pytest.mark.slow
def test_rsa_keys_are_created_if_configured(tmp_path):
    made = ensure_state(tmp_path / "state", make_plan(masters=1, workers=0, key="rsa-2048"))
    for pair in (*made.cas.values(), *made.cluster.values()):
        key = x509.load_pem_x509_certificate(pair.certificate_pem).public_key()
        assert issuing.get_key_kind(key) == "rsa-2048"


def test_a_certificate_near_its_end_is_kept_with_a_warning(state):
    before = read_files(state)
    made = ensure_state(state, now=NOW + timedelta(days=340))
    assert (
        "warning: admin of the cluster ends on 2027-03-04; to renew it, bundler certs renew"
        " --expiring 90d, then build again and install the new bundles" in made.notes
    )
    assert read_files(state) == before


def test_a_short_certificate_causes_no_warning_on_its_first_day(tmp_path):
    made = ensure_state(tmp_path / "state", make_plan(days=7, ca_days=60))
    assert not [note for note in made.notes if note.startswith("warning")]


def test_all_ended_certificates_are_reported_at_once_and_nothing_is_written(state):
    before = read_files(state)
    with pytest.raises(PkiError, match="admin of the cluster ended on 2027-03-04") as caught:
        ensure_state(state, now=NOW + timedelta(days=366))
    assert caught.value.message.count("\n") == 20
    assert "bundler certs renew --expiring 90d" in caught.value.hint
    assert caught.value.hint.count("\n") == 0
    assert read_files(state) == before


def test_a_deleted_certificate_is_issued_again_for_the_same_key(state):
    directory = state / "pki/admin"
    key = (directory / "key.pem").read_bytes()
    (directory / "cert.pem").unlink()
    made = ensure_state(state, now=NOW + timedelta(days=340))
    assert "admin of the cluster: issued again, because its cert.pem was missing" in made.notes
    assert made.cluster["admin"].not_after == (NOW + timedelta(days=705)).replace(
        second=0, microsecond=0
    )
    assert (directory / "key.pem").read_bytes() == key


def test_an_ended_ca_is_refused_with_a_hint(state):
    with pytest.raises(PkiError, match=r"etcd-ca ended on 2036-03-01") as caught:
        ensure_state(state, now=NOW + timedelta(days=3651))
    assert "new CAs" in caught.value.hint


def test_a_ca_near_its_end_causes_a_warning(tmp_path):
    made = ensure_state(tmp_path / "state", make_plan(ca_days=365, days=365))
    made = ensure_state(tmp_path / "state", make_plan(), NOW + timedelta(days=300))
    assert any(note.startswith("warning: kubernetes-ca ends on 2027-03-04") for note in made.notes)


@pytest.mark.parametrize("name", ["etcd-ca", "front-proxy-ca", "kubernetes-ca", "service-account"])
def test_a_lost_ca_is_never_created_again(state, name):
    shutil.rmtree(state / "pki" / name)
    before = read_files(state)
    with pytest.raises(
        PkiError, match=f"pki/{name}: missing, but .*, which is made later, exists"
    ) as caught:
        ensure_state(state)
    assert caught.value.hint.startswith("restore it from your backup")
    assert read_files(state) == before


def test_a_lost_encryption_key_is_never_created_again(state):
    (state / "encryption-key").unlink()
    with pytest.raises(PkiError, match="encryption-key: missing"):
        ensure_state(state)
    assert not (state / "encryption-key").exists()


@pytest.mark.parametrize(
    ("file", "message"),
    [
        ("pki/kubernetes-ca/key.pem", "not an unencrypted private key in PEM"),
        ("pki/kubernetes-ca/cert.pem", "not a certificate in PEM"),
        ("pki/service-account/key.pem", "not an unencrypted private key in PEM"),
        ("pki/service-account/pub.pem", "do not belong together"),
        ("pki/admin/cert.pem", "not a certificate in PEM"),
        ("pki/nodes/master1/etcd-peer/key.pem", "not an unencrypted private key in PEM"),
        ("encryption-key", "32 bytes in base64"),
    ],
)
@pytest.mark.parametrize("damage", ["empty", "cut", "noise"])
def test_a_damaged_file_is_reported_and_not_changed(state, file, message, damage):
    path = state / file
    old = path.read_bytes()
    path.write_bytes(
        {"empty": b"", "cut": old[: len(old) // 2], "noise": b"\xff\x00 noise"}[damage]
    )
    before = read_files(state)
    with pytest.raises(PkiError, match=message) as caught:
        ensure_state(state)
    assert str(path if "together" not in message else path.parent) in caught.value.message
    assert "backup" in caught.value.hint
    assert read_files(state) == before


def test_all_damaged_pairs_are_reported_at_once(state):
    for name in ("admin", "scheduler"):
        (state / "pki" / name / "key.pem").write_bytes(b"")
    with pytest.raises(PkiError) as caught:
        ensure_state(state)
    assert "pki/admin/key.pem" in caught.value.message
    assert "pki/scheduler/key.pem" in caught.value.message


@pytest.mark.parametrize("name", ["kubernetes-ca", "admin"])
def test_a_key_of_another_certificate_is_refused(state, name):
    shutil.copy(state / "pki/scheduler/key.pem", state / "pki" / name / "key.pem")
    with pytest.raises(PkiError, match=r"cert\.pem and key\.pem do not belong together"):
        ensure_state(state)


def test_a_leaf_in_place_of_a_ca_is_refused(state):
    for file in ("cert.pem", "key.pem"):
        shutil.copy(state / "pki/admin" / file, state / "pki/kubernetes-ca" / file)
    with pytest.raises(PkiError, match="not a CA certificate"):
        ensure_state(state)


def test_a_changed_ca_reissues_its_leaves(state, tmp_path):
    ensure_state(tmp_path / "other", make_plan(masters=1, workers=0))
    shutil.rmtree(state / "pki/front-proxy-ca")
    shutil.copytree(tmp_path / "other/pki/front-proxy-ca", state / "pki/front-proxy-ca")
    assert ensure_state(state).notes == (
        (
            "front-proxy-client of the cluster: issued again,"
            " because it was not signed by the current front-proxy-ca"
        ),
    )


def test_the_state_of_another_cluster_is_refused(state):
    with pytest.raises(PkiError, match="belongs to the cluster lab, not to prod"):
        ensure_state(state, make_plan(name="prod"))


def test_a_key_that_other_users_can_read_is_refused(state):
    (state / "pki/admin/key.pem").chmod(0o644)
    with pytest.raises(PkiError, match=r"mode 0644") as caught:
        ensure_state(state)
    assert caught.value.hint == f"chmod -R go= {state}"


def test_nodes_may_be_named_like_certificates(tmp_path):
    plan = make_plan(masters=1, workers=0)
    text = plan.cluster.model_dump(mode="json", by_alias=True)
    assert text["nodes"][0]["name"] == "master1"
    for name in ("admin", "nodes", "kubernetes-ca"):
        node = type(plan.nodes[0])(
            name=name,
            address=plan.nodes[0].address,
            roles=(Role.ETCD, Role.CONTROL_PLANE),
            arch=plan.nodes[0].arch,
            pod_subnet=None,
        )
        renamed = type(plan)(
            cluster=plan.cluster,
            nodes=(node,),
            endpoint_host=plan.endpoint_host,
            endpoint_port=plan.endpoint_port,
            service_ip=plan.service_ip,
            dns_ip=plan.dns_ip,
            etcd_version=plan.etcd_version,
        )
        assert set(ensure_state(tmp_path / "state", renamed).nodes[name]) == MASTER_NAMES


def test_no_secret_shows_in_a_repr(state):
    made = ensure_state(state)
    assert "PRIVATE KEY" not in repr(made)
    for pair in (*made.cas.values(), *made.cluster.values()):
        assert pair.key_pem.splitlines()[1].decode() not in repr(made)
    assert made.service_account.key_pem.splitlines()[1].decode() not in repr(made)
    with open_state(state) as opened:
        (key,) = ensure_encryption_keys(opened)
        assert key.secret not in repr(opened) + repr(key)
