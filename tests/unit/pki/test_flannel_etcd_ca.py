"""The CA of flannel's client certificates: only with `store: etcd`, only for the proxies, always bundler's own."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography import x509
from support.external_ca_site import make_site
from support.pki_plans import NOW, ensure_state, make_plan, read_files

from bundler.cluster.plan import ClusterPlan
from bundler.cluster.schema_network import Flannel, Network
from bundler.errors import ConfigError, PkiError
from bundler.pki import issuing
from bundler.pki.declarations import ETCD_CA, FLANNEL_ETCD_CA, Content
from bundler.pki.key_pairs import load_pair
from bundler.pki.rotation import CERTIFICATES
from bundler.state.directory import open_state
from bundler.state.stages import take_step

LEAF = "pki/nodes/worker1/flannel-etcd-client/cert.pem"
NETWORK = Network(plugin="flannel", flannel=Flannel(store="etcd"))


def with_flannel(plan: ClusterPlan) -> ClusterPlan:
    return replace(plan, cluster=plan.cluster.model_copy(update={"network": NETWORK}))


def read_issuer(state: Path, path: str) -> str:
    certificate = x509.load_pem_x509_certificate((state / path).read_bytes())
    return certificate.issuer.rfc4514_string()


def issue_by_etcd_ca(state: Path) -> None:
    """As bundler did before the proxies: the client certificate is one of etcd-ca."""
    with open_state(state) as opened:
        issuer = load_pair(state / "pki" / ETCD_CA, opened).issuer
    leaf = x509.load_pem_x509_certificate((state / LEAF).read_bytes())
    content = Content(
        common_name="flannel-etcd-client:worker1", organization=None,
        usages=("1.3.6.1.5.5.7.3.2",), names=(),
    )  # fmt: skip
    made = issuing.issue(content, leaf.public_key(), issuer, NOW, 365)
    (state / LEAF).write_bytes(issuing.encode_certificate(made))


@pytest.mark.parametrize("authorities", ["separate", "single"])
def test_it_signs_what_workers_show_to_the_proxies_and_nothing_else(
    tmp_path: Path, authorities: str
) -> None:
    made = ensure_state(tmp_path, with_flannel(make_plan(authorities=authorities)))
    by_flannels_ca = {
        path.relative_to(tmp_path).as_posix()
        for path in (tmp_path / "pki").rglob("cert.pem")
        if read_issuer(tmp_path, str(path.relative_to(tmp_path))).startswith(f"CN={FLANNEL_ETCD_CA},")
    }  # fmt: skip
    assert by_flannels_ca == {f"pki/{FLANNEL_ETCD_CA}/cert.pem", LEAF}
    others = {pem for name, pem in made.trust.by_ca.items() if name != FLANNEL_ETCD_CA}
    assert all(made.cas[FLANNEL_ETCD_CA].certificate_pem not in pem for pem in others)


def test_other_clusters_have_no_such_ca(state: Path) -> None:
    assert not (state / "pki" / FLANNEL_ETCD_CA).exists()


def test_an_existing_state_gets_the_ca_and_other_client_certificates(state: Path) -> None:
    plan = with_flannel(make_plan())
    ensure_state(state, plan)
    shutil.rmtree(state / "pki" / FLANNEL_ETCD_CA)
    issue_by_etcd_ca(state)  # now the state is as an earlier version left it
    before = read_files(state)
    with pytest.raises(PkiError, match=f"{FLANNEL_ETCD_CA}: missing") as refused:
        take_step(CERTIFICATES, state, plan, "trust", NOW, names=(), dry_run=False)
    assert "bundler build" in str(refused.value.hint)
    notes = ensure_state(state, plan).notes
    assert f"{FLANNEL_ETCD_CA}: created, ends on 2036-03-01" in notes
    assert any("not signed by the current flannel-etcd-ca" in note for note in notes)
    after = read_files(state)
    assert {path for path in after if after[path] != before.get(path)} == {
        LEAF, f"pki/{FLANNEL_ETCD_CA}/cert.pem", f"pki/{FLANNEL_ETCD_CA}/key.pem",
    }  # fmt: skip
    assert ensure_state(state, plan).notes == ()


def test_a_lost_ca_is_not_made_again(state: Path) -> None:
    plan = with_flannel(make_plan())
    ensure_state(state, plan)
    shutil.rmtree(state / "pki" / FLANNEL_ETCD_CA)
    before = read_files(state)
    with pytest.raises(PkiError, match=rf"{FLANNEL_ETCD_CA}: missing, but it signed .*{LEAF}"):
        ensure_state(state, plan)
    assert read_files(state) == before


def test_a_rotation_that_began_without_the_ca_ends_without_it(state: Path) -> None:
    """bundler is replaced, or the store changed, between two stages."""
    plan = with_flannel(make_plan())
    take_step(CERTIFICATES, state, make_plan(), "trust", NOW, names=(), dry_run=False)
    ensure_state(state, plan)
    before = read_files(state)
    for step in ("issue", "drop"):
        take_step(CERTIFICATES, state, plan, step, NOW, names=(), dry_run=False)
    after = read_files(state)
    assert after[LEAF] == before[LEAF]
    assert after["pki/etcd-ca/cert.pem"] != before["pki/etcd-ca/cert.pem"]
    assert ensure_state(state, plan).notes == ()


def test_it_is_rotated_with_the_other_cas(state: Path) -> None:
    plan = with_flannel(make_plan())
    first = ensure_state(state, plan)
    take_step(CERTIFICATES, state, plan, "trust", NOW, names=(), dry_run=False)
    both = ensure_state(state, plan)
    assert len(x509.load_pem_x509_certificates(both.trust.by_ca[FLANNEL_ETCD_CA])) == 2
    take_step(CERTIFICATES, state, plan, "issue", NOW, names=(), dry_run=False)
    second = ensure_state(state, plan)
    old, new = (made.nodes["worker1"]["flannel-etcd-client"] for made in (first, second))
    assert old.certificate_pem != new.certificate_pem


@pytest.mark.parametrize("leaves", [False, True])
def test_no_other_pki_signs_it_or_for_it(tmp_path: Path, leaves: bool) -> None:
    """nginx would accept every certificate below an external root."""
    site = make_site(tmp_path, with_flannel(make_plan(masters=1, workers=1)))
    wanted = {one.name for one in site.request(leaves=leaves)}
    assert not {name for name in wanted if "flannel" in name}
    site.sign()
    site.import_signed()
    made = site.build()
    assert read_issuer(site.state, LEAF) == f"CN={FLANNEL_ETCD_CA},O=lab"
    chain = x509.load_pem_x509_certificates(made.trust.etcd_servers)
    assert [one.subject.rfc4514_string() for one in chain][-1] == "CN=Bank Root,O=Bank"
    with pytest.raises(ConfigError, match="expected etcd-ca or front-proxy-ca or kubernetes-ca"):
        site.import_ca(FLANNEL_ETCD_CA, site.root.file)
