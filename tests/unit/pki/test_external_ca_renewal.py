"""Clusters with an external CA over time: new hosts, renewal, lost CAs."""

import shutil
from datetime import timedelta

import pytest
from support.external_ca_site import (
    CA,
    CA_NAMES,
    SIGNS,
    Site,
)
from support.offline_root import openssl
from support.pki_plans import make_plan

from bundler.cluster.schema import Role
from bundler.errors import PkiError
from bundler.pki import declarations


@pytest.mark.slow
def test_a_new_host_waits_for_its_certificates(leaves: Site) -> None:
    leaves.import_signed()
    leaves.build()
    before = leaves.read_files()
    leaves.plan = make_plan(masters=2, workers=1)
    with pytest.raises(PkiError, match="apiserver of master2, .*etcd-peer of master2"):
        leaves.build()
    assert leaves.read_files() == before
    wanted = {one.name for one in leaves.request()}
    assert wanted == {
        "master1.apiserver",  # its names changed
        *(
            f"master2.{spec.name}"
            for spec in declarations.CERTIFICATES
            if spec.roles and not {Role.WORKER, Role.REGISTRY} & set(spec.roles)
        ),
    }
    leaves.sign()
    leaves.import_signed()
    assert set(leaves.build().nodes) == {"master1", "master2", "worker1"}


def test_a_changed_name_waits_for_a_new_certificate(leaves: Site) -> None:
    leaves.import_signed()
    leaves.build()
    plan = make_plan(masters=1, workers=1, endpoint="172.30.20.251")
    with pytest.raises(PkiError, match=r"apiserver of master1 \(SANs gained 172.30.20.251 and"):
        leaves.build(plan)


@pytest.mark.slow
def test_leaves_are_renewed_for_the_same_keys(leaves: Site) -> None:
    leaves.import_signed()
    leaves.build()
    assert leaves.request() == ()
    warned = leaves.build(later=timedelta(days=350)).notes
    assert any("to renew it, have it signed again for the same key" in note for note in warned)
    with pytest.raises(PkiError, match="admin of the cluster ended on") as caught:
        leaves.build(later=timedelta(days=400))
    assert "bundler certs request --all" in caught.value.hint
    assert "delete" not in caught.value.hint
    keys = {
        name: content for name, content in leaves.read_files().items() if name.endswith("key.pem")
    }
    assert len(leaves.request(again=True)) == 16
    leaves.build()  # the old certificates are still valid
    leaves.sign()
    leaves.import_signed()
    after = leaves.read_files()
    assert {name: after[name] for name in keys} == keys
    assert leaves.build().notes == ()


@pytest.mark.slow
def test_leaves_from_another_ca_than_before_are_refused(leaves: Site) -> None:
    leaves.import_signed()
    leaves.build()
    leaves.request(again=True)
    for file in leaves.issuing:
        file.unlink()
    leaves.sign()  # by new CAs of the same names
    with pytest.raises(PkiError, match="it is not the current CA CN=issuing-kubernetes-ca,O=Bank"):
        leaves.import_signed()


@pytest.mark.slow
def test_a_renewed_intermediate_keeps_the_certificates_that_it_signed(site: Site) -> None:
    site.request()
    site.sign()
    site.import_signed()
    site.build()
    before = site.read_files()
    assert site.request() == ()
    site.request(again=True)
    site.build()
    for name in CA_NAMES:
        site.root.sign(site.requests / f"{name}.csr", f"{CA}{SIGNS}", days=5000)
    site.import_signed()
    assert site.build().notes == ()
    after = site.read_files()
    changed = {name for name in before if before[name] != after[name]}
    assert changed == {f"pki/{name}/cert.pem" for name in CA_NAMES}
    assert set(after) == set(before)


def test_a_renewed_intermediate_must_keep_its_name(site: Site) -> None:
    site.request(cas=("kubernetes-ca",))
    site.sign()
    site.import_signed()
    site.request(again=True)
    key, request = site.state / "pki/kubernetes-ca/key.pem", site.requests / "kubernetes-ca.csr"
    openssl("req", "-new", "-key", key, "-subj", "/CN=new name", "-out", request)
    site.root.sign(request, f"{CA}{SIGNS}")
    with pytest.raises(PkiError, match="the name and key of the CA must stay the same"):
        site.import_signed(site.requests)


@pytest.mark.slow
def test_bundler_does_not_replace_a_lost_external_ca(site: Site, leaves: Site) -> None:
    site.request()
    site.sign()
    site.import_signed()
    site.build()
    leaves.import_signed()
    leaves.build()
    for one in (site, leaves):
        for name in ("kubernetes-ca", "etcd-ca"):
            shutil.move(one.state / "pki" / name, one.directory / name)
            with pytest.raises(
                PkiError, match=f"pki/{name}: missing, but .*, which is made later, exists"
            ):
                one.build()
            shutil.move(one.directory / name, one.state / "pki" / name)
    shutil.rmtree(leaves.state / "pki/kubelet-ca")
    with pytest.raises(PkiError, match="kubelet-ca: missing"):
        leaves.build()


def test_a_host_that_name_constraints_refuse_is_reported_before_anything_is_signed(
    site: Site,
) -> None:
    site.request(cas=("kubernetes-ca",))
    constraints = "nameConstraints=critical,excluded;IP:172.30.20.22/255.255.255.255"
    site.root.sign(site.requests / "kubernetes-ca.csr", f"{CA}{SIGNS}{constraints}")
    site.import_signed(site.requests)
    site.build()
    before = site.read_files()
    with pytest.raises(PkiError, match="constraints of kubernetes-ca refuse 172.30.20.22"):
        site.build(make_plan(masters=1, workers=2))
    assert site.read_files() == before
