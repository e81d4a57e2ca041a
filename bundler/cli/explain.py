"""`bundler explain`: prints what a key of cluster.yaml does, or which flags a component gets."""

import dataclasses
import textwrap
from typing import TYPE_CHECKING, Annotated

import typer

from bundler import log
from bundler.cli.complete import complete_key, complete_minor
from bundler.cli.json_output import Value, print_json
from bundler.errors import ConfigError

if TYPE_CHECKING:
    from bundler.cluster.keys import Key

WIDTH = 100


def explain_command(
    name: Annotated[
        str,
        typer.Argument(
            metavar="KEY|COMPONENT",
            help="A key of cluster.yaml, such as nodes.roles; with --version a component, such as"
            " kubelet.",
            autocompletion=complete_key,
        ),
    ],
    version: Annotated[
        str | None,
        typer.Option(
            "--version",
            help="Explain a component at this version: Kubernetes' version or minor (of etcd,"
            " flanneld, kube-router and cri-dockerd: their own).",
            autocompletion=complete_minor,
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="For machines.")] = False,
) -> None:
    """Explain a key of cluster.yaml, or the flags that bundler gives a component.

    Without --version the name is a key: `bundler explain runtime.registries.mirrors` prints its
    type, default, allowed values and description, and the keys of an object.

    With --version the name is a component: `bundler explain kube-apiserver --version 1.29` prints
    each flag, its value, the reason for it, and the minors that have it. A value in {{ }} is
    computed from cluster.yaml. `extra` cannot change flags marked *. Flags that say `only with` are
    set if cluster.yaml has chosen that. `etcd` is both a key and a component.
    """
    if version is None:
        _explain_key(name, as_json=as_json)
    else:
        _explain_flags(name, version, as_json=as_json)


def _explain_key(name: str, *, as_json: bool) -> None:
    # loaded here: `bundler --help` must not wait for pydantic
    from bundler.cluster.keys import find_keys, list_children  # noqa: PLC0415
    from bundler.cluster.settings import list_components  # noqa: PLC0415

    is_component = name in list_components()
    try:
        keys = find_keys(name)
    except ConfigError as error:
        if not is_component:
            raise
        raise ConfigError(
            f"{name}: a component; its flags depend on the version",
            hint=f"give the version: bundler explain {name} --version MINOR",
        ) from error
    if as_json:
        print_json("keys", keys=[{**_as_data(k), "keys": _children_as_data(k)} for k in keys])
        return
    for position, key in enumerate(keys):
        if position:
            log.result()
        _print_key(key)
        for child in list_children(key):
            log.result()
            _print_key(child, indent="  ")
    if is_component:
        log.result(f"\nThe flags of the component {name}: bundler explain {name} --version MINOR")


def _print_key(key: "Key", indent: str = "") -> None:
    name = key.name if indent else key.path
    variant = f" ({key.variant})" if key.variant else ""
    default = "" if key.has_described_default else f"; default: {key.default or 'none'}"
    if key.default is None:
        default = "; required"
    differs = "; may differ per host" if key.per_host else ""
    log.result(f"{indent}{name}{variant}: {key.kind}{default}{differs}")
    inner = f"{indent}  "
    wrapper = textwrap.TextWrapper(
        WIDTH, initial_indent=inner, subsequent_indent=inner, break_on_hyphens=False
    )
    log.result(wrapper.fill(key.description))


def _children_as_data(key: "Key") -> list[dict[str, Value]]:
    from bundler.cluster.keys import list_children  # noqa: PLC0415

    return [_as_data(child) for child in list_children(key)]


def _as_data(key: "Key") -> dict[str, Value]:
    return {
        "key": key.path,
        "variant": key.variant or None,
        "type": key.kind.replace("`", ""),
        "required": key.default is None,
        "default": key.default or None,
        "allowed": list(key.allowed),
        "per_host": key.per_host,
        "description": key.description,
    }


def _explain_flags(component: str, version: str, *, as_json: bool) -> None:
    from bundler.cluster.settings import explain  # noqa: PLC0415

    rows = explain(component, version)
    if as_json:
        print_json("flags", flags=[dataclasses.asdict(row) for row in rows])
        return
    for row in rows:
        spans = [f"from {row.since}"] if row.since else []
        spans += [f"before {row.until}"] if row.until else []
        when = [", ".join(spans) or "in every minor"]
        when += [_explain_feature(row.feature)] if row.feature else []
        span = f" [{'; '.join(when)}]"
        fixed = " *" if row.fixed else ""
        log.result(f"--{row.flag}={row.value}{fixed}\n      {row.why}{span}")


def _explain_feature(feature: str) -> str:
    """`only with a and b`, or `only without a`."""
    if feature.startswith("!"):
        return f"only without {feature[1:]}"
    return f"only with {feature.replace('+', ' and ')}"
