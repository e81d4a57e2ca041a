"""Compare versions by the rules of their ecosystem. The rules are those of the library univers."""

import re
from functools import cache
from typing import Any

from bundler.errors import ConfigError

CLASSES = {
    "golang": "GolangVersion",
    "deb": "DebianVersion",
    "rpm": "RpmVersion",
    "apk": "AlpineLinuxVersion",
}
"""Type of a package URL → its class in univers.versions."""
START = "0"
"""OSV's version before every other."""


@cache
def read_version(scheme: str, text: str) -> Any:
    """The version as an object that can be compared; None if it is not one of that ecosystem."""
    import univers.versions  # noqa: PLC0415 - slow to import

    if scheme == "golang":
        text = re.sub(r"\+incompatible$", "", text.removeprefix("v"))
    try:
        return getattr(univers.versions, CLASSES[scheme])(text)
    except ValueError:
        return None


def read_vers(text: str) -> list[tuple[str, str]]:
    """A vers range as pairs of comparator and version, sorted; ConfigError if it is not one."""
    from univers.version_range import VersionRange  # noqa: PLC0415 - slow to import

    try:
        constraints = VersionRange.from_string(text).constraints  # type: ignore[no-untyped-call]
    except ValueError as error:
        raise ConfigError(f"{text}: not a range of versions: {error}") from error
    return [(one.comparator, one.version.string if one.version else "") for one in constraints]
