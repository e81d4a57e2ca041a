"""Unit files as systemd reads them: by its documented rules, and by systemd itself."""

import os
import re
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

Unit = dict[str, list[str | list[str]]]
"""`Section.Key` → its values; those of commands are lists of words."""

SYSTEMD = shutil.which("systemd-analyze")
ESCAPES = {"a": "\a", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v", "s": " "}
WORD = re.compile(r"""(?:"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*'|\\.|[^\s"'\\])+""")
PIECE = re.compile(r"""("(?:[^"\\]|\\.)*")|('(?:[^'\\]|\\.)*')|(\\.)|([^"'\\]+)""")
DUMPED = re.compile(r"^\s*Command Line: (.*)$", re.MULTILINE)


def read_unit(text: str) -> Unit:
    """systemd.syntax(7): comments, lines that go on, and words of commands."""
    unit: Unit = {}
    section = ""
    lines = (line for line in text.split("\n") if not line.lstrip(" \t\r").startswith(("#", ";")))
    for whole in "\n".join(lines).replace("\\\n", " ").split("\n"):
        line = whole.strip(" \t\r")
        if line.startswith("["):
            section = line
        elif line:
            key, equals, value = line.partition("=")
            assert equals, f"systemd ignores the line {line!r}"
            is_command = key.startswith("Exec") and section == "[Service]"
            value = value.strip(" \t\r")
            unit.setdefault(f"{section}{key.strip()}", []).append(
                read_words(value) if is_command else value
            )
    return unit


def read_words(command: str) -> list[str]:
    """systemd.service(5), COMMAND LINES: quotes, escapes, specifiers, variables."""
    assert not WORD.sub("", command).strip(), f"not a list of words: {command!r}"
    return [_expand(_unquote(word)) for word in WORD.findall(command)]


def _unquote(word: str) -> str:
    return "".join(
        _unescape(double[1:-1] if double else single[1:-1] if single else escape or plain)
        for double, single, escape, plain in PIECE.findall(word)
    )


def _unescape(text: str) -> str:
    return re.sub(r"\\(.)", lambda match: ESCAPES.get(match[1], match[1]), text)


def _expand(word: str) -> str:
    """Without specifiers and variables, whose use is an error here."""
    assert not re.search(r"(?<!%)(%%)*%(?!%)", word), f"a specifier in {word!r}"
    assert not re.search(r"(?<!\$)(\$\$)*\$(?!\$)", word), f"a variable in {word!r}"
    return word.replace("%%", "%").replace("$$", "$")


def read_with_systemd(units: Mapping[str, str], directory: Path) -> dict[str, list[list[str]]]:
    """The words of each command of each unit, as the systemd of this machine reads them."""
    assert SYSTEMD
    directory.mkdir(parents=True)
    for name, text in units.items():
        (directory / name).write_text(text)
    done = subprocess.run(
        [SYSTEMD, "verify", "--man=no", *(directory / name for name in units)],
        capture_output=True, text=True, check=False,
        env={**os.environ, "SYSTEMD_LOG_LEVEL": "debug", "SYSTEMD_UNIT_PATH": f"{directory}:"},
    )  # fmt: skip
    read: dict[str, list[list[str]]] = {}
    for part in re.split(r"^\t-> Unit ", done.stdout, flags=re.MULTILINE)[1:]:
        name = part.split(":", maxsplit=1)[0]
        if name in units:
            read[name] = [_read_dumped(line) for line in DUMPED.findall(part)]
    assert set(read) == set(units), set(units) - set(read)
    return read


def _read_dumped(line: str) -> list[str]:
    """systemd prints words with quotes and backslashes; `$$` is replaced only at the start."""
    words = [_unquote(word) for word in WORD.findall(line)]
    return [word.replace("$$", "$") for word in words]
