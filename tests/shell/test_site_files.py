"""Files of cluster.yaml on a host: owners, modes, the units that they restart, removal."""

import shutil
from pathlib import Path

import pytest
from support.fake_host import FakeHost, make_host
from support.generation_site import patch_install_script
from support.shells import Sh
from support.trees import Trees, list_tree, rewrite_manifest

TABLE = "lib/site-files.tsv"
CONF, KEY, TOKEN = "/etc/chrony/site.conf", "/etc/site/agent.key", "very-secret-text"
ROWS = f"""\
# PATH OWNER RESTART RELOAD
{CONF}\t7:adm\tchronyd.service kubelet.service\tagent.service
{KEY}\troot:root\t-\tagent.service
"""


def add_files(bundle: Path, text: str = "one\n", rows: str = ROWS) -> Path:
    (bundle / TABLE).write_text(rows)
    for path, content, mode in ((CONF, text, 0o640), (KEY, f"{TOKEN}-{text}", 0o600)):
        target = bundle / "rootfs" / path.lstrip("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(content)
        target.chmod(mode)
    rewrite_manifest(bundle)
    return bundle


@pytest.fixture
def host(sh: Sh, trees: Trees, tmp_path: Path) -> FakeHost:
    """A worker's host, whose chown and stat have owners of their own, and whose units are files."""
    bundle = trees / "worker1"
    host = make_host(sh, bundle, tmp_path / "host")
    patch_install_script(bundle, host)
    add_files(bundle)
    place, stat = host.directory, shutil.which("stat")
    host.program(
        "chown",
        f'[ ! -e {place}/no-owner ] || exit 1\n[ "$1" = 0:0 ] || echo "$2 $1" >>{place}/owners',
    )
    host.program(
        "stat",
        f"touch {place}/owners\n"
        f"""{stat} "$@" | awk 'FILENAME == ARGV[1] {{ sub(/.bundler-new./, "", $1); own[$1] = $2; next }}
            {{ print $1, $2, "0:0", ($1 in own) ? own[$1] : "root:root" }}' {place}/owners -""",
    )
    text = (place / "bin/systemctl").read_text()
    text = (
        text.replace(
            "case $command in",
            "case $command in\n"
            '    restart | reload-or-restart) [ ! -e "failing/$1" ] || { echo "Job for $1 failed" >&2; exit 1; } ;;\n'
            '    is-failed) [ -e "failing/$1" ]; exit ;;\n'
            '    show) case "$2 $3" in LoadState*) [ ! -e "unknown/$3" ] || echo LoadState=not-found; exit ;; esac ;;&',
            1,
        )
        .replace(";;&", ";;")
        .replace('    show) echo "FragmentPath', '    showed) echo "FragmentPath')
    )
    (place / "bin/systemctl").write_text(text)
    for folder in ("failing", "unknown"):
        (place / folder).mkdir()
    for unit in ("chronyd.service", "agent.service"):
        host.mark(f"active/{unit}")
    return host


def restarts(host: FakeHost) -> list[str]:
    """What was done with units of the host since the last look."""
    words = ("systemctl restart ", "systemctl reload-or-restart ")
    found = [call.removeprefix("systemctl ") for call in host.calls if call.startswith(words)]
    host.mark("calls")
    return found


def install(host: FakeHost, *arguments: str) -> tuple[int, str]:
    done = host.sh(
        host.bundle / "install.sh", *arguments,
        DESTDIR=str(host.root), PATH=f"{host.directory}/bin:/usr/bin:/bin:/usr/sbin:/sbin",
    )  # fmt: skip
    return done.returncode, done.stdout + done.stderr


@pytest.mark.slow
def test_staged_files_have_their_modes_and_go_again(sh: Sh, trees: Trees, tmp_path: Path) -> None:
    bundle, root = add_files(trees / "worker1"), tmp_path / "root"
    (root / "etc/chrony").mkdir(parents=True)
    (root / CONF.lstrip("/")).write_text("of the host\n")
    before = list_tree(root)
    done = sh(bundle / "install.sh", DESTDIR=str(root))
    assert done.returncode == 0, done.stderr
    conf, key = root / CONF.lstrip("/"), root / KEY.lstrip("/")
    assert (conf.read_text(), conf.stat().st_mode & 0o777) == ("one\n", 0o640)
    assert (key.read_text(), key.stat().st_mode & 0o777) == (f"{TOKEN}-one\n", 0o600)
    assert sh(bundle / "install.sh", DESTDIR=str(root)).stdout == "worker1: nothing to do\n"
    done = sh(root / "opt/k8s/bundle/uninstall.sh", "--yes", DESTDIR=str(root))
    assert done.returncode == 0, done.stderr
    assert list_tree(root) == before


@pytest.mark.slow
def test_a_file_restarts_the_units_that_it_names_once(host: FakeHost) -> None:
    code, said = install(host)
    assert code == 0, said
    assert restarts(host) == ["reload-or-restart agent.service", "restart chronyd.service"]
    owners = (host.directory / "owners").read_text().splitlines()
    assert [line for line in owners if "/owner " not in line] == [
        "./etc/chrony/.bundler-new/site.conf 7:adm"
    ]
    assert install(host) == (0, "worker1: nothing to do\n")
    assert restarts(host) == []
    add_files(host.bundle, "two\n")
    code, said = install(host, "--plan")
    assert code == 0, said
    assert TOKEN not in said
    for line in ("-one", "+two", "(holds a secret: not shown)", f"because of {CONF}"):
        assert line in said
    assert "restart  chronyd.service\n" in said
    assert "restart  kubelet.service\n" in said
    assert "reload   agent.service\n" in said
    assert restarts(host) == []
    code, said = install(host)
    assert (code, TOKEN in said) == (0, False)
    assert restarts(host) == ["reload-or-restart agent.service", "restart chronyd.service"]
    journal = (host.root / "var/lib/bundler/journal").read_text()
    assert "restarted kubelet.service" in journal


@pytest.mark.slow
def test_a_reload_leaves_a_unit_alone_that_does_not_run(host: FakeHost) -> None:
    (host.directory / "active/agent.service").unlink()
    (host.directory / "active/chronyd.service").unlink()
    host.program("timedatectl", "echo NTPSynchronized=yes")
    assert install(host)[0] == 0
    assert restarts(host) == ["restart chronyd.service"]


@pytest.mark.slow
def test_a_file_that_is_gone_restarts_them_too(host: FakeHost) -> None:
    before = host.root / CONF.lstrip("/")
    before.parent.mkdir(parents=True)
    before.write_text("of the host\n")
    assert install(host)[0] == 0
    restarts(host)
    for path in (CONF, KEY):
        (host.bundle / "rootfs" / path.lstrip("/")).unlink()
    (host.bundle / TABLE).unlink()
    rewrite_manifest(host.bundle)
    code, said = install(host)
    assert code == 0, said
    assert restarts(host) == ["reload-or-restart agent.service", "restart chronyd.service"]
    assert before.read_text() == "of the host\n"
    assert not (host.root / KEY.lstrip("/")).exists()
    assert install(host)[1] == "worker1: nothing to do\n"


@pytest.mark.slow
def test_a_unit_that_goes_with_its_files_is_not_restarted(host: FakeHost) -> None:
    unit = "/etc/systemd/system/agent.service"
    (host.bundle / TABLE).write_text(f"{ROWS}{unit}\troot:root\tagent.service\t-\n")
    (host.bundle / "rootfs" / unit.lstrip("/")).write_text("[Service]\nExecStart=/bin/agent\n")
    rewrite_manifest(host.bundle)
    assert install(host)[0] == 0
    assert "restart agent.service" in restarts(host)
    host.mark("failing/agent.service")  # systemd finds no unit of that name any more
    for path in (CONF, KEY, unit):
        (host.bundle / "rootfs" / path.lstrip("/")).unlink()
    (host.bundle / TABLE).unlink()
    rewrite_manifest(host.bundle)
    code, said = install(host, "--plan")
    assert (code, "agent.service\n" in said.replace(f"{unit}\n", "")) == (0, False), said
    code, said = install(host)
    assert code == 0, said
    assert restarts(host) == ["restart chronyd.service"]
    assert not (host.root / unit.lstrip("/")).exists()


@pytest.mark.slow
def test_a_unit_that_fails_makes_the_generation_unhealthy_and_is_tried_again(
    host: FakeHost,
) -> None:
    host.mark("failing/chronyd.service")
    code, said = install(host)
    assert code == 4, said
    assert "systemctl restart chronyd.service failed: Job for chronyd.service failed" in said
    assert "Not ready: kubelet.service chronyd.service" in said
    restarts(host)
    (host.directory / "failing/chronyd.service").unlink()
    code, said = install(host)
    assert code == 0, said
    assert "restart chronyd.service" in restarts(host)
    assert install(host)[1] == "worker1: nothing to do\n"


@pytest.mark.slow
def test_the_host_goes_back_if_a_unit_fails_with_a_later_file(host: FakeHost) -> None:
    assert install(host)[0] == 0
    add_files(host.bundle, "bad\n")
    text = (host.directory / "bin/systemctl").read_text()
    conf = host.root / CONF.lstrip("/")
    text = text.replace('[ ! -e "failing/$1" ]', f"! grep -qs bad {conf}").replace('[ -e "failing/$1" ]', f"grep -qs bad {conf}")  # fmt: skip
    (host.directory / "bin/systemctl").write_text(text)
    code, said = install(host)
    assert code == 5, said
    assert conf.read_text() == "one\n"
    assert restarts(host)[-1] == "restart chronyd.service"


@pytest.mark.slow
def test_a_run_that_is_killed_before_the_restart_does_it_later(host: FakeHost) -> None:
    text = (host.directory / "bin/systemctl").read_text()
    killer = text.replace("restart | reload-or-restart)", "restart | reload-or-restart) kill -9 $PPID; sleep 5 ;;\n    never)", 1)  # fmt: skip
    (host.directory / "bin/systemctl").write_text(killer)
    assert install(host)[0] != 0
    (host.directory / "bin/systemctl").write_text(text)
    restarts(host)
    code, said = install(host)
    assert code == 0, said
    assert restarts(host) == ["reload-or-restart agent.service", "restart chronyd.service"]


@pytest.mark.slow
def test_another_owner_counts_as_a_change(host: FakeHost) -> None:
    assert install(host)[0] == 0
    restarts(host)
    (host.directory / "owners").write_text("")
    code, said = install(host, "--dry-run")
    assert (code, f"changed  0640 {CONF}" in said) == (0, True), said
    assert install(host)[0] == 0
    assert "7:adm" in (host.directory / "owners").read_text()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ("no-owner", f"this host has no user or group 7:adm, which is to own {CONF}"),
        ("unknown/chronyd.service", f"this host has no unit chronyd.service, which is to restart for {CONF}"),
        ("directory", f"{CONF} is a directory on this host"),
    ],
)  # fmt: skip
def test_what_a_file_needs_is_checked_before_anything_changes(
    host: FakeHost, fault: str, said: str
) -> None:
    if fault == "directory":
        (host.root / CONF.lstrip("/")).mkdir(parents=True)
    else:
        host.mark(fault)
    code, output = install(host)
    assert (code, f"  site-files: {said}" in output) == (3, True), output
    assert not (host.root / "opt/k8s/bundle").exists()


