"""A Debian 12 machine with an arm64 processor: install, verify.sh, reboot."""

import subprocess
from pathlib import Path

import pytest
from support.lab import FIGURES
from support.machine_clusters import CONTAINERD, Site, make_bundle
from support.machine_disks import install_simply, keep_disk
from support.machines import MACHINES, ensure_image
from support.paths import PROJECT

ARM64 = (
    CONTAINERD.replace("worker]}", "worker], arch: arm64}")
    .replace('pause:3.2"', 'pause:3.2-arm64"')
    .replace('nginx:1.22"', 'nginx:1.22-arm64"')
)


@pytest.fixture(scope="module")
def site(project: Path) -> Site:
    image = ensure_image("debian-12-arm64")
    script = PROJECT / "scripts" / "machines" / "arm64.sh"
    done = subprocess.run([script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    made = MACHINES / "arm64"
    bundle = make_bundle(project, image, ARM64, mirror=made / "mirror", images=made / "images")
    return keep_disk("debian-12-arm64", image, bundle, install_simply).new_site()


def test_every_program_of_a_bundle_is_for_this_processor(site: Site) -> None:
    assert site.machine.output("uname -m").strip() == "aarch64"
    machines = site.machine.output(
        "for program in /opt/k8s/bin/* /opt/cni/bin/*; do"
        " od -An -j18 -N2 -tu2 $program; done | sort | uniq -c"
    ).split()
    assert machines[1:] == ["183"], machines  # EM_AARCH64, of each
    site.verify("after the machine was off")


def test_a_reboot_needs_no_manual_step(site: Site) -> None:
    FIGURES.append(f"debian-12-arm64: systemctl reboot: {site.machine.reboot():.0f} s")
    site.verify("after systemctl reboot")
