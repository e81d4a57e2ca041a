"""A host with a dpkg whose database is a file, and worker1's bundle with packages for it."""

from pathlib import Path

from support.fake_host import FakeHost, make_host
from support.shells import Sh
from support.trees import Trees, rewrite_manifest

LIST = """\
libmnl0_1.0_amd64.deb libmnl0 1.0 amd64 46 needed libc6:ge:2.30
nginx-common_1%3a2_all.deb nginx-common 1:2 all 46 needed -
nginx_1%3a2_amd64.deb nginx 1:2 amd64 900 wanted:nginx nginx-common:eq:1:2,libc6:ge:2.30,debconf:ge:0.5|debconf-2.0
conntrack_1.4_amd64.deb conntrack 1.4 amd64 90 wanted:conntrack libmnl0:ge:1.0
chrony_4.3_amd64.deb chrony 4.3 amd64 700 wanted libc6:ge:2.30,awk
"""
MINIMAL = """\
libc6|2.36|installed|amd64|libc (= 2.36)
mawk|1|installed|amd64|awk
cdebconf|0.2|installed|amd64|debconf-2.0
old|1|config-files|amd64|
"""

# The database is a file; an installation makes the package's lines, its command and its unit.
DPKG = r"""
cd {state}
[ -z "$DEBIAN_FRONTEND" ] || echo "frontend $DEBIAN_FRONTEND" >>calls
act=yes
while :; do
    case $1 in
        --print-architecture) echo amd64; exit ;;
        --compare-versions)
            low=$(printf '%s\n%s\n' "$2" "$4" | sort -V | head -1)
            case $3 in
                ge) [ "$low" = "$4" ] ;;
                eq) [ "$2" = "$4" ] ;;
            esac
            exit ;;
        --force-*) shift ;;
        --no-act | --no-triggers) act=no; shift ;;
        *) break ;;
    esac
done
[ ! -e dpkg-refuses ] || {{ echo "dpkg: error: conflicts with rival"; exit 1; }}
[ "$act" = yes ] || exit 0
[ ! -e dpkg-locked ] || {{ rm dpkg-locked; echo "dpkg: error: dpkg frontend lock was locked by another process with pid 7"; exit 2; }}
how=$1
shift
case $how in
    --install)
        for file; do
            name=${{file%%_*}} version=${{file#*_}} version=${{version%%_*}}
            grep -v "^$name|" dpkg >dpkg.new
            if [ -e "kill-$name" ]; then
                rm "kill-$name"
                echo "$name|$version|half-installed|amd64|" >>dpkg.new
                mv dpkg.new dpkg
                kill -9 $(cut -d" " -f1 {lock})
                exit 137
            fi
            cp dpkg.new dpkg.done
            echo "$name|$version|half-installed|amd64|" >>dpkg.new
            mv dpkg.new dpkg
            echo "$name|$(echo "$version" | sed 's/%3a/:/')|installed|amd64|" >>dpkg.done
            case $name in nginx | conntrack) printf '#!/bin/sh\n' >bin/$name; chmod 755 bin/$name ;; esac
            case $name in nginx) : >known/nginx.service; : >enabled/nginx.service ;; esac
            mv dpkg.done dpkg
        done
        ;;
    --configure) ;;
    --remove | --purge)
        for name; do
            if [ "$name" = libmnl0 ] && [ -e somebody-needs-libmnl0 ]; then
                echo "dpkg: dependency problems prevent removal of libmnl0:"; status=1; continue
            fi
            grep -v "^$name|" dpkg >dpkg.new
            mv dpkg.new dpkg
        done
        exit ${{status:-0}}
        ;;
esac
"""
DPKG_QUERY = r"""
case $* in
    *Provides*) cat {state}/dpkg ;;
    *) awk -F'|' '{{ print $1, $3 }}' {state}/dpkg ;;
esac
"""


def make_debian_host(sh: Sh, trees: Trees, directory: Path) -> FakeHost:
    """A minimal Debian 12, and worker1's bundle with packages."""
    bundle = trees / "worker1"
    facts = (bundle / "node.env").read_text()
    facts = facts.replace("PACKAGES_OS=''", "PACKAGES_OS='debian-12'")
    facts = facts.replace("QUIET_UNITS=''", "QUIET_UNITS='nginx.service'")
    facts = facts.replace("PACKAGES_MANAGER=''", "PACKAGES_MANAGER='dpkg'")
    assert "PACKAGES_OS='debian-12'" in facts
    (bundle / "node.env").write_text(facts)
    (bundle / "packages").mkdir()
    (bundle / "packages" / "LIST").write_text(LIST)
    for line in LIST.splitlines():
        (bundle / "packages" / line.split()[0]).write_text(line)
    rewrite_manifest(bundle)
    directory.mkdir()
    made = make_host(sh, bundle, directory)
    made.write("/etc/os-release", 'VERSION_ID="12"\nID=debian\n')
    made.mark("dpkg", MINIMAL)
    lock = made.root / "var/lib/bundler/lock"
    made.program("dpkg", DPKG.format(state=made.directory, lock=lock))
    made.program("dpkg-query", DPKG_QUERY.format(state=made.directory))
    return made
