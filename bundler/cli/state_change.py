"""Change the state, and build the small bundles that bring the change to the hosts."""

import shlex
from collections.abc import Callable
from pathlib import Path

from bundler import log, pipeline
from bundler.bundle.layout import Media
from bundler.cli.media import next_step
from bundler.cli.options import repeat_options, shown
from bundler.errors import ConfigError
from bundler.project import Inputs, Project


def check_together(since: list[str] | None, output: Path | None) -> None:
    """Raise ConfigError if only one of --since and -o is given."""
    if bool(since) != bool(output):
        raise ConfigError(
            "--since and -o must be given together: --since names the bundles on the hosts, -o the"
            " directory for the new ones"
        )


def change_and_build(
    change: Callable[[], None],
    project: Project,
    since: list[str] | None,
    output: Path | None,
    sign: Path | None,
    seal: bool | None,
) -> None:
    """Run `change` on the state and build the bundles that bring it, if there is an output.

    The state does not change if the build fails before it needs the state. If it fails later, a
    warning says so and shows the command that builds the bundles without another change.
    """
    if not output:
        change()
        log.info("Next: bundler build --since DIST -o DIR, where DIST holds the hosts' bundles")
        return
    media = Media(since=tuple(since or ()), seal=seal)
    has_changed = False

    def change_once() -> None:
        nonlocal has_changed
        change()
        has_changed = True

    try:
        files = pipeline.build_project(
            project, output, signing_key=sign, media=media, change_state=change_once
        )
    except BaseException:
        if has_changed:
            command = _make_command(project.inputs, media, output, sign)
            log.warning(
                "the state has changed, but its bundles are not written. Fix: do not change the"
                f" state again; run: {command}"
            )
        raise
    for file in files:
        log.info(f"{file.sha256}  {file.size:>12}  {shown(file.path)}")
    log.info(next_step(media, output))


def _make_command(inputs: Inputs, media: Media, output: Path, sign: Path | None) -> str:
    words = ["bundler", "build"]
    for old in media.since:
        words += ["--since", old]
    words += ["-o", str(output), *(("--sign", str(sign)) if sign else ())]
    words += [] if media.seal is None else ["--seal" if media.seal else "--no-seal"]
    return shlex.join([*words, *repeat_options(inputs)])