@pytest.mark.slow
def test_syslog_over_tls_needs_the_driver_of_rsyslog(host: FakeHost) -> None:
    path = "/etc/rsyslog.d/60-kubernetes-audit.conf"
    (host.bundle / "rootfs" / path.lstrip("/")).parent.mkdir(parents=True)
    (host.bundle / "rootfs" / path.lstrip("/")).write_text('action(StreamDriver="gtls")\n')
    (host.bundle / TABLE).write_text(f"{ROWS}{path}\troot:root\trsyslog.service\t-\n")
    rewrite_manifest(host.bundle)
    code, output = install(host)
    assert (code, "the rsyslog of this host has no gtls driver" in output) == (3, True), output
    driver = host.root / "usr/lib/x86_64-linux-gnu/rsyslog/lmnsd_gtls.so"
    driver.parent.mkdir(parents=True)
    driver.touch()
    code, output = install(host)
    assert code == 0, output
    assert "restart rsyslog.service" in restarts(host)


@pytest.mark.slow
def test_uninstalling_restarts_units_whose_files_are_gone(host: FakeHost) -> None:
    assert install(host)[0] == 0
    restarts(host)
    done = host.uninstall("--dry-run")
    assert "restart  chronyd.service\n" in done.stdout
    done = host.uninstall()
    assert done.returncode == 0, done.stdout + done.stderr
    assert restarts(host) == ["restart chronyd.service", "reload-or-restart agent.service"]
    assert not (host.root / CONF.lstrip("/")).exists()


