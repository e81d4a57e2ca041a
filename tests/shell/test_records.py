"""A record of install.sh is on the disk before the change that it is about.

A power cut loses what was not written, and may keep what was done later. The programs that write to
the disk, and those that change it, write their arguments to a log.
"""

from pathlib import Path

from support.generation_site import make_site
from support.shells import Sh, write_program
from support.trees import Trees

LOGGED = ("sync", "mv", "mkdir")
STORE = "/var/lib/bundler/"


def test_a_record_is_on_the_disk_before_it_counts(sh: Sh, trees: Trees, tmp_path: Path) -> None:
    site = make_site(sh, trees, tmp_path)
    log = tmp_path / "log"
    for name in LOGGED:
        write_program(
            tmp_path / "logged" / name,
            f'echo "{name} $*" >>{log}\nexec "$(PATH=${{PATH#*:}}; command -v {name})" "$@"\n',
        )
    path = f"{tmp_path}/logged:{site.host.directory}/bin:/usr/bin:/bin:/usr/sbin:/sbin"
    for number in (1, 2):
        assert site.install(number, PATH=path).returncode == 0

    calls = [line.split() for line in log.read_text().splitlines()]
    replaced = [
        (at, call[-2])
        for at, call in enumerate(calls)
        if call[0] == "mv" and STORE in call[-1] and call[-2] == f"{call[-1]}.new"
    ]
    assert {Path(name).stem for _, name in replaced} >= {
        "files",
        "dirs",
        "existed",
        "current",
        "switch",
        "state",
    }
    assert [name for at, name in replaced if ["sync", name] not in calls[max(at - 1, 0) : at]] == []

    directories = next(at for at, call in enumerate(calls) if call[:3] == ["mkdir", "-m", "0755"])
    recorded = [at for at, name in replaced if name.endswith(f"{STORE}dirs.new")]
    assert recorded[0] < directories
