"""A host with etcd for restore.sh, whose etcd is files: data, and a member list that the other members share."""

import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

from support.fake_host import FakeHost, make_host
from support.shells import Sh, write_program
from support.trees import Trees, list_tree

# What only running members can answer. The others have a quorum if the file says so; this member has one when its etcd
# runs with data, and is a member.
INSTEAD = """
id() { case $1 in -u) echo 0 ;; *) echo root ;; esac; }
has_quorum() {
    if [ "$1" = "$(own_endpoint)" ]; then [ -e "$fake/active/etcd.service" ]; else [ -e "$fake/others" ]; fi
}
view() {
    [ "$1" != "$(own_endpoint)" ] || [ -e "$fake/active/etcd.service" ] || return 0
    sed 's/, / /; s/$/ https:\\/\\/client/' "$fake/members"
}
"""
# DATA/member/snap/db says what the data is.
ETCDCTL = """\
cd {state}
case $* in
    *'snapshot status'*) echo 'abc, 5, 3, 20 kB' ;;
    *'snapshot restore'*)
        for word; do
            case $word in
                --data-dir=*) data=${{word#*=}} ;;
                --wal-dir=*) wal=${{word#*=}} ;;
                *.db | */db) from=$word ;;
            esac
        done
        [ ! -e "$data" ] || {{ echo "data-dir $data exists" >&2; exit 1; }}
        mkdir -p "$data/member/snap" "$wal"
        cp "$from" "$data/member/snap/db"
        echo restored >"$wal/0.wal" ;;
    *'member list'*) sed 's/^\\([^,]*\\), \\(.*\\)/\\1, started, x, \\2, -, false/' members ;;
    *'member remove'*) sed "/^${{*##* }},/d" members >members.new; mv members.new members ;;
esac
"""
# etcd-start.sh starts no etcd before the step `placed`; without data it joins as a new member.
SYSTEMCTL = """\
cd {state}
[ "$1" != -q ] || shift
case $1 in
    is-active) [ -e "active/$2" ] ;;
    stop) shift; for unit; do rm -f "active/$unit"; done ;;
    --no-block)
        if [ "$3" = etcd.service ] && [ ! -e active/etcd.service ]; then
            case $(cat {store}/restore) in *' placed') ;; *) echo 'etcd started too early' >>faults; exit 1 ;; esac
            if [ ! -e {data}/member/snap/db ]; then
                mkdir -p {data}/member/snap {wal}
                echo joined >{data}/member/snap/db
                echo joined >{wal}/0.wal
                echo "new, {peer}" >>members
            fi
        fi
        : >"active/$3" ;;
esac
"""
WAL = "/var/lib/etcd-wal"
OTHER = "other, https://192.0.2.250:2380\n"
CLIENTS = ("kube-apiserver", "kube-controller-manager", "kube-scheduler")


@dataclass(frozen=True)
class RestoreSite:
    """The host, and the snapshot that is restored."""

    host: FakeHost
    snapshot: Path

    @property
    def data(self) -> Path:
        return self.host.root / "var/lib/etcd"

    def run(self, *arguments: str, **environment: str) -> "subprocess.CompletedProcess[str]":
        path = f"{self.host.directory}/bin:/usr/bin:/bin:/usr/sbin:/sbin"
        environment = {"DESTDIR": str(self.host.root), "PATH": path} | environment
        return self.host.sh(self.host.bundle / "restore.sh", "--yes", *arguments, **environment)

    def read(self) -> dict[str, str]:
        """Data, records, members and units; TIME for the time of the first run.

        A run that is refused leaves the lock of a dead process, which counts for nothing.
        """
        directory = self.host.directory
        found = {
            f"{kind}/{path}": facts
            for kind in ("root/var", "active")
            for path, facts in list_tree(directory / kind).items()
            if not path.endswith(("bundler/journal", "bundler/lock"))
        }
        found["members"] = (directory / "members").read_text()
        found["faults"] = (directory / "faults").read_text()
        return {re.sub(r"\d{8}T\d{6}Z", "TIME", path): facts for path, facts in found.items()}


def make_restore_site(sh: Sh, trees: Trees, directory: Path) -> RestoreSite:
    """master1 after a loss of the quorum: its etcd does not run, and has old data."""
    directory.mkdir()
    host = make_host(sh, trees / "master1", directory)
    facts = (host.bundle / "node.env").read_text()
    address = re.findall("^ADDRESS='(.*)'$", facts, re.MULTILINE)[0]
    (host.bundle / "node.env").write_text(f"{facts}ETCD_WAL={WAL}\n")
    script = host.bundle / "restore.sh"
    instead = f"live={host.live}\nfake={directory}\n{INSTEAD}"
    text = script.read_text().replace('\nmain "$@"\n', f'\n{instead}\nmain "$@"\n')
    script.write_text(text)
    site = RestoreSite(host, directory / "snapshot.db")
    places = {"state": directory, "store": host.root / "var/lib/bundler", "data": site.data}
    places |= {"wal": f"{host.root}{WAL}", "peer": f"https://{address}:2380"}
    write_program(directory / "bin/etcdctl", ETCDCTL.format(**places))
    write_program(directory / "bin/systemctl", SYSTEMCTL.format(**places))
    write_program(host.root / "opt/k8s/libexec/etcd-start.sh", "")
    for path, text in {
        directory / "snapshot.db": "snapshot",
        directory / "faults": "",
        directory / "members": f"old, {places['peer']}\n{OTHER}",
        site.data / "member/snap/db": "old",
        Path(f"{host.root}{WAL}/0.wal"): "old",
        **{directory / "active" / f"{unit}.service": "" for unit in CLIENTS},
    }.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return site
