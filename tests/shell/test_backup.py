"""backup.sh on a host with a stand-in for etcdctl: what is kept, copied and refused."""

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path

import pytest
from support.shells import TEMPLATES, Sh, write_program

ETCDCTL = """echo "${{0##*/}} $*" >>{work}/calls
for last; do :; done
case " $* " in
    *' endpoint status '*) echo '[{{"Status":{{"dbSize":{size}}}}}]' ;;
    *' snapshot save '*) [ ! -e {work}/refuses ] || {{ echo "Error: no leader" >&2; exit 1; }}; echo "data $(date +%s%N)" >"$last" ;;
    *' snapshot status '*) [ ! -e {work}/damaged ] || {{ echo "Error: integrity check failed" >&2; exit 1; }}; echo "c0ffee, 4711, 12, 25 kB" ;;
esac
"""
SETTINGS = """CLUSTER='lab'
NODE='m1'
ADDRESS='192.0.2.1'
ETCD_VERSION='3.4.23'
ETCD_ENDPOINTS='https://192.0.2.1:2379'
SNAPSHOT_TOOL='{tool}'
BACKUP_DIRECTORY='{directory}'
BACKUP_KEEP='{keep}'
BACKUP_COPY_TO='{copy_to}'
"""


@dataclass(frozen=True)
class BackupHost:
    sh: Sh
    work: Path

    @property
    def root(self) -> Path:
        return self.work / "root"

    @property
    def directory(self) -> Path:
        return self.root / "var/backups/etcd"

    def run(
        self, *arguments: str, keep: int = 3, copy_to: str = "", mounted: bool = False,
        size: int = 25000, tool: str = "etcdctl", directory: str = "/var/backups/etcd",
    ) -> tuple[int, str]:  # fmt: skip
        bundle = self.work / "bundle"
        for part in ("core/common.sh", "core/environment.sh", "transaction/mount-points.awk"):
            target = bundle / "lib" / part
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text((TEMPLATES / "common/lib" / part).read_text())
        (bundle / "lib/etcd.sh").write_text((TEMPLATES / "etcd/lib/etcd.sh").read_text())
        (bundle / "node.env").write_text(
            SETTINGS.format(keep=keep, copy_to=copy_to, tool=tool, directory=directory)
        )
        mounts = self.work / "live/proc/self/mountinfo"
        mounts.parent.mkdir(parents=True, exist_ok=True)
        place = f"{self.root}{copy_to}".replace(" ", "\\040")
        line = f"40 31 0:50 / {place} rw - nfs4 nas:/x rw\n" if mounted else ""
        mounts.write_text(f"31 1 8:1 / / rw - ext4 /dev/sda1 rw\n{line}")
        script = bundle / "backup.sh"
        text = (TEMPLATES / "etcd/backup.sh").read_text()
        script.write_text(text.replace('main "$@"', f'live={self.work}/live\nmain "$@"'))
        for name in ("etcdctl", "etcdutl"):
            write_program(
                self.root / "opt/k8s/bin" / name, ETCDCTL.format(work=self.work, size=size)
            )
        done = self.sh(script, *arguments, DESTDIR=str(self.root))
        return done.returncode, done.stdout + done.stderr

    def snapshots(self, place: str = "var/backups/etcd") -> list[str]:
        return sorted(path.name for path in (self.root / place).glob("*.db"))

    def age(self, count: int, node: str = "lab_m1") -> list[str]:
        """Create snapshots of earlier days, as backup.sh names them."""
        self.directory.mkdir(parents=True, exist_ok=True)
        names = [f"202601{day + 1:02}T000000Z_{node}_3.4.23_r{day}.db" for day in range(count)]
        for name in names:
            (self.directory / name).write_text(name)
            (self.directory / f"{name}.sha256").write_text("x\n")
        return names


@pytest.fixture
def host(sh: Sh, tmp_path: Path) -> BackupHost:
    return BackupHost(sh, tmp_path)


