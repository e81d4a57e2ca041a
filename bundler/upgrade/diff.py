"""List the differences of two bundles.

Each bundle is first read completely and checked against its own manifest.
"""

import stat
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from bundler.bundle.documents import DOCUMENTS
from bundler.bundle.inspect import BundleReport, inspect
from bundler.errors import OutputError
from bundler.files import SECRET_MODE
from bundler.formats.digests import HashingReader
from bundler.formats.volumes import joined_name, open_joined
from bundler.render.bundle_manifest import ManifestEntry
from bundler.upgrade.addons import compare_addons
from bundler.upgrade.change import BundleChange, ChangeKind
from bundler.upgrade.components import compare_components
from bundler.upgrade.node_labels import compare_node_labels
from bundler.upgrade.text import TEXT_LIMIT, diff_texts

BUNDLE = ".tar.gz"
DERIVED = frozenset(DOCUMENTS)
"""Files that are derived from the others; the text of their changes adds nothing."""
OTHER_CONTENT = "other content"
NOT_COMPARED = "not compared: sealed with another key, or only one bundle is sealed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """Two bundles to compare; None if one does not exist."""

    name: str
    before: Path | None
    after: Path | None


def pair_bundles(before: Path, after: Path) -> tuple[Pair, ...]:
    """Pair two tarballs, the tarballs of two directories by name, or one and its namesake.

    Raises OutputError if there is nothing to compare.
    """
    if not before.is_dir() and not after.is_dir():
        return (Pair(name=after.name, before=before, after=after),)
    if not before.is_dir():
        return (Pair(name=before.name, before=before, after=after / before.name),)
    if not after.is_dir():
        return (Pair(name=after.name, before=before / after.name, after=after),)
    ours, theirs = _list_bundles(before), _list_bundles(after)
    names = sorted(ours.keys() | theirs.keys())
    return tuple(Pair(name=n, before=ours.get(n), after=theirs.get(n)) for n in names)


def compare_pair(pair: Pair, *, text: bool = False) -> tuple[BundleChange, ...]:
    """List every difference of two bundles; nothing if they have the same bytes.

    With `text`, the changed lines of text files too. Raises OutputError if a bundle cannot be read
    or differs from its manifest.
    """
    if not pair.before or not pair.after:
        what = ChangeKind.REMOVED if pair.before else ChangeKind.ADDED
        return (BundleChange(section="bundles", what=what, name=pair.name),)
    with ThreadPoolExecutor(2) as pool:
        paths = pair.before, pair.after
        if len(set(pool.map(_hash, paths))) == 1:
            return ()
        keep = TEXT_LIMIT if text else 0
        before, after = pool.map(partial(_read, keep=keep), paths)
    return compare_reports(before, after, text=text) or (
        BundleChange(
            section="tarball",
            what=ChangeKind.CHANGED,
            name="the bytes of the tarball",
            after="every file is the same; the time, order or compression of members differs",
        ),
    )


def compare_reports(
    before: BundleReport, after: BundleReport, *, text: bool = False
) -> tuple[BundleChange, ...]:
    """List every difference of the contents of two bundles."""
    return (
        *_compare_facts(before, after),
        *compare_components(before, after),
        *compare_node_labels(before, after),
        *compare_addons(before, after),
        *_compare_files(before, after, text=text),
        *_compare_signatures(before, after),
    )


def _compare_facts(before: BundleReport, after: BundleReport) -> Iterator[BundleChange]:
    for key in dict.fromkeys((*before.facts, *after.facts)):
        old, new = before.facts.get(key, ""), after.facts.get(key, "")
        if old != new:
            name = key.lower().replace("_", " ")
            yield BundleChange(
                section="facts", what=ChangeKind.CHANGED, name=name, before=old or "none",
                after=new or "none",
            )  # fmt: skip


def _compare_files(
    before: BundleReport, after: BundleReport, *, text: bool
) -> Iterator[BundleChange]:
    ours = {entry.path: entry for entry in before.parsed.list_contents()}
    theirs = {entry.path: entry for entry in after.parsed.list_contents()}
    keys = {report.parsed.seal and report.parsed.seal.key_id for report in (before, after)}
    content = OTHER_CONTENT if len(keys) == 1 else NOT_COMPARED
    for path in sorted(ours.keys() | theirs.keys()):
        old, new = ours.get(path), theirs.get(path)
        if not old or not new:
            what = ChangeKind.REMOVED if old else ChangeKind.ADDED
            yield BundleChange(
                section="files", what=what, name=path, before=_describe(old), after=_describe(new)
            )
        elif old != new:
            is_shown = text and path not in DERIVED and SECRET_MODE not in {old.mode, new.mode}
            lines = _diff_file(path, before, after) if is_shown else ()
            is_secret = old.mode == new.mode == SECRET_MODE
            yield _describe_change(old, new, content if is_secret else OTHER_CONTENT, lines)


def _describe(entry: ManifestEntry | None) -> str:
    """Return mode and size; for a secret file only the mode."""
    if not entry:
        return ""
    mode = f"{stat.S_IMODE(entry.mode):04o}"
    return f"{mode}, secret" if entry.mode == SECRET_MODE else f"{mode}, {entry.size} bytes"


def _describe_change(
    old: ManifestEntry, new: ManifestEntry, content: str, lines: tuple[str, ...]
) -> BundleChange:
    before, after = _describe(old), _describe(new)
    if before == after:
        after = content
    return BundleChange(
        section="files",
        what=ChangeKind.CHANGED,
        name=new.path,
        before=before,
        after=after,
        text=lines,
    )


def _diff_file(path: str, before: BundleReport, after: BundleReport) -> tuple[str, ...]:
    old, new = before.texts.get(path), after.texts.get(path)
    if old is None or new is None:
        return ()
    return diff_texts(old, new)


def _compare_signatures(before: BundleReport, after: BundleReport) -> Iterator[BundleChange]:
    """Report the signature, unless it differs only because the manifest does."""
    old, new = (
        "signed" if report.signature is not None else "not signed" for report in (before, after)
    )
    is_same_manifest = before.manifest == after.manifest
    if old == new and is_same_manifest and before.signature != after.signature:
        new = "signed with another key"
    if old != new:
        yield BundleChange(
            section="signature",
            what=ChangeKind.CHANGED,
            name="the manifest's signature",
            before=old,
            after=new,
        )


def _list_bundles(directory: Path) -> Mapping[str, Path]:
    """Map names to tarballs, each in one file or in volumes."""
    try:
        names = {joined_name(path.name) for path in directory.iterdir()}
    except OSError as error:
        raise OutputError(f"{directory}: {error.strerror or error}") from error
    found = {name: directory / name for name in names if name.endswith(BUNDLE)}
    if not found:
        raise OutputError(
            f"{directory}: no bundle (*{BUNDLE}) in this directory",
            hint="give the directory that `bundler build -o` wrote, or a node's tarball",
        )
    return found


def _hash(path: Path) -> str:
    try:
        with open_joined(path) as file:
            return HashingReader(file).finish()
    except OSError as error:
        raise OutputError(f"{path}: {error.strerror or error}") from error


def _read(path: Path, *, keep: int) -> BundleReport:
    report = inspect(path, keep=keep)
    if report.faults:
        more = len(report.faults) - 1
        others = f", and {more} more fault{'s' if more > 1 else ''}" if more else ""
        raise OutputError(
            f"{path}: {report.faults[0]}{others}; a damaged bundle cannot be compared",
            hint=f"list all faults with: bundler inspect {path}",
        )
    return report
