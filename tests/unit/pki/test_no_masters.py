"""No bundle has a credential of system:masters, whose rights nobody can revoke."""

import pytest
from support.pki_plans import NOW, make_plan

from bundler.pki.cluster_pki import ensure_pki
from bundler.pki.inventory import list_state_certificates
from bundler.state.directory import open_state


@pytest.mark.parametrize("authorities", ["separate", "single"])
@pytest.mark.slow
def test_no_certificate_of_the_state_is_in_the_masters_group(tmp_path, authorities):
    with open_state(tmp_path / "state", create=True) as state:
        ensure_pki(state, make_plan(authorities=authorities), NOW)
    subjects = [one.subject for one in list_state_certificates(tmp_path / "state", NOW)]
    assert any("O=bundler:cluster-admins" in subject for subject in subjects)
    assert not any("system:masters" in subject for subject in subjects)