@pytest.mark.slow
def test_a_unit_that_the_bundle_brings_is_enabled_started_and_stopped(host: FakeHost) -> None:
    path = "/etc/systemd/system/agent.service"
    add_files(host.bundle, rows=ROWS + f"{path}\troot:root\tagent.service\t-\n")
    (host.bundle / "rootfs" / path.lstrip("/")).write_text("[Service]\nExecStart=/bin/true\n")
    rewrite_manifest(host.bundle)
    host.mark("unknown/agent.service")
    (host.directory / "active/agent.service").unlink()
    code, said = install(host)
    assert code == 0, said
    assert "restart agent.service" in restarts(host)
    assert host.has("enabled/agent.service")
    done = host.uninstall()
    assert done.returncode == 0, done.stdout + done.stderr
    assert "systemctl -q disable --now agent.service" in host.calls
    assert not host.has("enabled/agent.service")


@pytest.mark.slow
def test_a_directory_that_another_user_can_change_is_refused(
    sh: Sh, trees: Trees, tmp_path: Path
) -> None:
    """Such a user could put a link in the place of the file, which root would write through."""
    bundle, root = add_files(trees / "worker1"), tmp_path / "root"
    (root / "etc/site").mkdir(parents=True)
    (root / "etc/site").chmod(0o777)
    script = tmp_path / "check.sh"
    script.write_text(f"""
find_shared() {{ case $1 in */etc/site) echo "$1" ;; esac; }}
. {bundle}/lib/core/common.sh; . {bundle}/lib/preflight/checks.sh
here={bundle} prefix={root} store={root}/var/lib/bundler work={tmp_path} skipped=' '
check_targets
cat {tmp_path}/failures
""")
    done = sh(script)
    assert f"targets: others than root can change {root}/etc/site, and so the files in /etc/site" in done.stdout, done  # fmt: skip
    assert "/etc/chrony" not in done.stdout
