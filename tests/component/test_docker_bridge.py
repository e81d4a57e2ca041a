"""Real dockerd with the daemon.json of a bundle: no docker0 where pods have their network from CNI."""

import json
import subprocess
from pathlib import Path

import pytest
from support.docker_program import make_shell_image, run_dockerd, short_directory

from bundler.cache.store import Cache
from bundler.pipeline import render
from bundler.project import Inputs

CLUSTER = """\
apiVersion: bundler/v1alpha1
name: bridge
kubernetes: {version: 1.20.2}
runtime: {engine: docker}
network: {service_cidr: 172.17.0.0/16}
dns: {provider: none}
nodes: [{name: one, address: 192.0.2.1, roles: [etcd, control-plane, worker]}]
"""
OWN = {"data-root", "exec-opts", "default-ulimits"}
"""Settings that the test's dockerd has otherwise."""


def rendered_config(directory: Path) -> dict[str, object]:
    description = directory / "cluster.yaml"
    description.write_text(CLUSTER)
    inputs = Inputs(description=description, cache=Cache(directory / "cache"))
    render(inputs, directory / "trees", text_only=True)
    config = json.loads((directory / "trees/one/rootfs/etc/docker/daemon.json").read_text())
    return {key: value for key, value in config.items() if key not in OWN}


@pytest.mark.parametrize("has_bridge", [False, pytest.param(True, marks=pytest.mark.long)])
def test_docker_of_a_bundle_has_no_docker0_and_runs_containers(
    tmp_path: Path, *, has_bridge: bool
) -> None:
    """With docker0 its route hides what is in 172.17.0.0/16: a Service, a DNS server, a host."""
    config = rendered_config(tmp_path)
    if has_bridge:  # what bundles had before
        config.pop("bridge")
    with short_directory() as directory, run_dockerd(directory, config) as docker:
        within = ["nsenter", "-t", str(docker.pid), "-n", "ip", "-4", "-o", "route"]
        routes = subprocess.run(within, capture_output=True, text=True, check=True).stdout
        assert ("172.17.0.0/16 dev docker0" in routes) is has_bridge
        make_shell_image(docker.command, directory)
        for network in ([], ["--network=none"], ["--network=host"]):
            run = [*docker.command, "run", "--rm", *network, "shell", "/bin/sh", "-c", "echo runs"]
            done = subprocess.run(run, capture_output=True, text=True, check=False)
            assert done.stdout == "runs\n", (network, done.stderr)
