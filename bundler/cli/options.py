"""Options that several commands share, and the inputs that they make."""

import functools
import inspect
import os
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from bundler import log
from bundler.cache.store import Cache
from bundler.errors import ConfigError
from bundler.formats.safe_parse import split_url
from bundler.paths import default_cache
from bundler.project import Inputs
from bundler.sources.download import PARALLEL_DOWNLOADS
from bundler.sources.images.credentials import login_file, read_logins
from bundler.sources.images.registry import RegistryOptions
from bundler.sources.mirrors import parse_mirror
from bundler.sources.transport import CONNECTIONS, make_tls_context

MOST_JOBS = CONNECTIONS

Description = Annotated[
    Path, typer.Option("-c", "--config", help="The cluster description.", show_default=True)
]
StatePath = Annotated[Path | None, typer.Option("--state", help="As for build.")]
Json = Annotated[bool, typer.Option("--json", help="For machines.")]
Output = Annotated[
    Path | None, typer.Option("-o", "--output", help="With --since: where bundles go.")
]
SigningKey = Annotated[Path | None, typer.Option("--sign", help="As for build.", metavar="KEY")]
Warn = Annotated[
    str | None, typer.Option("--warn", help="Exit code 1 if one has fewer days left, such as 60d.")
]
CachePath = Annotated[
    Path | None,
    typer.Option(
        "--cache",
        help="Where upstream files are kept. Default: $BUNDLER_CACHE or ~/.cache/bundler.",
    ),
]
Mirrors = Annotated[
    list[str] | None,
    typer.Option(
        "--mirror",
        metavar="[HOST=]DIR|URL",
        help="Directory or URL that holds each file as MIRROR/HOST/PATH; with HOST= it "
        "serves that upstream host only, as MIRROR/PATH. Asked in the order given, HOST='s own "
        "first, and then upstream. May be repeated.",
    ),
]
RegistryMirrors = Annotated[
    list[str] | None,
    typer.Option(
        "--registry-mirror",
        metavar="REGISTRY=URL",
        help="Ask URL for images of REGISTRY (docker.io, registry.k8s.io, …) first. http:// means "
        "without TLS. May be repeated.",
    ),
]
InsecureRegistries = Annotated[
    list[str] | None,
    typer.Option(
        "--insecure-registry",
        metavar="HOST[:PORT]",
        help="Speak to this registry without TLS; digests are checked all the same. May be "
        "repeated.",
    ),
]
CaFile = Annotated[
    Path | None,
    typer.Option(
        "--ca-file",
        metavar="PEM",
        help="Certificates of private authorities that servers and proxies are believed by, beside "
        "the public ones.",
    ),
]
Jobs = Annotated[
    int, typer.Option("--jobs", "-j", min=1, max=MOST_JOBS, help="Downloads at a time.")
]
Offline = Annotated[bool, typer.Option("--offline", help="Never open a network connection.")]
Pins = Annotated[
    Path | None,
    typer.Option("--pins", help="A YAML file whose `artifacts` are put over cluster.yaml's."),
]
State = Annotated[
    Path | None,
    typer.Option(
        "--state",
        help="Keys, certificates and tokens: **secret, keep and back up**. "
        "Default: NAME.state beside cluster.yaml.",
    ),
]
Strict = Annotated[
    bool,
    typer.Option(
        "--strict", help="Refuse a digest that was only seen on first use, and to do without lock."
    ),
]
Quiet = Annotated[bool, typer.Option("-q", "--quiet", help="Only warnings and errors.")]
CLUSTER_YAML = Path("cluster.yaml")


def make_inputs(
    config: Description = CLUSTER_YAML,
    mirror: Mirrors = None,
    registry_mirror: RegistryMirrors = None,
    insecure_registry: InsecureRegistries = None,
    ca_file: CaFile = None,
    jobs: Jobs = PARALLEL_DOWNLOADS,
    offline: Offline = False,
    pins: Pins = None,
    cache: CachePath = None,
    state: State = None,
    strict: Strict = False,
    quiet: Quiet = False,
) -> Inputs:
    """What a command was told, with defaults; ConfigError where it cannot be meant."""
    log.set_quiet(quiet)
    for text in mirror or ():
        parse_mirror(text)
    make_tls_context(ca_file)
    return Inputs(
        description=config,
        cache=Cache(cache or default_cache()),
        mirrors=tuple(mirror or ()),
        ca_file=ca_file,
        jobs=jobs,
        offline=offline,
        pins=pins,
        state=state,
        strict=strict,
        registries=_make_registries(registry_mirror or [], insecure_registry or []),
    )


def repeat_options(inputs: Inputs) -> list[str]:
    """The options that give these inputs once more; those that are as by default are left out."""
    given = [
        *(("--mirror", mirror) for mirror in inputs.mirrors),
        *(
            ("--registry-mirror", f"{registry}={url}")
            for registry, urls in inputs.registries.mirrors.items()
            for url in urls
        ),
        *(("--insecure-registry", host) for host in sorted(inputs.registries.insecure)),
        ("--ca-file", inputs.ca_file),
        ("--pins", inputs.pins),
        ("--cache", inputs.cache.root if inputs.cache.root != default_cache() else None),
        ("--state", inputs.state),
        ("-c", inputs.description if inputs.description != CLUSTER_YAML else None),
    ]
    words = [str(word) for option, value in given if value for word in (option, value)]
    return [
        *words,
        *(("--offline",) if inputs.offline else ()),
        *(("--strict",) if inputs.strict else ()),
    ]


def _make_registries(mirrors: list[str], insecure: list[str]) -> RegistryOptions:
    """How registries are reached, with the user's own logins."""
    found: dict[str, tuple[str, ...]] = {}
    for given in mirrors:
        registry, _, url = given.partition("=")
        try:
            parts = split_url(url)
        except ValueError as error:
            raise ConfigError(f"--registry-mirror {registry}=…: {error}") from error
        if parts.username or parts.password:
            raise ConfigError(
                f"--registry-mirror {registry}=…: a login does not belong into arguments",
                hint=f"log in: docker login {parts.hostname}",
            )
        if not registry or parts.scheme not in {"http", "https"} or not parts.hostname:
            raise ConfigError(
                f"--registry-mirror {given}: must be REGISTRY=URL",
                hint="such as docker.io=https://mirror.example",
            )
        found[registry] = (*found.get(registry, ()), url)
    return RegistryOptions(
        mirrors=found,
        insecure=frozenset(insecure),
        logins=functools.cache(lambda: read_logins(login_file(os.environ, Path.home()))),
    )


def with_inputs(*left_out: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command every option of `make_inputs` but some, in place of its argument `inputs`."""

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        own = inspect.signature(command, eval_str=True)
        shared = [
            option
            for name, option in inspect.signature(make_inputs, eval_str=True).parameters.items()
            if name not in left_out
        ]

        @functools.wraps(command)
        def run(**values: Any) -> None:
            inputs = make_inputs(**{option.name: values.pop(option.name) for option in shared})
            command(inputs=inputs, **values)

        options = []
        for name, option in own.parameters.items():
            options += shared if name == "inputs" else [option]
        options = [o.replace(kind=inspect.Parameter.KEYWORD_ONLY) for o in options]
        # what Typer reads
        run.__signature__ = own.replace(parameters=options)  # type: ignore[attr-defined]
        run.__annotations__ = {option.name: option.annotation for option in options}
        return run

    return decorate


def shown(path: Path) -> Path:
    """Relative where that is shorter to read."""
    try:
        return path.relative_to(Path.cwd())
    except ValueError:
        return path
