"""The differences that `bundler diff` reports."""

from dataclasses import dataclass
from enum import StrEnum


class ChangeKind(StrEnum):
    """The kind of a difference between A and B."""

    ADDED = "added"
    REMOVED = "removed"
    CHANGED = "changed"


@dataclass(frozen=True, slots=True, kw_only=True)
class BundleChange:
    """One difference; `before` and `after` describe it in A and in B."""

    section: str  # facts, components, images, packages, node labels, add-ons, files, signature, …
    what: ChangeKind
    name: str
    before: str = ""
    after: str = ""
    text: tuple[str, ...] = ()  # lines of a unified diff of a text file, secrets masked
