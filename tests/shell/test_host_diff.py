"""install.sh --plan: what would change, why, and what it interrupts; nothing secret, nothing done."""

import json
import re
import shutil
from pathlib import Path

import pytest
from support.bundle_secrets import list_secrets
from support.fake_host import FakeHost, make_host
from support.generation_site import CONFIG, KEY, Site, patch_install_script
from support.shells import Sh
from support.trees import Trees, list_tree, rewrite_manifest

from bundler.cluster.components import UNITS


@pytest.fixture
def site(sh: Sh, trees: Trees, tmp_path: Path) -> Site:
    """A worker that has the bundle, and another that changes a setting, a secret and a unit."""
    host = make_host(sh, trees / "worker1", tmp_path / "host")
    patch_install_script(host.bundle, host)
    rewrite_manifest(host.bundle)
    newer = Path(shutil.copytree(host.bundle, trees / "newer"))
    config = newer / "rootfs" / CONFIG
    config.write_text(config.read_text().replace("maxPods: ", "maxPods: 1"))
    (newer / "rootfs" / KEY).write_text("token: abcdef.0123456789abcdef\n")
    (newer / "rootfs/etc/new.conf").write_text("new\n")
    (newer / "rootfs/etc/sysctl.d/00-kubernetes-limits.conf").unlink()
    rewrite_manifest(newer)
    made = Site(host=host, bundles=[host.bundle, newer])
    assert made.install(1).returncode == 0
    return made


@pytest.mark.slow
def test_it_shows_the_lines_that_differ(site: Site) -> None:
    said = site.install(2, "--plan").stdout
    block = said[said.index(f"changed  0644 /{CONFIG}") :]
    lines = [line.strip() for line in block.splitlines()[1:6]]
    pods = re.search(r"^maxPods: (\d+)$", (site.root / CONFIG).read_text(), re.MULTILINE)
    assert pods is not None
    assert f"-maxPods: {pods[1]}" in lines
    assert f"+maxPods: 1{pods[1]}" in lines
    assert "new      0644 /etc/new.conf" in said
    assert "remove   /etc/sysctl.d/00-kubernetes-limits.conf" in said


@pytest.mark.slow
def test_it_says_why_a_unit_is_restarted_and_what_that_interrupts(site: Site) -> None:
    said = site.install(2, "--plan").stdout
    at = said.index("restart  kubelet.service")
    why, meanwhile = (line.strip() for line in said[at:].splitlines()[1:3])
    assert why == f"because of /{CONFIG}"
    assert meanwhile == "meanwhile, up to 20 s: pods keep running; none is started or stopped"
    assert "kube-proxy.service" not in said


@pytest.mark.slow
def test_a_dry_run_prints_a_line_for_each_change(site: Site) -> None:
    planned = site.install(2, "--plan").stdout.splitlines()[2:]
    listed = site.install(2, "--dry-run").stdout.splitlines()
    assert listed == [line for line in planned if not line.startswith("      ")]


@pytest.mark.slow
def test_json_has_the_same_facts(site: Site) -> None:
    done = site.install(2, "--plan", "--json")
    plan = json.loads(done.stdout)
    assert (plan["node"], plan["generation"], plan["nothing_to_do"]) == ("worker1", 1, False)
    files = {file["path"]: file for file in plan["files"]}
    assert files[f"/{CONFIG}"]["change"] == "changed"
    assert any(line.startswith("+maxPods: 1") for line in files[f"/{CONFIG}"]["lines"])
    assert files["/etc/new.conf"]["change"] == "new"
    assert files["/etc/sysctl.d/00-kubernetes-limits.conf"] == {
        "change": "removed",
        "path": "/etc/sysctl.d/00-kubernetes-limits.conf",
    }
    (unit,) = plan["units"]
    assert unit["unit"] == "kubelet.service"
    assert (unit["step"], unit["because"], unit["seconds"]) == ("restart", [f"/{CONFIG}"], 20)


