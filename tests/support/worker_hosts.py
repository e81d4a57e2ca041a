"""A worker's host below a directory: its installed generation, a systemctl that says that all is well, and its API."""

import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

from support.join_cluster import Build
from support.shells import TEMPLATES, write_program

SYSTEMCTL = """\
case $* in
    *is-active*) echo active ;;
    *ActiveEnterTimestampMonotonic*) echo ActiveEnterTimestampMonotonic=0 ;;
esac
"""
DRAIN = """
set -u
DESTDIR={root}
here={generation} slot_wait=0 drain=yes dry_run=no skipped=' '
for part in core/environment core/common core/https preflight/checks transaction/host-diff \\
    transaction/generations transaction/units coordination/rollout-order coordination/drain; do
    . $here/lib/$part.sh
done
is_staged() {{ false; }}
make_work_dir
load_node
echo /opt/k8s/bin/kubelet >$work/touched
take_lock
check_drain
{command}
"""


@dataclass(frozen=True)
class WorkerHost:
    """Bundle 1 of this worker is installed, and its kubelet has a certificate."""

    build: Build
    name: str
    work: Path

    @property
    def root(self) -> Path:
        return self.build.root(self.name)

    @property
    def store(self) -> Path:
        return self.root / "var/lib/bundler"

    @property
    def environment(self) -> dict[str, str]:
        path = f"{self.work}/bin:{self.build.environment(self.name)['PATH']}"
        return {**os.environ, "DESTDIR": str(self.root), "INTERVAL": "0.5", "PATH": path}

    def install(self) -> None:
        """The records of install.sh, and a systemctl for the units."""
        write_program(self.work / "bin/systemctl", SYSTEMCTL)
        generation = self.store / "generations/1"
        for path in (TEMPLATES / "common/lib").rglob("*.*"):
            for place in (generation, self.root / "opt/k8s/bundle"):
                copy = place / "lib" / path.relative_to(TEMPLATES / "common/lib")
                copy.parent.mkdir(parents=True, exist_ok=True)
                copy.unlink(missing_ok=True)
                copy.write_text(
                    path.read_text().replace("/etc/kubernetes", f"{self.root}/etc/kubernetes")
                )
        for place in (generation, self.root / "opt/k8s/bundle"):
            (place / "lib/runtime.sh").write_text("")
        (generation / "rootfs").symlink_to(self.root)
        text = (self.root.parent / "node.env").read_text()
        text += f"UNITS=kubelet.service KUBELET_ROOT={self.root}/var/lib/kubelet DRAIN_LIMIT=20\n"
        (generation / "node.env").write_text(text)
        (self.store / "current").write_text("1\n")

    def drain(self, command: str) -> "subprocess.CompletedProcess[str]":
        """Run this with the parts of install.sh, as a change of the kubelet does."""
        script = self.work / "drain.sh"
        generation = self.store / "generations/1"
        script.write_text(DRAIN.format(root=self.root, generation=generation, command=command))
        return subprocess.run(
            ["sh", script], env=self.environment, capture_output=True, text=True, check=False, timeout=90
        )  # fmt: skip

    def start_uncordoning(self) -> "subprocess.Popen[str]":
        """kube-uncordon.service, which kube-uncordon.path starts."""
        script = self.root / "opt/k8s/libexec/uncordon.sh"
        return subprocess.Popen(
            ["sh", script], env=self.environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )  # fmt: skip

    def records(self) -> set[str]:
        """What says that a drain is not over."""
        return {path.name for path in self.store.iterdir()} & {"cordoned", "ticket"}
