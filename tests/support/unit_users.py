"""Run a program as a unit does: with its user, and with copies of its files in the place of root's.

What systemd does with User= and BindReadOnlyPaths= is done here with setpriv and mount, in a mount namespace.
"""

import os
import subprocess
from pathlib import Path

from bundler.cluster.service_users import BOUND, COPIES, list_default_users

IDS = {unit: user.id for user in list_default_users() for unit in user.units}
"""Unit → UID and GID of its user."""

# The directories above the host's are root's own: in the namespace there are others in their place.
NAMESPACE = """
set -e
top=$1 copies=$2 root=$3 id=$4; shift 4
mount -t tmpfs tmpfs /mnt
number=0
for place in $PLACES; do
    number=$((number + 1)); mkdir /mnt/$number; mount --bind "$place" /mnt/$number
done
mount -t tmpfs -o mode=0755 tmpfs "$top"
number=0
for place in $PLACES; do
    number=$((number + 1)); mkdir -p "$place"; mount --move /mnt/$number "$place"
done
for place in $BOUND; do
    [ ! -d "$copies$place" ] || mount --bind -o ro "$copies$place" "$root$place"
done
exec setpriv --reuid "$id" --regid "$id" --clear-groups --no-new-privs --inh-caps=-all --bounding-set=-all -- "$@"
"""


def make_places(root: Path) -> None:
    """Make the directories in whose place units see their copies."""
    for path in BOUND:
        (root / path[1:]).mkdir(parents=True, exist_ok=True)


def give_files(root: Path, *units: str) -> None:
    """Run ExecStartPre of the units."""
    script = root / "opt/k8s/libexec/unit-files.sh"
    subprocess.run(["sh", script, *units], check=True, env={**os.environ, "DESTDIR": str(root)})


def make_own_directory(directory: Path, unit: str) -> Path:
    """Make a directory as RuntimeDirectory= and StateDirectory= do."""
    directory.mkdir(parents=True, exist_ok=True)
    for path in (directory, *directory.rglob("*")):
        os.lchown(path, IDS[unit], IDS[unit])
    directory.chmod(0o700)
    return directory


def enter(root: Path, programs: Path, unit: str, command: list[str]) -> list[str]:
    """The command of a process that runs as the unit does; it sees the bundle and the programs."""
    places = {root.parent, programs, *(path.resolve().parent for path in programs.iterdir())}
    outer = [path for path in places if not any(other in path.parents for other in places)]
    top = Path("/", outer[0].parts[1])
    assert all(path.is_relative_to(top) for path in outer)
    return [
        "unshare", "--mount", "--propagation", "private", "env",
        f"PLACES={' '.join(map(str, outer))}", f"BOUND={' '.join(BOUND)}",
        "sh", "-c", NAMESPACE, "-", str(top), f"{root}{COPIES}/{unit}", str(root), str(IDS[unit]),
        *command,
    ]  # fmt: skip
