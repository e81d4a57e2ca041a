"""What root's shell has set does not reach the programs that host scripts call."""

import os
import re
from pathlib import Path

import pytest
from support.shells import TEMPLATES, Sh
from support.trees import Trees

PART = "core/environment"
CLIENTS = re.compile(r"(?<![\w./'-])(kubectl|etcdctl|docker|ctr)(?=[ \n])")
"""Programs whose questions a variable sends elsewhere: a proxy, another server, another context."""
DROPPED = {
    **dict.fromkeys(
        f"{name}_proxy" for name in ("http", "https", "all", "no", "ftp", "rsync", "Mixed")
    ),
    **dict.fromkeys(f"{name}_PROXY" for name in ("HTTP", "HTTPS", "ALL", "NO", "FTP")),
    **dict.fromkeys(
        (
            "CDPATH", "GREP_OPTIONS", "GREP_COLOR", "GREP_COLORS", "TAR_OPTIONS", "GZIP", "XZ_OPT",
            "POSIXLY_CORRECT", "ENV", "BASH_ENV", "LD_PRELOAD_X", "LD_LIBRARY_PATH", "LS_COLORS",
            "TIME_STYLE", "BLOCK_SIZE", "DF_BLOCK_SIZE", "AWKPATH", "KUBECONFIG", "KUBE_EDITOR",
            "ETCDCTL_ENDPOINTS", "ETCDCTL_CACERT", "ETCDCTL_API", "DOCKER_HOST", "DOCKER_CONTEXT",
            "CONTAINERD_ADDRESS", "CONTAINERD_NAMESPACE", "OPENSSL_CONF", "SSL_CERT_FILE",
            "SYSTEMD_PAGER", "SYSTEMCTL_FORCE_BUS", "DPKG_ROOT", "RPM_CONFIGDIR", "LANG", "LC_CTYPE",
        )
    ),
}  # fmt: skip
KEPT = (
    "DESTDIR", "HOME", "TMPDIR", "TERM", "NOTIFY_SOCKET", "JOURNAL_STREAM", "RUNTIME_DIRECTORY",
    "HTTPS_TIMEOUT", "ETCD_QUOTA_BACKEND_BYTES", "GODEBUG",
)  # fmt: skip


def list_host_scripts() -> list[Path]:
    """The scripts that run by themselves and ask other programs; their parts start with a comment."""
    scripts = [*TEMPLATES.glob("*/*.sh"), *TEMPLATES.glob("*/rootfs/**/libexec/*.sh*")]
    return sorted(path for path in scripts if is_caller(path.read_text()))


def is_caller(text: str) -> bool:
    if not text.startswith("#!"):
        return False
    lines = (
        line for line in text.splitlines() if not line.lstrip().startswith(("#", "echo", "say"))
    )
    return any(CLIENTS.search(line) for line in lines) or "for part in" in text


@pytest.mark.parametrize(
    "script", [pytest.param(path, id=path.name) for path in list_host_scripts()]
)
def test_a_script_that_asks_other_programs_clears_the_environment_first(script: Path) -> None:
    text = script.read_text()
    reads = re.search(
        r"lib/core/environment\.sh|^for part in (core/)?environment ", text, re.MULTILINE
    )
    assert reads, f"{script.name} does not read lib/{PART}.sh"
    assert not CLIENTS.search(re.sub(r"(?m)^#.*", "", text[: reads.start()])), "too late"


def test_only_listed_variables_reach_programs(sh: Sh, tmp_path: Path) -> None:
    script = tmp_path / "script.sh"
    script.write_text(
        f"name=own prefix=own; LC_ALL=C; export LC_ALL\n. {TEMPLATES}/common/lib/{PART}.sh\n"
        'env; echo "own $name $prefix"\n'
    )
    several = {"SEVERAL": "one\nHOME=/nowhere\nname=stolen"}
    set_before = {**dict.fromkeys((*DROPPED, *KEPT), "/set"), **several, "UID": "0"}
    done = sh(script, **set_before)
    assert (done.returncode, done.stderr) == (0, "")
    found = {line.partition("=")[0] for line in done.stdout.splitlines()}
    assert not found & DROPPED.keys()
    assert "SEVERAL" not in found
    assert found >= set(KEPT) | {"PATH", "LC_ALL"}
    assert done.stdout.endswith("own own own\n")
    assert f"PATH={os.environ['PATH']}" in done.stdout


@pytest.mark.parametrize("script", ["install.sh", "uninstall.sh", "diagnose.sh", "restore.sh"])
def test_cdpath_does_not_move_a_script(sh: Sh, trees: Trees, script: str) -> None:
    """kubernetes 412: with CDPATH, cd prints the directory that it found there."""
    started = trees / "start.sh"
    started.write_text(f"cd {trees}; script=$1; shift; set -- --help; . ./start-$script\n")
    text = (trees / "master1" / script).read_text()
    # $0 of a script that is started as master1/SCRIPT
    text = text.replace('$(dirname "$0")', "master1").replace("${script%/*}", "master1")
    (trees / f"start-{script}").write_text(text)
    done = sh(started, script, CDPATH=str(trees))
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(("Install", "Remove", "Collect", "Restore"))
