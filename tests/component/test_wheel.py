"""The wheel: a bundler installed from it finds its templates in any directory."""

import os
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest
from support.descriptions import write_description

PROJECT = Path(__file__).parents[2]
PINS = PROJECT / "tests" / "golden" / "pins.yaml"


@pytest.fixture(
    scope="module", params=["of this environment", pytest.param("its own", marks=pytest.mark.long)]
)
def installed(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundler installed with pip from a wheel, in an environment without the checkout; whose dependencies is `param`."""
    directory = tmp_path_factory.mktemp("wheel")
    subprocess.run(
        [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", directory, PROJECT],
        check=True,
    )
    venv.create(directory / "venv")
    python = directory / "venv" / "bin" / "python"
    command = [sys.executable, "-m", "pip", "--python", python, "install", "-q"]
    if request.param == "of this environment":
        command.append("--no-deps")
        packages = sysconfig.get_path("purelib", vars={"base": str(directory / "venv")})
        Path(packages, "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    subprocess.run([*command, next(directory.glob("*.whl"))], check=True)
    where = [python, "-c", "import bundler; print(bundler.__file__)"]
    found = subprocess.run(where, check=True, cwd="/", capture_output=True, text=True).stdout
    assert Path(found).is_relative_to(directory), f"not the wheel's bundler: {found}"
    return directory / "venv" / "bin" / "bundler"


def test_an_installed_bundler_renders_the_same_as_the_checkout(
    installed: Path, tmp_path: Path
) -> None:
    description = write_description(tmp_path)
    for name, program in (
        ("wheel", installed),
        ("checkout", Path(sys.executable).parent / "bundler"),
    ):
        subprocess.run(
            [program, "render", "-q", "--text-only", "-c", description, "--pins", PINS, "-o", tmp_path / name],
            check=True, cwd="/", env={**os.environ, "BUNDLER_CACHE": str(tmp_path / "cache")},
        )  # fmt: skip
    manifests = [
        [(tmp_path / name / node / "MANIFEST").read_text() for node in ("master1", "worker1")]
        for name in ("wheel", "checkout")
    ]
    assert manifests[0] == manifests[1]
    assert " 0755 " in manifests[0][0]


def test_an_installed_bundler_reports_the_same_digests_as_the_checkout(
    installed: Path,
) -> None:
    program = "from bundler.bundle.provenance import list_program; print(list_program())"
    printed = {
        subprocess.run(
            [python, "-c", program], check=True, cwd="/", capture_output=True, text=True
        ).stdout
        for python in (installed.with_name("python"), sys.executable)
    }
    assert len(printed) == 1
    assert "dirHash" in printed.pop()
