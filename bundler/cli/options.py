"""The options that several commands share, and the inputs that they make."""

import functools
import inspect
import os
import sys
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
from bundler.sources.images.credentials import login_file, read_logins
from bundler.sources.images.options import RegistryOptions
from bundler.sources.limits import MAX_PARALLEL_DOWNLOADS, PARALLEL_DOWNLOADS
from bundler.sources.mirrors import parse_mirror

CLUSTER_YAML = Path("cluster.yaml")

Description = Annotated[
    Path,
    typer.Option(
        "-c", "--config", help="The cluster.yaml; - reads it from stdin.", show_default=True
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Show what would be done; change nothing.")]
SigningKey = Annotated[
    Path | None,
    typer.Option("--sign", help="Sign the bundles with this private key.", metavar="KEY"),
]
DeltaOutput = Annotated[
    Path | None,
    typer.Option("-o", "--output", help="The directory for the new bundles, with --since."),
]
Warn = Annotated[
    str | None,
    typer.Option(
        "--warn", metavar="DAYS", help="Exit with code 1 if one ends sooner than this, such as 60d."
    ),
]
CachePath = Annotated[
    Path | None,
    typer.Option(
        "--cache",
        help="The cache of downloaded files. Default: $BUNDLER_CACHE or ~/.cache/bundler.",
    ),
]
Mirrors = Annotated[
    list[str] | None,
    typer.Option(
        "--mirror",
        metavar="[HOST=]DIR|URL",
        help="Take files from this directory or URL, where they are at MIRROR/HOST/PATH. With HOST="
        " it serves only that upstream host, at MIRROR/PATH. Mirrors are tried in the given order,"
        " those with HOST= first, then upstream. May be repeated.",
    ),
]
RegistryMirrors = Annotated[
    list[str] | None,
    typer.Option(
        "--registry-mirror",
        metavar="REGISTRY=URL",
        help="Try URL first for images of REGISTRY (docker.io, registry.k8s.io, …). http:// means"
        " without TLS. A path that contains /v2 is used as it is; otherwise HOST/PATH means"
        " HOST/v2/PATH. May be repeated.",
    ),
]
InsecureRegistries = Annotated[
    list[str] | None,
    typer.Option(
        "--insecure-registry",
        metavar="HOST[:PORT]",
        help="Connect to this registry without TLS. Digests are still checked. May be repeated.",
    ),
]
CaFile = Annotated[
    Path | None,
    typer.Option(
        "--ca-file",
        metavar="PEM",
        help="CA certificates to trust for servers and proxies, in addition to the system's.",
    ),
]
Jobs = Annotated[
    int,
    typer.Option(
        "--jobs", "-j", min=1, max=MAX_PARALLEL_DOWNLOADS, help="Number of parallel downloads."
    ),
]
Offline = Annotated[bool, typer.Option("--offline", help="Never open a network connection.")]
Pins = Annotated[
    Path | None,
    typer.Option("--pins", help="A YAML file with `artifacts` that replace those in cluster.yaml."),
]
State = Annotated[
    Path | None,
    typer.Option(
        "--state",
        help="The state directory: keys, certificates and tokens. It is secret; back it up."
        " Default: NAME.state next to cluster.yaml.",
    ),
]
NewState = Annotated[
    bool,
    typer.Option(
        "--new-state",
        help="Use this state directory although cluster.lock.yaml or earlier bundles were made with"
        " another: the result is another cluster. A build makes it if it is missing.",
    ),
]
Strict = Annotated[
    bool,
    typer.Option(
        "--strict",
        help="Require a lock, and a trust source other than first use for every digest in it;"
        " refuse settings that weaken the cluster and versions that upstream no longer maintains,"
        " unless security.accept and lifecycle.accept name them.",
    ),
]
Quiet = Annotated[bool, typer.Option("-q", "--quiet", help="Show only warnings and errors.")]
Verbose = Annotated[
    bool,
    typer.Option("-v", "--verbose", help="Show details: sources, cached files, overlays, times."),
]


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
    new_state: NewState = False,
    strict: Strict = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> Inputs:
    """Make the inputs from the options; raises ConfigError for an option that is wrong."""
    if quiet and verbose:
        raise ConfigError("--quiet and --verbose are opposites", hint="give one of them")
    log.set_quiet(quiet)
    log.set_verbose(verbose)
    for text in mirror or ():
        parse_mirror(text)
    if ca_file is not None:
        from bundler.sources.transport import make_tls_context  # noqa: PLC0415 - slow to import

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
        new_state=new_state,
        strict=strict,
        registries=_make_registries(registry_mirror or [], insecure_registry or []),
    )


def repeat_options(inputs: Inputs) -> list[str]:
    """List the options that give the same inputs again, without those that have defaults."""
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
        *(("--new-state",) if inputs.new_state else ()),
        *(("--offline",) if inputs.offline else ()),
        *(("--strict",) if inputs.strict else ()),
    ]


def _make_registries(mirrors: list[str], insecure: list[str]) -> RegistryOptions:
    """Make the options for registries, with the user's logins from docker login."""
    found: dict[str, tuple[str, ...]] = {}
    for given in mirrors:
        registry, _, url = given.partition("=")
        try:
            parts = split_url(url)
        except ValueError as error:
            raise ConfigError(f"--registry-mirror {registry}=…: {error}") from error
        if parts.username or parts.password:
            raise ConfigError(
                f"--registry-mirror {registry}=…: the URL must not contain a login",
                hint=f"log in with: docker login {parts.hostname}",
            )
        if not registry or parts.scheme not in {"http", "https"} or not parts.hostname:
            raise ConfigError(
                f"--registry-mirror {given}: must be REGISTRY=URL",
                hint="for example docker.io=https://mirror.example",
            )
        found[registry] = (*found.get(registry, ()), url)
    return RegistryOptions(
        mirrors=found,
        insecure=frozenset(insecure),
        logins=functools.cache(lambda: read_logins(login_file(os.environ, Path.home()))),
    )


def with_inputs(*left_out: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Replace the argument `inputs` of a command by the options of `make_inputs`, except some."""

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
        # Typer reads both
        run.__signature__ = own.replace(parameters=options)  # type: ignore[attr-defined]
        run.__annotations__ = {option.name: option.annotation for option in options}
        return run

    return decorate


def ask_secret(
    file: Path | None, prompt: str, *, option: str = "--passphrase-file", confirm: bool = False
) -> str:
    """Read the first line of the file, or ask for the secret on the terminal.

    `option` is the option that names the file. Raises ConfigError if there is no terminal.
    """
    if not file:
        if not _has_terminal():
            raise ConfigError(
                f"{prompt}: there is no terminal to ask for it",
                hint=f"write it into a file that only you can read, and give {option} FILE",
            )
        return str(typer.prompt(prompt, hide_input=True, confirmation_prompt=confirm, err=True))
    try:
        return file.read_text(encoding="utf-8").partition("\n")[0]
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{file}: cannot be read as text: {error}") from error


def _has_terminal() -> bool:
    """Whether getpass can ask: it opens the process's terminal even if stdin is a pipe."""
    try:
        os.close(os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY))
    except OSError:
        return sys.stdin.isatty()
    return True


def shown(path: Path) -> Path:
    """Make the path relative to the working directory if it is below it."""
    try:
        return path.relative_to(Path.cwd())
    except ValueError:
        return path
