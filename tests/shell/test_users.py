"""Users of units on a host: created, kept with their data, removed; hosts where they cannot be."""

import os
import re
import shutil
from pathlib import Path

import pytest
from support.fake_host import FakeHost, make_host
from support.shells import Sh
from support.trees import Trees

pytestmark = pytest.mark.slow  # every test runs a whole install.sh

PASSWD = "root:x:0:0:root:/root:/bin/sh\nsshd:x:101:65534::/run/sshd:/usr/sbin/nologin\n"
GROUP = "root:x:0:\nadm:x:4:\n"
SHADOW = "root:*:19000:0:99999:7:::\n"
USERS = {
    "etcd": 640, "kube-apiserver": 641, "kube-controller-manager": 642, "kube-scheduler": 643,
    "kube-nginx": 644, "kube-apply": 645, "kube-csr-approver": 646, "kube-node-labeler": 647,
    "kube-node-remover": 648,
}  # fmt: skip


@pytest.fixture
def host(sh: Sh, trees: Trees, tmp_path: Path) -> FakeHost:
    """A control plane's host; its last lines have no end, as some editors leave them."""
    host = make_host(sh, trees / "master1", tmp_path / "host")
    for name, text in (("passwd", PASSWD), ("group", GROUP.rstrip("\n")), ("shadow", SHADOW)):
        account_file(host, name).write_text(text)
    account_file(host, "shadow").chmod(0o640)
    return host


def account_file(host: FakeHost, name: str) -> Path:
    return host.root / "etc" / name


def read_accounts(host: FakeHost, name: str) -> dict[str, list[str]]:
    lines = account_file(host, name).read_text().splitlines()
    accounts = {line.split(":")[0]: line.split(":")[1:] for line in lines}
    assert len(accounts) == len(lines)
    return accounts


def install(host: FakeHost, *arguments: str) -> str:
    done = host.install(*arguments)
    assert done.returncode == 0, done.stderr
    return done.stdout


def refuse(host: FakeHost) -> str:
    before = account_file(host, "passwd").read_text()
    done = host.install()
    assert done.returncode == 3
    assert account_file(host, "passwd").read_text() == before
    return done.stderr


def test_users_are_created_with_their_numbers_and_no_password(host: FakeHost) -> None:
    announced = install(host, "--dry-run")
    assert account_file(host, "passwd").read_text() == PASSWD
    install(host)
    users, groups = read_accounts(host, "passwd"), read_accounts(host, "group")
    for name, number in USERS.items():
        assert f"user     {name} ({number}) is created\n" in announced
        assert users[name][1:3] == [str(number)] * 2
        assert users[name][4:] == ["/", users[name][5]]
        assert "nologin" in users[name][5]
        assert groups[name] == ["x", str(number), ""]
        assert read_accounts(host, "shadow")[name] == ["!", *[""] * 7]
    assert {"root", "sshd"} == set(users) - set(USERS)
    assert account_file(host, "shadow").stat().st_mode & 0o777 == 0o640


def test_a_second_run_creates_nothing(host: FakeHost) -> None:
    install(host)
    before = account_file(host, "passwd").read_text()
    assert "nothing to do" in install(host)
    assert account_file(host, "passwd").read_text() == before


def test_a_user_that_somebody_removed_is_created_again(host: FakeHost) -> None:
    install(host)
    passwd = account_file(host, "passwd")
    whole = passwd.read_text()
    passwd.write_text(re.sub("^kube-scheduler:.*\n", "", whole, flags=re.MULTILINE))
    assert "user     kube-scheduler" in install(host, "--dry-run")
    install(host)
    assert sorted(passwd.read_text().splitlines()) == sorted(whole.splitlines())


def test_uninstall_removes_the_users_that_install_created(host: FakeHost) -> None:
    account_file(host, "group").write_text(f"{GROUP}etcd:x:640:\n")
    install(host)
    said = host.uninstall("--dry-run").stdout
    assert "remove   user kube-apiserver" in said
    assert "group etcd" not in said
    done = host.uninstall()
    assert done.returncode == 0, done.stderr
    assert account_file(host, "passwd").read_text() == PASSWD
    assert account_file(host, "shadow").read_text() == SHADOW
    assert account_file(host, "group").read_text() == f"{GROUP}etcd:x:640:\n"
    assert account_file(host, "shadow").stat().st_mode & 0o777 == 0o640


