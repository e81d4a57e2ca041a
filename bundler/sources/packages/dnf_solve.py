"""Resolve packages with dnf 4; runs in dnf's own Python (3.6 or newer), not in bundler's.

Reads one JSON document on stdin and writes one on stdout: {"found": [...]} or {"error": TEXT}.
Source: https://dnf.readthedocs.io/en/latest/api.html
"""

import json
import os
import resource
import sys
from pathlib import Path
from typing import Any

import dnf  # type: ignore[import-not-found]
import dnf.exceptions  # type: ignore[import-not-found]
import hawkey  # type: ignore[import-not-found]

DIRECTORIES = (
    ("installroot", "root"),
    ("cachedir", "cache"),
    ("persistdir", "state"),
    ("logdir", "log"),
)


def main() -> None:
    request = json.load(sys.stdin)
    for limit, most in ((resource.RLIMIT_FSIZE, "file"), (resource.RLIMIT_AS, "memory")):
        resource.setrlimit(limit, (request["most"][most],) * 2)
    with os.fdopen(os.dup(1), "w") as answer:
        os.dup2(2, 1)  # dnf's own output goes to stderr
        try:
            json.dump({"found": solve(request)}, answer)
        except dnf.exceptions.Error as error:
            json.dump({"error": str(error)}, answer)
        except MemoryError:
            json.dump({"error": "the metadata needs too much memory"}, answer)


def solve(request: Any) -> Any:
    """The packages with these names, and their dependencies outside the base."""
    base = open_base(request)
    known = [name for name in request["minimal"] if base.sack.query().filter(name=name)]
    minimal = {package.name for package in install(base, request["base"] + known)}
    return [
        {
            "name": package.name,
            "version": package.evr,
            "arch": package.arch,
            "url": package.remote_location(),
            "size": package.downloadsize,
            "digest": f"{hawkey.chksum_name(package.chksum[0])}:{package.chksum[1].hex()}",
            "index": package.reponame,
        }
        for package in sorted(install(base, request["base"] + known + request["names"]))
        if package.name not in minimal or package.name in request["names"]
    ]


def open_base(request: Any) -> Any:
    """dnf with the repositories for one architecture, and nothing installed."""
    base = dnf.Base()
    conf = base.conf
    for option, name in DIRECTORIES:
        directory = Path(request["root"], name)
        directory.mkdir(parents=True, exist_ok=True)
        setattr(conf, option, str(directory))
    conf.ignorearch = True
    conf.arch = request["arch"]
    conf.substitutions["releasever"] = request["release"]
    conf.install_weak_deps = False
    conf.best = conf.strict = True
    conf.pluginpath = conf.varsdir = []
    conf.reposdir = request["reposdir"]
    conf.cacheonly = request["offline"]
    base.read_all_repos()
    for number, address in enumerate(request["addresses"]):
        base.repos.add_new_repo(f"mirror-{number + 1}", conf, baseurl=[address])
    for repo in base.repos.iter_enabled():
        repo.skip_if_unavailable = False
        repo.metadata_expire = -1 if request["offline"] else 0
    base.fill_sack(load_system_repo=False)
    base.sack.add_excludes(base.sack.query().filter(arch__neq=[request["arch"], "noarch"]))
    return base


def install(base: Any, names: Any) -> Any:
    """The packages that dnf would install on an empty host."""
    base.reset(goal=True)
    for name in names:
        base.install(name)
    base.resolve()
    return list(base.transaction.install_set) if base.transaction else []


main()
