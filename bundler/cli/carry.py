"""A change of the state, and the small bundles that bring it: all is checked before it is made."""

import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bundler import log, pipeline
from bundler.bundle.layout import Media
from bundler.cli.media import next_step
from bundler.cli.options import repeat_options, shown
from bundler.errors import ConfigError
from bundler.project import Inputs


def check_together(since: list[str] | None, output: Path | None) -> None:
    """Raise ConfigError where one of the two is given without the other."""
    if (since is None) != (output is None):
        raise ConfigError("--since and -o belong together: what hosts carry, and where to write")


@contextmanager
def bundles_after(
    inputs: Inputs, since: list[str] | None, output: Path | None, sign: Path | None
) -> Iterator[None]:
    """Change the state in the body; its bundles are prepared before and built after, if asked for.

    Nothing has changed where preparing them fails. Where building fails all the same, it is said
    that the state has changed, and how the bundles are built without changing it once more.
    """
    if output is None:
        yield
        log.info("Next: bundler build --since DIST -o DIR, with what the hosts carry as DIST")
        return
    media = Media(since=tuple(since or ()))
    ready = pipeline.prepare(inputs, output, signing_key=sign, media=media)
    yield
    try:
        for file in pipeline.write_bundles(ready):
            log.info(f"{file.sha256}  {file.size:>12}  {shown(file.path)}")
    except BaseException:
        log.warning(
            "the state has changed, and the bundles that bring it are not written; do not change it"
            f" once more, but: {_make_command(inputs, media, output, sign)}"
        )
        raise
    log.info(next_step(media))


def _make_command(inputs: Inputs, media: Media, output: Path, sign: Path | None) -> str:
    words = ["bundler", "build"]
    for old in media.since:
        words += ["--since", old]
    words += ["-o", str(output), *(("--sign", str(sign)) if sign else ())]
    return shlex.join([*words, *repeat_options(inputs)])
