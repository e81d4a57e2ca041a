"""Stages of a rotation on the lab's hosts: build them, bring them to the hosts, install them."""

import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from support.lab import Cluster, Host, side_by_side
from support.paths import LAB_CACHE

REFUSED = 3  # exit code of an install.sh that is refused


@dataclass
class Stages:
    """The cluster, and the bundles of the last stage that was built."""

    cluster: Cluster
    cache: Path
    dist: Path

    @property
    def state(self) -> Path:
        return self.cluster.directory / "examples/lab.state"

    def build(self, name: str, *command: str) -> None:
        """On the builder: run a command of bundler, and bring the bundles to /root/NAME on each host."""
        target = self.cluster.directory / name
        done = subprocess.run(
            [
                Path(sys.executable).parent / "bundler", *command,
                "-c", self.cluster.directory / "examples/lab.yaml", "--since", self.dist, "-o", target,
                "--cache", self.cache, "--mirror", LAB_CACHE / "mirror", "--pins", LAB_CACHE / "pins.yaml", "--offline",
            ],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        self.dist = target
        side_by_side(lambda host: self._carry(host, name), self.cluster.hosts.values())

    def _carry(self, host: Host, name: str) -> None:
        bundle = self.cluster.directory / name / f"lab-{host.name}.tar.gz"
        host.run(f"rm -rf /root/{name} && mkdir /root/{name}")
        with bundle.open("rb") as stream:
            subprocess.run(
                ["docker", "exec", "-i", host.container, "tar", "-xzf", "-", "-C", f"/root/{name}"],
                stdin=stream, check=True,
            )  # fmt: skip

    def command(self, name: str, host: Host) -> str:
        """install.sh of that stage."""
        return f"/root/{name}/lab-{host.name}/install.sh"

    def install(self, name: str, host: Host) -> None:
        host.run(f"{self.command(name, host)} --wait 10m", timeout=900)

    def is_refused(self, name: str, host: Host) -> str:
        """Check that install.sh refuses the stage and changes nothing; return what it printed."""
        before = host.output("cat /var/lib/bundler/current")
        done = host.run(self.command(name, host), check=False)
        assert done.returncode == REFUSED, done.stdout
        assert host.output("cat /var/lib/bundler/current") == before
        return done.stdout


def renew_service_accounts(cluster: Cluster) -> None:
    """Renew the tokens of service accounts; no pod of the lab holds one."""
    deadline = time.monotonic() + 240
    while True:
        script = "/opt/k8s/libexec/renew-service-accounts.sh"
        done = cluster.masters[1].run(script, check=False, timeout=240)
        if done.returncode == 0:
            return
        assert time.monotonic() < deadline, done.stdout
        time.sleep(5)
