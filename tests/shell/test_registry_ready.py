"""When install.sh takes the registry for ready, how long it waits, and the space that it asks for."""

import hashlib
import subprocess
from pathlib import Path

import pytest
from support.shells import SHELLS, TEMPLATES

LIST = "# heading\nblob\t-\taa11\t40000000\nblob\t-\tbb22\t1024\ntag\tlibrary/db\tbb22\t1\n"


@pytest.fixture(params=SHELLS, ids=[shell[0] for shell in SHELLS])
def shell(request: pytest.FixtureRequest) -> list[str]:
    return list(request.param)


def run(shell: list[str], root: Path, script: str) -> tuple[int, str]:
    lib = root / "opt/k8s/bundle/lib"
    lib.mkdir(parents=True, exist_ok=True)
    (lib / "registry.tsv").write_text(LIST)
    begin = f"""
        prefix={root} live={root} here={root}/opt/k8s/bundle REGISTRY_STORAGE=/var/lib/registry
        . {TEMPLATES}/common/lib/transaction/ready.sh
        . {TEMPLATES}/common/lib/preflight/checks.sh
        unit_state() {{ cat {root}/"$1" 2>/dev/null || echo inactive; }}
    """
    (root / "kube-registry.service").write_text("active\n")
    done = subprocess.run(
        [*shell, "-c", begin + script], capture_output=True, text=True, check=False
    )
    assert done.stderr == ""
    return done.returncode, done.stdout


def test_the_registry_is_ready_when_it_has_every_image_of_this_bundle(
    shell: list[str], tmp_path: Path
) -> None:
    check = "ready_kube_registry kube-registry.service"
    copying = "images of the bundle are being copied into /var/lib/registry\n"
    assert run(shell, tmp_path, check) == (3, copying)
    complete = tmp_path / "var/lib/registry/.bundler-complete"
    complete.parent.mkdir(parents=True)
    complete.write_text(hashlib.sha256(b"of the former bundle").hexdigest() + "\n")
    assert run(shell, tmp_path, check) == (3, copying)
    (tmp_path / "kube-registry-seed.service").write_text("failed\n")
    code, reason = run(shell, tmp_path, check)
    assert (code, "journalctl -u kube-registry-seed" in reason) == (1, True)
    complete.write_text(hashlib.sha256(LIST.encode()).hexdigest() + "\n")
    assert run(shell, tmp_path, check) == (0, "")


def test_install_waits_longer_for_more_images_and_not_at_all_without_a_registry(
    shell: list[str], tmp_path: Path
) -> None:
    assert run(shell, tmp_path, "seed_wait") == (0, "62\n")
    assert run(shell, tmp_path, "prefix=/nonexistent; seed_wait") == (0, "0\n")


def test_space_is_needed_for_blobs_that_the_registry_does_not_have(
    shell: list[str], tmp_path: Path
) -> None:
    assert run(shell, tmp_path, "sum_registry_size") == (
        0, "39063 /var/lib/registry\n2 /var/lib/registry\n",
    )  # fmt: skip
    stored = tmp_path / "var/lib/registry/docker/registry/v2/blobs/sha256/aa/aa11/data"
    stored.parent.mkdir(parents=True)
    stored.write_text("")
    assert run(shell, tmp_path, "sum_registry_size") == (0, "2 /var/lib/registry\n")