@pytest.mark.slow
def test_json_says_when_there_is_nothing_to_do(site: Site) -> None:
    plan = json.loads(site.install(1, "--plan", "--json").stdout)
    assert plan["nothing_to_do"] is True
    assert plan["files"] == plan["units"] == plan["settings"] == plan["steps"] == []


@pytest.mark.slow
def test_it_changes_nothing(site: Site) -> None:
    before = list_tree(site.root)
    for arguments in (("--plan",), ("--plan", "--json"), ("--json", "--plan")):
        assert site.install(2, *arguments).returncode == 0
    assert list_tree(site.root) == before


@pytest.mark.slow
def test_a_secret_file_is_named_and_not_shown(site: Site) -> None:
    said = site.install(2, "--plan").stdout
    assert f"changed  0600 /{KEY}\n             (holds a secret: not shown)" in said
    assert "abcdef.0123456789abcdef" not in said + site.install(2, "--plan", "--json").stdout


@pytest.mark.slow
def test_no_secret_of_either_bundle_is_shown(sh: Sh, trees: Trees, tmp_path: Path) -> None:
    """Even where a secret has strayed into a file that is no secret one."""
    host: FakeHost = make_host(sh, trees / "master1", tmp_path / "host")
    patch_install_script(host.bundle, host)
    rewrite_manifest(host.bundle)
    one = Site(host=host, bundles=[host.bundle])
    assert one.install(1).returncode == 0
    secrets = list_secrets(host.bundle)
    assert len(secrets) > 20
    for path in host.bundle.rglob("*.key"):
        path.write_text(path.read_text()[::-1])
    audit = host.bundle / "rootfs/etc/kubernetes/audit-policy.yaml"
    keys = "".join(path.read_text() for path in (host.root / "etc/kubernetes/pki").glob("*.key"))
    audit.write_text(f"{keys}client-key-data: {'A' * 60}\ntoken: abcdef.0123456789abcdef\n")
    rewrite_manifest(host.bundle)
    for arguments in (("--plan",), ("--plan", "--json")):
        done = one.install(1, *arguments)
        said = done.stdout
        assert "audit-policy.yaml" in said, done.stderr
        assert [secret for secret in secrets if secret in said] == []
        assert "AAAAAAAA" not in said


@pytest.mark.slow
def test_certificates_are_shown_as_text(site: Site, rendered: Path) -> None:
    newer = site.bundles[1]
    certificate = next((newer / "rootfs").rglob("ca.crt"))
    other = next((rendered / "master1/rootfs/etc/etcd").rglob("ca.crt"))
    certificate.write_bytes(other.read_bytes())
    rewrite_manifest(newer)
    said = site.install(2, "--plan").stdout
    assert re.search(r"^ +-subject=.*kubernetes", said, re.MULTILINE)
    assert re.search(r"^ +\+subject=.*etcd", said, re.MULTILINE)
    assert "BEGIN CERTIFICATE" not in said


@pytest.mark.slow
def test_an_unready_host_gets_its_host_diff(site: Site) -> None:
    site.host.forbid("net.ipv4.ip_forward")
    done = site.install(2, "--plan")
    assert done.returncode == 3
    assert "restart  kubelet.service" in done.stdout
    assert "sysctls: this kernel does not have or forbids net.ipv4.ip_forward=1" in done.stderr
    done = site.install(2, "--plan", "--json")
    (reason,) = json.loads(done.stdout)["not_ready"]
    assert (done.returncode, reason.startswith("sysctls: ")) == (3, True)


def test_every_unit_says_what_its_restart_interrupts(rendered: Path) -> None:
    for row in UNITS:
        for path in rendered.glob(f"*/rootfs/etc/systemd/system/{row[0]}"):
            if path.suffix in {".timer", ".path"}:
                continue  # its restart is none of what it starts
            assert re.search(r"^Interruption=up to \d+ s: \S", path.read_text(), re.MULTILINE), path
