"""The differences that `bundler diff` tells of."""

from dataclasses import dataclass
from enum import StrEnum


class What(StrEnum):
    """What became of a thing on the way from A to B."""

    ADDED = "added"
    REMOVED = "removed"
    CHANGED = "changed"


@dataclass(frozen=True, slots=True, kw_only=True)
class BundleChange:
    """One difference; `before` and `after` are words about the thing in A and in B."""

    section: str  # facts, components, images, packages, files, signature, tarball, bundles
    what: What
    name: str
    before: str = ""
    after: str = ""
    text: tuple[str, ...] = ()  # of a text file: the lines of a unified diff, secrets masked
