"""`bundler init`: asks on a terminal, or takes options, and writes a first cluster.yaml."""

import sys
from collections.abc import Callable, Mapping
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import Annotated, TypeVar

import typer

from bundler import log
from bundler.cli.complete import complete_example, complete_kubernetes, complete_release
from bundler.cli.json_output import Value, print_json
from bundler.cli.options import CLUSTER_YAML
from bundler.cluster.json_schema import format_schema
from bundler.cluster.os_packages import RELEASES
from bundler.cluster.values import Arch
from bundler.errors import BundlerError, ConfigError
from bundler.starter import (
    LOAD_BALANCERS,
    SCHEMA_NAME,
    Choices,
    Engine,
    Host,
    LoadBalancer,
    check_absent,
    check_answer,
    list_examples,
    make_description,
    parse_host,
    read_companions,
    read_example,
    write_new,
)

STDOUT = Path("-")
OTHER = "other"
"""The answer for hosts that have their packages already."""
DEFAULT_NAME = "cluster1"
Answer = TypeVar("Answer")
Choice = TypeVar("Choice", bound=StrEnum)


def init_command(
    output: Annotated[
        Path,
        typer.Option("-o", "--output", help="The file to write; - for stdout.", show_default=True),
    ] = CLUSTER_YAML,
    name: Annotated[str | None, typer.Option("--name", help="The name of the cluster.")] = None,
    control_plane: Annotated[
        list[str] | None,
        typer.Option(
            "--control-plane",
            metavar="[NAME=]ADDRESS",
            help="A control plane, which is an etcd member too. May be repeated: take 1, 3 or 5.",
        ),
    ] = None,
    worker: Annotated[
        list[str] | None,
        typer.Option(
            "--worker",
            metavar="[NAME=]ADDRESS",
            help="A worker. May be repeated. Without one the control planes run the pods too.",
        ),
    ] = None,
    os: Annotated[
        str | None,
        typer.Option(
            "--os",
            metavar="RELEASE",
            help="The system of the hosts, such as debian-12: the bundles carry its packages, and"
            " versions are chosen that it can run. Default: the hosts have their packages.",
            autocompletion=complete_release,
        ),
    ] = None,
    runtime: Annotated[
        Engine | None, typer.Option("--runtime", help="The container runtime: containerd if none.")
    ] = None,
    kubernetes: Annotated[
        str | None,
        typer.Option(
            "--kubernetes",
            metavar="VERSION",
            help="The version. Default: the newest.",
            autocompletion=complete_kubernetes,
        ),
    ] = None,
    endpoint: Annotated[
        str | None,
        typer.Option("--endpoint", metavar="HOST:PORT", help="Where clients reach the API."),
    ] = None,
    load_balancer: Annotated[
        LoadBalancer | None,
        typer.Option(
            "--load-balancer",
            help="What distributes connections over several control planes. Default:"
            " nginx-keepalived with --endpoint, otherwise node-local.",
        ),
    ] = None,
    arch: Annotated[Arch, typer.Option("--arch", help="The processor of all hosts.")] = Arch.AMD64,
    example: Annotated[
        str | None,
        typer.Option(
            "--example",
            metavar="NAME",
            help="Copy this example instead.",
            autocompletion=complete_example,
        ),
    ] = None,
    list_them: Annotated[
        bool, typer.Option("--list-examples", help="List the examples and write nothing.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="With --list-examples: JSON.")] = False,
) -> None:
    """Write a first cluster.yaml, with comments; on a terminal it asks what to write.

    With options, or without a terminal, it asks nothing: --control-plane is required then, and
    other options have defaults. What it writes passes `bundler check`. An existing file is never
    overwritten.

    Next to it, it writes bundler.schema.json (see bundler schema). The first line of cluster.yaml
    names it for editors.

    Prints the paths of the files.
    """
    if list_them:
        _print_examples(as_json=as_json)
        return
    if as_json:
        raise ConfigError("--json is for --list-examples", hint="give both")
    described = (name, control_plane, worker, os, runtime, kubernetes, endpoint, load_balancer)
    if example and any(described):
        raise ConfigError(
            "--example copies a file as it is: it cannot be used together with other choices",
            hint="copy the example, and edit it",
        )
    is_file = output != STDOUT
    companions = read_companions(example) if example and is_file else {}
    for path in [output, *(output.parent / file for file in companions)] if is_file else []:
        check_absent(path)
    if example:
        text = read_example(example)
    else:
        ask = not any(described) and sys.stdin.isatty()
        choices = (
            _ask_choices()
            if ask
            else Choices(
                name=check_answer("name", name or DEFAULT_NAME),
                control_planes=_parse_control_planes(control_plane, is_alone=not any(described)),
                workers=_parse_hosts(worker, "w"),
                os=_check_release(os),
                engine=runtime or Engine.CONTAINERD,
                kubernetes=check_answer("version", kubernetes) if kubernetes else None,
                endpoint=check_answer("endpoint", endpoint) if endpoint else None,
                load_balancer=load_balancer,
                arch=arch,
            )
        )
        text = make_description(choices, str(output if is_file else CLUSTER_YAML))
    if is_file:
        _write_files(output, text, companions)
    else:
        log.result(text, end="")


def _print_examples(*, as_json: bool) -> None:
    examples = list_examples()
    if as_json:
        rows: list[Value] = [{"name": n, "description": text} for n, text in examples.items()]
        print_json("examples", examples=rows)
        return
    for name, text in examples.items():
        log.result(f"{name:12} {text}")


def _write_files(output: Path, text: str, companions: Mapping[str, str]) -> None:
    """Write cluster.yaml last: what it refers to is there when it appears."""
    for file, content in companions.items():
        write_new(output.parent / file, content)
        log.result(str(output.parent / file))
    write_new(output, text)
    log.result(str(output))
    _write_schema(output.parent / SCHEMA_NAME)
    config = "" if output == CLUSTER_YAML else f" -c {output}"
    log.info(f"Next: edit it if you like, then: bundler check{config} && bundler build{config}")


def _write_schema(path: Path) -> None:
    """Write the schema that the modeline names, unless a file has this name."""
    schema = format_schema()
    if not path.is_file():
        write_new(path, schema)
        log.result(str(path))
    elif path.read_bytes() != schema.encode():
        log.warning(
            f"{path} is not this version's schema, and stays as it is. To write it again:"
            f" bundler schema > {path}"
        )


def _parse_control_planes(texts: list[str] | None, *, is_alone: bool) -> tuple[Host, ...]:
    """Parse the control planes; ConfigError if there is none. `is_alone`: no option is given."""
    if not texts:
        raise ConfigError(
            "there is no terminal to ask on, and no --control-plane"
            if is_alone
            else "no --control-plane is given",
            hint="give --control-plane ADDRESS for each, or --example NAME (bundler init"
            " --list-examples)",
        )
    return _parse_hosts(texts, "cp")


def _parse_hosts(texts: list[str] | None, prefix: str) -> tuple[Host, ...]:
    return tuple(
        parse_host(text, f"{prefix}{number}") for number, text in enumerate(texts or (), 1)
    )


def _check_release(text: str | None) -> str | None:
    """Return a key of RELEASES, or None for hosts with another system."""
    if text in (None, OTHER):
        return None
    if text not in RELEASES:
        raise ConfigError(
            f"{text}: bundler cannot carry packages of this system",
            hint=f"take one of {', '.join(RELEASES)}; or {OTHER}, and install what install.sh"
            " names yourself",
        )
    return text


def _ask_choices() -> Choices:
    """Ask for every choice on the terminal; a wrong answer is explained, and asked for again."""
    log.info("Enter takes the answer in brackets. Ctrl-C ends, and nothing is written.")
    name = _ask("Name of the cluster", lambda text: check_answer("name", text), DEFAULT_NAME)
    count = _ask("How many control planes? 1, 3 or 5", lambda text: _parse_count(text, 1), "1")
    control_planes = _ask_hosts("control plane", "cp", count, ())
    count = _ask(
        "How many workers? 0: the control planes run the pods", lambda t: _parse_count(t, 0), "0"
    )
    workers = _ask_hosts("worker", "w", count, control_planes)
    kind = endpoint = None
    if len(control_planes) > 1:
        for known, why in LOAD_BALANCERS.items():
            log.info(f"  {known:18} {why}")
        kind = _ask("Load balancer of the API", _make_choice(LoadBalancer), LoadBalancer.LOCAL)
        if kind is not LoadBalancer.LOCAL:
            endpoint = _ask(
                "Its endpoint, ADDRESS:PORT", lambda text: check_answer("endpoint", text)
            )
    log.info(f"  {', '.join(RELEASES)}")
    release = _ask(
        f"System of the hosts? The bundles carry its packages; {OTHER}: the hosts have them",
        _check_release,
        OTHER,
    )
    engine = _ask(
        f"Container runtime? {' or '.join(Engine)}", _make_choice(Engine), Engine.CONTAINERD
    )
    return Choices(
        name=name,
        control_planes=control_planes,
        workers=workers,
        os=release,
        engine=engine,
        endpoint=endpoint,
        load_balancer=kind,
    )


def _ask_hosts(what: str, prefix: str, count: int, others: tuple[Host, ...]) -> tuple[Host, ...]:
    hosts: tuple[Host, ...] = ()
    for number in range(1, count + 1):
        default = f"{prefix}{number}"
        parse = partial(_parse_new_host, default, (*others, *hosts))
        hosts = (*hosts, _ask(f"Address of {what} {default}, or NAME=ADDRESS", parse))
    return hosts


def _parse_new_host(default_name: str, others: tuple[Host, ...], text: str) -> Host:
    host = parse_host(text, default_name)
    for other in others:
        if host.address == other.address or host.name == other.name:
            raise ConfigError(f"{text}: {other.name} is {other.address} already")
    return host


def _ask(question: str, parse: Callable[[str], Answer], default: str | None = None) -> Answer:
    """Ask until the answer can be parsed; Ctrl-C and the end of the input interrupt."""
    while True:
        try:
            text = typer.prompt(question, default=default and str(default), err=True)
        except typer.Abort as error:
            raise KeyboardInterrupt from error
        try:
            return parse(text.strip())
        except BundlerError as error:
            log.error(error.message, error.hint)


def _parse_count(text: str, least: int) -> int:
    if not (text.isascii() and text.isdecimal() and least <= int(text) <= 1000):
        raise ConfigError(f"{text}: must be a number from {least} to 1000")
    return int(text)


def _make_choice(kind: type[Choice]) -> Callable[[str], Choice]:
    """Make a parser that takes one of the values of an enumeration."""

    def choose(text: str) -> Choice:
        if text not in set(kind):
            raise ConfigError(f"{text}: must be one of {', '.join(kind)}")
        return kind(text)

    return choose
