"""A fake host with several bundles for it, and install.sh runs that fail or are killed."""

import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from support.fake_host import INSTALL, FakeHost, make_host
from support.shells import Sh, write_program
from support.trees import Trees, list_tree, rewrite_manifest

CONFIG = "etc/kubernetes/kubelet-config.yaml"
UNIT = "etc/systemd/system/kubelet.service"
KEY = "etc/kubernetes/bootstrap.kubeconfig"
WENT_BACK = 5

Done = subprocess.CompletedProcess[str]


@dataclass
class Site:
    """A fake host, and bundles 1, 2, … for it, each with another configuration and secret."""

    host: FakeHost
    bundles: list[Path]

    @property
    def root(self) -> Path:
        return self.host.root

    @property
    def store(self) -> Path:
        return self.root / "var/lib/bundler"

    def install(self, number: int, *arguments: str, **environment: str) -> Done:
        return self.run(self.bundles[number - 1] / "install.sh", *arguments, **environment)

    def run(self, script: Path, *arguments: str, **environment: str) -> Done:
        path = f"{self.host.directory}/bin:/usr/bin:/bin:/usr/sbin:/sbin"
        environment = {"DESTDIR": str(self.root), "PATH": path} | environment
        return self.host.sh(script, *arguments, **environment)

    def boot(self) -> Done | None:
        """Do what bundler-recover.service does at boot, if its conditions hold."""
        unit = (self.root / "etc/systemd/system/bundler-recover.service").read_text()
        unit = unit.replace("/var/lib/bundler", str(self.store))
        conditions = re.findall(r"^ConditionPathExists=\|(.*)", unit, flags=re.MULTILINE)
        assert conditions
        if not any(Path(condition).exists() for condition in conditions):
            return None
        command = re.search(r"^ExecStart=/bin/sh -c '(.*)'$", unit, flags=re.MULTILINE)
        assert command
        script = self.host.directory / "boot.sh"
        script.write_text(command[1].replace("$$", "$").replace("exec /bin/sh", "echo"))
        words = self.run(script).stdout.split()
        return self.run(Path(words[0]), *words[1:]) if words else None

    def installed(self) -> dict[str, str]:
        """Files on the host, without bundler's own state and what a killed run left."""
        return {
            path: facts
            for path, facts in list_tree(self.root).items()
            if not path.startswith("var/lib/bundler") and "/.bundler-new/" not in path
        }

    def states(self) -> dict[str, str]:
        return {
            path.parent.name: path.read_text().split()[0]
            for path in sorted(self.store.glob("generations/*/state"))
        }

    def current(self) -> str:
        return (self.store / "current").read_text().strip()


def patch_install_script(bundle: Path, host: FakeHost) -> None:
    """Answer inside the bundle what a directory cannot (units, images), so that generations have it too."""
    script = bundle / "install.sh"
    instead = f"live={host.live}\nfake={host.directory}\n{INSTALL}"
    script.write_text(
        re.sub(
            r'^main "\$@"$', lambda _: f'{instead}main "$@"', script.read_text(), flags=re.MULTILINE
        )
    )


def make_site(sh: Sh, trees: Trees, directory: Path) -> Site:
    """A worker and four bundles for it; `trees` are the unpacked bundles of the example."""
    host = make_host(sh, trees / "worker1", directory / "host")
    patch_install_script(host.bundle, host)
    bundles = []
    for number in (1, 2, 3, 4):
        bundle = Path(shutil.copytree(host.bundle, trees / f"bundle{number}"))
        (bundle / "rootfs" / CONFIG).write_text(f"number: {number}\n")
        (bundle / "rootfs" / KEY).write_text(f"token: secret-{number}\n")
        with (bundle / "rootfs" / UNIT).open("a") as unit:
            unit.write(f"# {number}\n")
        rewrite_manifest(bundle)
        bundles.append(bundle)
    return Site(host=host, bundles=bundles)


def plant_failure(bundle: Path) -> None:
    """Make the units fail while this bundle is installed."""
    script = bundle / "install.sh"
    script.write_text(script.read_text().replace("echo ready); }", "echo failed); }"))
    rewrite_manifest(bundle)


def plant_killer(host: FakeHost, program: str, matching: str, call: int) -> None:
    """Kill the script that calls `program` with `matching` in its arguments for the nth time."""
    real = shutil.which(program, path="/usr/bin:/bin") if program != "systemctl" else None
    text = f'exec {real} "$@"\n' if real else (host.directory / "bin/systemctl").read_text()
    write_program(
        host.directory / "killers" / program,
        f'case " $* " in *"{matching}"*)\n'
        f"    calls=$(($(cat {host.directory}/kills 2>/dev/null || echo 0) + 1))\n"
        f"    echo $calls >{host.directory}/kills\n"
        f"    [ $calls -ne {call} ] || {{ kill -KILL $PPID; exit 1; }} ;;\nesac\n{text}",
    )
