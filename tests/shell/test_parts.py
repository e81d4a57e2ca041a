"""The head of each shell part declares the variables that it needs and sets."""

import re
from functools import cache
from pathlib import Path

import pytest
from support.shell_parts import (
    ENVIRONMENT,
    TEMPLATES,
    list_parts,
    list_scripts,
    needed_elsewhere,
    read_head,
    read_variables,
)

from bundler import resources

COLUMNS = 120
IS_SCRIPT = re.compile(r"\.(sh|awk)(\.j2)?$|\.gotemplate$")
PARTS = [
    pytest.param(path, id=path.relative_to(TEMPLATES).as_posix().replace("/lib/", "-"))
    for path in list_parts()
]


@cache
def list_declared() -> set[str]:
    """Every variable that a part declares to set, or that a script sets."""
    declared = {name for path in list_parts() for name in read_head(path, "sets") or ()}
    return declared.union(*(read_variables(script).sets for script in list_scripts()))


@pytest.mark.parametrize("path", PARTS)
def test_a_part_needs_what_it_declares(path: Path) -> None:
    assert read_head(path, "needs") == (sorted(read_variables(path).needs))


@pytest.mark.slow
@pytest.mark.parametrize("path", PARTS)
def test_a_part_sets_what_it_declares_and_others_read_it(path: Path) -> None:
    declared = read_head(path, "sets")
    assert declared is not None, "the head has no line `# sets:`"
    assert declared == sorted(declared)
    assert set(declared) <= read_variables(path).sets
    assert set(declared) <= needed_elsewhere(path)


@pytest.mark.parametrize("path", PARTS)
def test_what_a_part_needs_is_set_by_a_script_or_another_part(path: Path) -> None:
    assert set(read_head(path, "needs") or ()) <= list_declared() | ENVIRONMENT


OWN_OPTIONS = {"transaction/payload": {"payload"}, "transaction/seal": {"unseal_file"}}
"""Options whose value a part makes complete: only it reads them after that."""


def test_a_part_changes_an_option_of_install_only_if_it_says_so() -> None:
    """Parts share all variables: a helper's own `machine=amd64` once asked for JSON on a closed descriptor."""
    script = TEMPLATES / "common" / "install.sh"
    text = script.read_text()
    options = set(re.findall(r"([a-z_]+)=", text.split("parse_options() {")[1].split("while [")[0]))
    assert {"machine", "dry_run", "slot_wait", "result"} <= options
    parts = re.search(r"^for part in (.*?); do$", text, re.DOTALL | re.MULTILINE)
    assert parts
    for name in parts[1].replace("\\\n", " ").split():
        part = script.parent / "lib" / f"{name}.sh"
        changed = read_variables(part).sets & options
        told = {*(read_head(part, "sets") or ()), *OWN_OPTIONS.get(name, ())}
        assert changed <= told, name


def test_the_reader_of_variables_sees_every_form(tmp_path: Path) -> None:
    script = tmp_path / "part.sh"
    script.write_text(
        """a=1
for b in $x; do read -r c d <"$y"; done
f() { e=$((${g:-0} + z + $(now) - 1)); echo "${a%%$w}" '$no'; awk '{ print $NF }'; }
"""
    )
    found = read_variables(script)
    assert found.sets == {"a", "b", "c", "d", "e"}
    assert found.needs == {"g", "w", "x", "y", "z"}


def test_no_function_returns_without_a_status() -> None:
    """In a trap, bash's `return` has the status from before the trap: it made a success a failure."""
    bare = re.compile(r"^(?!\s*#).*\breturn(?=\s*(;|$|\}|\)))", re.MULTILINE)
    found = [
        f"{path.relative_to(TEMPLATES)}: {match[0].strip()}"
        for path in sorted(TEMPLATES.rglob("*.sh*"))
        for match in bare.finditer(path.read_text())
    ]
    assert found == []


def test_no_line_of_a_script_is_longer_than_120_columns() -> None:
    folders = (TEMPLATES, Path(resources.__file__).parent)
    scripts = [
        path for folder in folders for path in folder.rglob("*") if IS_SCRIPT.search(path.name)
    ]
    assert len(scripts) > 100
    found = [
        f"{path}:{number}"
        for path in scripts
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if len(line) > COLUMNS
    ]
    assert not found
