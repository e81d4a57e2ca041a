"""Which shell variables a script or a part of one sets and reads, as shfmt parses it.

`python tests/support/shell_parts.py FILE...` prints the two lines for the head of each part.
"""

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

TEMPLATES = Path(__file__).parents[2] / "templates"
ENVIRONMENT = frozenset(
    {"DESTDIR", "HOME", "LC_ALL", "PATH", "PWD", "HTTPS_TIMEOUT", "ETCD_TIMEOUT"}
)
PARTS_LOOP = re.compile(r"^for part in ((?:.*\\\n)*.*); do\n(?:.*\n)*?.*/lib/", re.MULTILINE)
NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


@dataclass(slots=True)
class Variables:
    """The variables of one file. `needs` has those that it reads and does not set."""

    sets: set[str] = field(default_factory=set)
    needs: set[str] = field(default_factory=set)


@cache
def node_variables() -> frozenset[str]:
    """What node.env sets: every script reads it, so no part declares it."""
    text = (TEMPLATES / "common/node.env.j2").read_text()
    return frozenset(re.findall(r"^([A-Z_]+)=", text, re.MULTILINE))


@cache
def list_parts() -> tuple[Path, ...]:
    return tuple(sorted(TEMPLATES.glob("*/lib/**/*.sh")))


@cache
def list_scripts() -> dict[Path, frozenset[Path]]:
    """Each script that reads parts → the parts that it may read."""
    scripts = {}
    for path in sorted(TEMPLATES.rglob("*.sh")):
        loop = PARTS_LOOP.search(path.read_text())
        if loop and path not in list_parts():
            names = set(loop[1].replace("\\\n", " ").split())
            parts = {part for part in list_parts() if _part_name(part) in names}
            own = {part for part in list_parts() if part.parents[2] != TEMPLATES / "common"}
            scripts[path] = frozenset(parts | own)
    return scripts


def _part_name(path: Path) -> str:
    return path.as_posix().rpartition("/lib/")[2].removesuffix(".sh")


@cache
def read_variables(path: Path) -> Variables:
    shfmt = shutil.which("shfmt") or str(Path(sys.executable).with_name("shfmt"))
    done = subprocess.run(
        [shfmt, "-ln", "posix", "--to-json"], input=path.read_bytes(), capture_output=True, check=True
    )  # fmt: skip
    found = Variables()
    for node in _walk(json.loads(done.stdout)):
        _add(node, found)
    found.needs -= found.sets | ENVIRONMENT | node_variables()
    return found


def read_head(path: Path, key: str) -> list[str] | None:
    """The names behind `# needs:` or `# sets:`; None where the part does not declare them."""
    lines = re.findall(rf"^# {key}:(.*)$", path.read_text(), re.MULTILINE)
    names = " ".join(lines).split()
    return None if not lines else [] if names == ["nothing"] else names


def _walk(node: Any) -> Iterator[dict[str, Any]]:  # JSON
    if isinstance(node, dict):
        yield node
        for value in node.values():
            yield from _walk(value)
    elif isinstance(node, list):
        for value in node:
            yield from _walk(value)


def _walk_arithmetic(node: Any) -> Iterator[dict[str, Any]]:  # JSON
    """The words of an expression; commands inside it are no part of it."""
    if isinstance(node, dict) and "Parts" in node:
        yield node
    elif isinstance(node, dict):
        for value in node.values():
            yield from _walk_arithmetic(value)


def _add(node: dict[str, Any], found: Variables) -> None:
    match node.get("Type"):
        case "ParamExp":
            found.needs.update(NAME.findall(node["Param"]["Value"]))
        case "WordIter" | "ForClause":
            loop = node.get("Loop", node)
            found.sets.add(loop["Name"]["Value"])
        case "CallExpr":
            found.sets.update(assign["Name"]["Value"] for assign in node.get("Assigns", ()))
            words = [_literal(word) for word in node.get("Args", ())]
            if words[:1] == ["read"]:
                found.sets.update(word for word in words[1:] if NAME.fullmatch(word))
        case "ArithmExp":
            words = [_literal(word) for word in _walk_arithmetic(node.get("X"))]
            found.needs.update(word for word in words if NAME.fullmatch(word))


def _literal(word: dict[str, Any]) -> str:
    parts = word.get("Parts", ())
    return parts[0].get("Value", "") if len(parts) == 1 and parts[0]["Type"] == "Lit" else ""


def needed_elsewhere(path: Path) -> set[str]:
    """What the scripts that read this part need, or other parts of theirs."""
    users = {script: parts for script, parts in list_scripts().items() if path in parts}
    others = {*users, *(part for parts in users.values() for part in parts)} - {path}
    return {name for other in others for name in read_variables(other).needs}


def main() -> None:
    for name in sys.argv[1:]:
        path = Path(name).resolve()
        found = read_variables(path)
        print(path.relative_to(TEMPLATES))
        print("# needs:", *(sorted(found.needs) or ["nothing"]))
        print("# sets:", *(sorted(found.sets & needed_elsewhere(path)) or ["nothing"]))


if __name__ == "__main__":
    main()
