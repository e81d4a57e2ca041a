"""Known add-ons: what to write into cluster.yaml for them, by the cluster's minor.

The tables are known-addons.yaml, whose head says what each key means, and known-addon-images.tsv.
"""

import textwrap
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from typing import Any

from bundler.catalog import read_table
from bundler.cluster.components import MINORS, key_of
from bundler.formats.bounded_yaml import read_document
from bundler.formats.yaml_output import dump_yaml

WIDTH = 100
STATED = ("since", "until", "stated")


@dataclass(frozen=True, slots=True, kw_only=True)
class AddonRelease:
    """A version of an add-on, and the Kubernetes minors that its project supports."""

    version: str
    since: str
    until: str  # the newest minor; empty if the project names none
    stated: str  # where the project says so
    words: Mapping[str, str]  # what is put into the texts of the entry

    def fits(self, minor: str) -> bool:
        """Whether the project supports a minor."""
        newest = self.until or minor
        return key_of(self.since) <= key_of(minor) <= key_of(newest)

    @property
    def span(self) -> str:
        """`1.33 to 1.36`, or `1.21 and later`."""
        return f"{self.since} to {self.until}" if self.until else f"{self.since} and later"

    def list_minors(self) -> tuple[str, ...]:
        """The minors that bundler knows, and the project supports."""
        return tuple(minor for minor in MINORS if self.fits(minor))


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownAddon:
    """One entry of the table."""

    name: str
    summary: str
    project: str
    addons: tuple[Mapping[str, Any], ...]
    releases: tuple[AddonRelease, ...]
    copy: Mapping[str, str] = field(default_factory=dict)
    images: tuple[Mapping[str, str], ...] = ()
    confirm: Mapping[str, str] = field(default_factory=dict)
    keys: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def find_release(self, minor: str | None) -> AddonRelease | None:
        """The newest release for a minor; without one the newest of all."""
        return next((each for each in self.releases if not minor or each.fits(minor)), None)


@cache
def list_known() -> tuple[KnownAddon, ...]:
    """List the entries, sorted as in the table."""
    text = (files("bundler.catalog") / "known-addons.yaml").read_text(encoding="utf-8")
    return tuple(_read(entry) for entry in read_document(text).data)


def _read(entry: dict[str, Any]) -> KnownAddon:
    releases = tuple(
        AddonRelease(
            version=row["version"], since=row["since"], until=row.get("until", ""),
            stated=row["stated"],
            words={key: word for key, word in row.items() if key not in STATED},
        )
        for row in entry["releases"]
    )  # fmt: skip
    lists = {key: tuple(entry.get(key, ())) for key in ("addons", "images", "notes")}
    return KnownAddon(**{**entry, **lists, "releases": releases})


def list_images(known: KnownAddon, release: AddonRelease) -> tuple[str, ...]:
    """The images that bundler found in a release, and those of `images`."""
    return tuple(
        row["image"] or ""
        for row in read_table("known-addon-images.tsv")
        if (row["addon"], row["version"]) == (known.name, release.version)
    )


def make_keys(known: KnownAddon, release: AddonRelease) -> dict[str, Any]:
    """The keys of cluster.yaml for a release of a known add-on."""
    keys: dict[str, Any] = {**known.keys, "addons": list(known.addons)}
    if known.images:
        keys["images"] = list(known.images)
    if known.confirm:
        keys["images_not_needed"] = list(known.confirm)
    filled: dict[str, Any] = _fill(keys, release.words)
    return filled


def list_copies(known: KnownAddon, release: AddonRelease) -> str:
    """What to copy before the keys are of use; empty if a repository has all of it."""
    if not known.copy:
        return ""
    source, target = (_fill(known.copy[key], release.words) for key in ("from", "to"))
    of = "" if "https://" in source else f" of {known.project} at {release.version}"
    return f"copy {source}{of} to {target}"


def write_snippet(known: KnownAddon, release: AddonRelease) -> str:
    """Write what to paste into cluster.yaml, with what to know as comments."""
    head = [
        f"{known.name} {release.version}: {known.summary}.",
        f"For Kubernetes {release.span} ({release.stated}).",
    ]
    if copies := list_copies(known, release):
        head.append(f"{copies[0].upper()}{copies[1:]}, next to cluster.yaml.")
    head += known.notes
    head += (f"{text}: {why}." for text, why in known.confirm.items())
    comments = "".join(f"{line}\n" for text in head for line in _comment(text))
    return comments + dump_yaml(make_keys(known, release))


def _comment(text: str) -> Iterator[str]:
    yield from textwrap.wrap(
        text, WIDTH, initial_indent="# ", subsequent_indent="#   ", break_long_words=False,
        break_on_hyphens=False,
    )  # fmt: skip


def _fill(value: Any, words: Mapping[str, str]) -> Any:
    """Put a release's words into every text."""
    if isinstance(value, dict):
        return {key: _fill(inner, words) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_fill(inner, words) for inner in value]
    if isinstance(value, str):
        for key, word in words.items():
            value = value.replace(f"{{{key}}}", word)
    return value