def test_a_user_stays_with_its_data_until_they_are_removed(host: FakeHost) -> None:
    install(host)
    (host.root / "var/lib/etcd/member").mkdir(parents=True)
    assert "keep     user etcd" in host.uninstall("--dry-run").stdout
    done = host.uninstall()
    assert done.returncode == 0, done.stderr
    assert "users that own data that is kept: etcd" in done.stdout
    assert set(read_accounts(host, "passwd")) == {"root", "sshd", "etcd"}
    install(host, "--skip-preflight", "old-data", "--skip-preflight", "turn")
    done = host.uninstall("--purge-data")
    assert done.returncode == 0, done.stderr
    assert account_file(host, "passwd").read_text() == PASSWD


@pytest.mark.parametrize(
    ("name", "line", "what", "fix"),
    [
        ("passwd", "etcd:x:998:997::/:/bin/false", "the user etcd of this host has 998:997, and 640 is planned", "userdel etcd"),
        ("passwd", "backup:x:641:34::/:/bin/false", "backup has the number 641 on this host, which is planned for the user kube-apiserver", "security: {user_ids: {kube-apiserver: …}}"),
        ("group", "etcd:x:998:", "the group etcd of this host has 998, and 640 is planned", "groupdel etcd"),
        ("group", "site:x:645:", "site has the number 645 on this host, which is planned for the group kube-apply", "security: {user_ids: {kube-apply: …}}"),
    ],
)  # fmt: skip
def test_a_number_or_a_name_that_is_taken_is_refused(
    host: FakeHost, name: str, line: str, what: str, fix: str
) -> None:
    with account_file(host, name).open("a") as accounts:
        accounts.write(f"\n{line}\n" if name == "group" else f"{line}\n")
    said = refuse(host)
    assert what in said
    assert fix in said


def test_a_directory_that_only_root_can_enter_is_refused(host: FakeHost) -> None:
    (host.root / "opt").mkdir(mode=0o700)
    said = refuse(host)
    assert "users: only root or a group can enter /opt, and the units' users must" in said
    assert "fix: chmod o+x /opt" in said


def test_a_staged_tree_gets_no_users(sh: Sh, trees: Trees, tmp_path: Path) -> None:
    root = tmp_path / "staged"
    done = sh(trees / "master1/install.sh", DESTDIR=str(root))
    assert done.returncode == 0, done.stderr
    assert not (root / "etc/passwd").exists()


def test_copies_of_running_units_are_made_again_when_files_change(host: FakeHost) -> None:
    """A program that reads its certificate again finds the new one without a restart."""
    install(host)
    copies, path = host.root / "run/bundler/kube-apiserver", "etc/kubernetes/pki/apiserver.crt"
    copies.mkdir(parents=True)
    (host.root / path).write_text("changed by hand")
    install(host)
    assert (copies / path).read_text() == (host.bundle / "rootfs" / path).read_text()
    assert not (host.root / "run/bundler/etcd").exists()


ACCOUNTS = """
set -u
cp -a /etc/. "$1/"; mount --bind "$1" /etc
here=$2 work=$3
. "$here/lib/core/common.sh" && . "$here/lib/transaction/users.sh" || exit 9
prefix='' store=$work/store SERVICE_USERS='etcd:640 kube-controller-manager:642'
mkdir "$store"
is_staged() { false; }
create_users
getent passwd etcd kube-controller-manager | cut -d : -f 1,3,4,6
list_user_faults
printf 'etcd %s\\n' "$work" >"$work/owned"
remove_users && echo "stays: $remaining_users" && getent passwd kube-controller-manager
: >"$work/owned"
remove_users && getent passwd etcd
for file in passwd group shadow gshadow; do cmp "/etc/$file" "$work/$file"; done
"""


@pytest.mark.skipif(
    os.geteuid() != 0 or not all(map(shutil.which, ("unshare", "useradd", "userdel"))),
    reason="accounts cannot be created: this needs root, unshare and useradd",
)
def test_the_hosts_own_programs_create_and_remove_users(
    sh: Sh, trees: Trees, tmp_path: Path
) -> None:
    """In a mount namespace with a copy of /etc."""
    for name in ("passwd", "group", "shadow", "gshadow"):
        shutil.copyfile(f"/etc/{name}", tmp_path / name)
    (tmp_path / "etc").mkdir()
    (tmp_path / "accounts.sh").write_text(ACCOUNTS)
    runner = tmp_path / "runner.sh"
    inner = f"sh {tmp_path}/accounts.sh {tmp_path}/etc {trees / 'master1'} {tmp_path}"
    runner.write_text(f"exec unshare --mount --propagation private {inner}\n")
    done = sh(runner)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == [
        "etcd:640:640:/", "kube-controller-manager:642:642:/", "stays: etcd",
    ]  # fmt: skip
