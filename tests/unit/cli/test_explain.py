"""`bundler explain`: keys of cluster.yaml, and flags of components."""

import pytest
from support.json_shapes import read_shape
from typer.testing import CliRunner

from bundler.cli.app import app
from bundler.errors import ConfigError


def explain(*arguments: str) -> str:
    result = CliRunner().invoke(app, ["explain", *arguments], catch_exceptions=False)
    assert result.exit_code == 0
    return result.stdout


def test_a_key_is_printed_with_type_default_values_and_description() -> None:
    text = explain("nodes.arch")
    assert "nodes.arch: `amd64` or `arm64`; default: amd64\n" in text
    assert "The CPU architecture of the host." in text


def test_an_object_is_printed_with_its_keys() -> None:
    text = explain("nodes")
    assert text.startswith("nodes: list of objects; required\n")
    assert "\n  roles: list of `etcd` or" in text
    assert max(map(len, text.splitlines())) <= 100


def test_a_default_that_depends_on_the_minor_is_in_the_description_only() -> None:
    assert explain("network.proxy_mode").splitlines()[0] == (
        "network.proxy_mode: `ipvs` or `iptables` or `nftables` or `none`"
    )


def test_keys_are_printed_as_json() -> None:
    (key,) = read_shape(explain("etcd.backup", "--json"), "keys")["keys"]
    assert key["key"] == "etcd.backup"
    assert key["type"] == "object"
    keep = next(child for child in key["keys"] if child["key"] == "etcd.backup.keep")
    assert (keep["default"], keep["required"]) == ("8", False)
    (arch,) = read_shape(explain("nodes.arch", "--json"), "keys")["keys"]
    assert arch["allowed"] == ["amd64", "arm64"]


def test_a_component_is_told_from_a_key_by_the_version() -> None:
    assert "--data-dir=" in explain("etcd", "--version", "3.4")
    text = explain("etcd")
    assert text.startswith("etcd: object")
    assert "bundler explain etcd --version MINOR" in text


@pytest.mark.parametrize(
    ("arguments", "message", "hint"),
    [
        (["kubelet"], "kubelet: a component", "bundler explain kubelet --version MINOR"),
        (["nodes", "--version", "1.29"], "nodes: not a component", "leave --version out"),
        (["nodes.rolls"], "nodes.rolls: neither a key", "did you mean 'nodes.roles'?"),
        (["kublet"], "kublet: neither a key", "did you mean 'kubelet'?"),
    ],
)
def test_a_wrong_name_is_an_error_with_the_fix(
    arguments: list[str], message: str, hint: str
) -> None:
    error = CliRunner().invoke(app, ["explain", *arguments]).exception
    assert isinstance(error, ConfigError)
    assert message in error.message
    assert hint in (error.hint or "")