def test_the_newest_snapshots_are_kept_and_those_of_other_hosts_not_touched(
    host: BackupHost,
) -> None:
    old = host.age(4)
    others = [*host.age(2, node="lab_m2"), *host.age(1, node="other_m1")]
    code, said = host.run(keep=3)
    assert code == 0, said
    kept = host.snapshots()
    new = [name for name in kept if "_r4711" in name]
    assert kept == sorted([*old[2:], *others, *new])
    assert re.fullmatch(r"\d{8}T\d{6}Z_lab_m1_3\.4\.23_r4711\.db", new[0])
    content = (host.directory / new[0]).read_bytes()
    assert (host.directory / f"{new[0]}.sha256").read_text() == (
        f"{hashlib.sha256(content).hexdigest()}  {new[0]}\n"
    )
    assert (host.directory / new[0]).stat().st_mode & 0o777 == 0o600
    assert host.directory.stat().st_mode & 0o777 == 0o700
    assert not (host.directory / f"{old[0]}.sha256").exists()
    listed = host.run("--list")[1].splitlines()
    assert [line.split()[2] for line in listed[1:]] == ["4711", "3", "2"]


def test_a_copy_is_made_only_on_a_mounted_file_system(host: BackupHost) -> None:
    (host.root / "mnt/nas").mkdir(parents=True)
    code, said = host.run(copy_to="/mnt/nas", mounted=False)
    assert code == 1
    assert "nothing is mounted on" in said
    assert host.snapshots("mnt/nas") == []
    assert len(host.snapshots()) == 1  # the local snapshot is kept
    assert "FAIL     nothing is mounted on" in host.run("--dry-run", copy_to="/mnt/nas")[1]

    code, said = host.run(copy_to="/mnt/nas", mounted=True)
    assert code == 0, said
    (copied,) = host.snapshots("mnt/nas")
    assert (host.root / "mnt/nas" / copied).read_bytes() == (host.directory / copied).read_bytes()
    assert (host.root / "mnt/nas" / f"{copied}.sha256").is_file()
    assert not list((host.root / "mnt/nas").glob("*.part"))


@pytest.mark.parametrize(
    ("mark", "reason"), [("refuses", "no leader"), ("damaged", "is damaged: Error: integrity")]
)
def test_a_failed_snapshot_is_not_kept_and_no_older_one_is_removed(
    host: BackupHost, mark: str, reason: str
) -> None:
    old = host.age(5)
    (host.work / mark).touch()
    code, said = host.run(keep=3)
    assert code == 1
    assert reason in said
    assert host.snapshots() == old
    assert not (host.directory / ".part").exists()


def test_a_full_disk_is_reported_before_anything_is_written(host: BackupHost) -> None:
    old = host.age(2)
    code, said = host.run(size=10**15)
    assert code == 1
    assert "MiB free, the next snapshot needs" in said
    assert host.snapshots() == old
    assert "snapshot save" not in (host.work / "calls").read_text()


def test_files_of_a_killed_run_are_removed_and_a_running_one_is_respected(host: BackupHost) -> None:
    part = host.directory / ".part"
    part.mkdir(parents=True)
    (part / "owner").write_text("1 99999999999\n")  # another process has this id now
    (part / "snapshot.db").write_text("half")
    (host.directory / "20260101T000000Z_lab_m1_3.4.23_r1.db.sha256").write_text("x")
    code, said = host.run()
    assert code == 0, said
    assert not part.exists()
    assert len(host.snapshots()) == 1
    assert len(list(host.directory.iterdir())) == 2

    part.mkdir()
    start = Path("/proc/1/stat").read_text().rpartition(") ")[2].split()[19]
    (part / "owner").write_text(f"1 {start}\n")
    code, said = host.run()
    assert (code, "another backup.sh is running (process 1)" in said) == (3, True)


def test_the_snapshot_tool_of_the_installed_etcd_is_used(host: BackupHost) -> None:
    assert host.run(tool="etcdutl")[0] == 0
    calls = (host.work / "calls").read_text().splitlines()
    assert any(
        call.startswith("etcdctl --endpoints=") and " snapshot save " in call for call in calls
    )
    assert any(call.startswith("etcdutl snapshot status") for call in calls)


def test_help_wrong_usage_and_a_host_without_etcd(host: BackupHost) -> None:
    assert "Usage: backup.sh" in host.run("--help")[1]
    assert host.run("--lost")[0] == 2
    code, said = host.run(directory="")
    assert (code, "m1 has no etcd" in said) == (3, True)
