"""Prose is plain English: literary and private words are rare, and a word has one meaning.

The words are in docs/development/words.tsv; docs/development/style.md says how to write.
"""

import ast
import csv
import re
import subprocess
from collections import defaultdict
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[2]
WORDS = PROJECT / "docs" / "development" / "words.tsv"
MOST = 3.0
"""Words per 1,000 lines of a folder."""

SUFFIXES = {
    ".py",
    ".sh",
    ".j2",
    ".md",
    ".yaml",
    ".yml",
    ".toml",
    ".service",
    ".timer",
    ".awk",
    ".gotmpl",
    "",
}
FOLDERS = ("bundler", "templates", "tests", "scripts", "docs", "examples")


def load_pattern() -> re.Pattern[str]:
    with WORDS.open(encoding="utf-8") as file:
        patterns = [
            row["pattern"] for row in csv.DictReader(file, delimiter="\t") if row["pattern"]
        ]
    return re.compile(rf"\b(?:{'|'.join(patterns)})\b", re.IGNORECASE)


def list_texts(folder: str) -> list[Path]:
    """The tracked texts that people wrote; for docs also the pages at the top of the repository."""
    names = subprocess.run(
        ["git", "ls-files", "-z"], cwd=PROJECT, check=True, capture_output=True, text=True
    ).stdout.split("\0")
    return [
        PROJECT / name
        for name in names
        if name
        and (
            name.startswith(f"{folder}/")
            or (folder == "docs" and "/" not in name and name.endswith(".md"))
        )
        and Path(name).suffix in SUFFIXES
        and not name.startswith("tests/golden/")
        and (PROJECT / name).is_file()
    ]


@pytest.mark.parametrize("folder", FOLDERS)
def test_literary_and_private_words_are_rare(folder: str) -> None:
    pattern = load_pattern()
    lines = 0
    hits = []
    for path in list_texts(folder):
        for number, line in enumerate(
            path.read_text(encoding="utf-8", errors="replace").splitlines(), 1
        ):
            lines += 1
            hits += [
                f"{path.relative_to(PROJECT)}:{number}: {word}" for word in pattern.findall(line)
            ]
    assert lines > 50
    assert 1000 * len(hits) / lines <= MOST, "\n".join(hits)


def test_the_word_list_finds_words_and_leaves_others() -> None:
    pattern = load_pattern()
    assert pattern.findall("mend it, then nobody is believed") == ["mend", "believed"]
    assert pattern.findall("amend the lock; a foreign key; repair it") == []


def test_a_name_of_a_class_has_one_meaning() -> None:
    modules = defaultdict(list)
    for path in sorted((PROJECT / "bundler").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ClassDef):
                modules[node.name].append(path.relative_to(PROJECT).as_posix())
    assert len(modules) > 200
    assert {name: paths for name, paths in modules.items() if len(paths) > 1} == {}
