"""A newer Kubernetes than the lab's, where BUNDLER_KUBERNETES names a directory with its programs."""

import os
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest

NEWER = os.environ.get("BUNDLER_KUBERNETES", "")
NEW = pytest.param("newer", marks=pytest.mark.long)
"""A parameter of tests that run with it too."""


def find_newer_programs() -> tuple[Path, dict[str, Any]]:
    """The directory with kube-apiserver, kube-controller-manager, kubectl, etcd and etcdctl; the keys with its versions."""
    if not NEWER:
        pytest.skip("a newer API server cannot run: BUNDLER_KUBERNETES does not name its directory")
    programs = Path(NEWER)
    versions = {}
    for key, program in (("kubernetes", "kube-apiserver"), ("etcd", "etcd")):
        done = subprocess.run(
            [programs / program, "--version"], capture_output=True, text=True, check=True
        )
        found = re.search(r"\d+\.\d+\.\d+", done.stdout)
        assert found, done.stdout
        versions[key] = {"version": found[0]}
    return programs, versions
