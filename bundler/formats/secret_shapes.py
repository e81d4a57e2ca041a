"""Secrets that are recognized by what they look like, and the table of names and shapes.

secret-shapes.awk and secret-patterns.awk in templates/common/lib/core are the same for hosts.
"""

import itertools
import re
from dataclasses import dataclass
from functools import cache, partial
from importlib.resources import files

MASK = "[masked]"
USER_INFO = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*://)([^/ \t\"'<>?#]*)@")
ACCOUNT_NAME = re.compile(r"[a-z_.-]*")
LONGEST_NAME = 15
"""A longer word before the @ of a URL is a token."""
RANDOM_LENGTH = 20
PIECE_LENGTH = 16
LONGEST_LINE = 65536
"""Longer lines are not shown."""
SECRET_MARKERS = (
    b"PRIVATE KEY-----",
    b"client-key-data:",
    b"token-secret:",
    b"    token:",
    b"tls.key:",
)
"""Content that only a file with a secret has."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """A secret that is recognized without a name."""

    pattern: str
    least: int  # characters
    most: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """A program with a flag whose value is secret."""

    program: str
    flag: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SecretPatterns:
    """The rows of secrets.tsv, as extended regular expressions."""

    line: str  # names: the rest of the line is secret
    word: str  # names: one word is
    hint: str  # what a line with such a name contains
    ending: str
    query: str
    plain: str
    shapes: tuple[Shape, ...]
    shape: str  # the start of any
    run: str  # a word that may be random
    digest: str
    commands: tuple[Command, ...]
    account: str
    scheme: str


@cache
def load_patterns() -> SecretPatterns:
    """Read secrets.tsv."""
    rows: dict[str, list[list[str]]] = {}
    table = files(__package__) / "secrets.tsv"
    for row in table.read_text(encoding="utf-8").splitlines():
        if row and not row.startswith("#"):
            kind, *fields = row.split("\t")
            rows.setdefault(kind, []).append(fields)

    def join(kind: str, scope: str = "") -> str:
        return "|".join(fields[-1] for fields in rows[kind] if scope in {"", fields[0]})

    run = "[A-Za-z0-9+/_-]"
    return SecretPatterns(
        line=f"(^|-)({join('name', 'line')})[0-9]*(-|$)",
        word=f"(^|-)({join('name', 'word')})[0-9]*(-|$)",
        hint=f"{join('name')}|{join('query')}|data",
        ending=f"(^|-)({join('ending')})$",
        query=f"^({join('query')})$",
        plain=f"^({join('plain')})$",
        shapes=tuple(
            Shape(
                pattern=f"({start})[{others}]*",
                least=int(least),
                most=int(most) if most.isdigit() else LONGEST_LINE,
            )
            for start, others, least, most in rows["shape"]
        ),
        shape="|".join(start for start, *_ in rows["shape"]),
        run=run * PIECE_LENGTH + run + "*=*",
        digest=f"({join('digest')})$",
        commands=tuple(
            Command(program=f"(^|[^A-Za-z0-9_-])({program})[ \"']", flag=f"[ \"']-{flag}")
            for program, flag in rows["command"]
        ),
        account=f"(^|[ \"'])({join('account')})[ =]+[\"']?[^ :=/\"']+:",
        scheme=f"^({join('scheme')})$",
    )


def find_secret_marker(content: bytes) -> str:
    """The first marker of a secret in a file; empty if it has none."""
    return next((mark.decode().strip() for mark in SECRET_MARKERS if mark in content), "")


def mask_shapes(line: str) -> str:
    """Mask what has the shape of a secret, and the passwords in URLs and arguments."""
    patterns = load_patterns()
    if re.search(patterns.shape, line):
        for shape in patterns.shapes:
            line = re.sub(shape.pattern, partial(_mask_shape, shape=shape), line)
    return _mask_arguments(USER_INFO.sub(_mask_user_info, line))


def _mask_shape(found: re.Match[str], shape: Shape) -> str:
    before = found.string[found.start() - 1 : found.start()]
    is_inside = re.fullmatch("[A-Za-z0-9]", before) is not None
    return MASK if shape.least <= len(found[0]) <= shape.most and not is_inside else found[0]


def _mask_user_info(found: re.Match[str]) -> str:
    user, colon, password = found[2].partition(":")
    if colon:
        return f"{found[1]}{user}:{MASK if password else ''}@"
    is_name = ACCOUNT_NAME.fullmatch(user) and len(user) <= LONGEST_NAME
    return found[1] + (user if is_name else MASK) + "@"


def _mask_arguments(line: str) -> str:
    """Mask `-p PASSWORD` of programs that take it, and `-u USER:PASSWORD`."""
    patterns = load_patterns()
    for command in patterns.commands:
        program = re.search(command.program, line)
        found = re.compile(command.flag).search(line, program.end() - 1) if program else None
        if found:
            rest = line[found.end() :]
            gap = len(rest) - len(rest.lstrip(" =\"',"))
            length = span(rest[gap:], " \t\"',")
            if length and rest[gap] != "-":
                line = line[: found.end()] + rest[:gap] + MASK + rest[gap + length :]
    if found := re.search(patterns.account, line):
        rest = line[found.end() :]
        length = span(rest, " \t\"'")
        if not rest[:length].isdigit() and length:
            line = line[: found.end()] + MASK + rest[length:]
    return line


def mask_random(line: str) -> str:
    """Mask words that look random, except for digests."""
    return re.sub(load_patterns().run, _mask_run, line)


def _mask_run(found: re.Match[str]) -> str:
    digest = load_patterns().digest
    run, before = found[0], found.string[: found.start()]
    after = found.string[found.end() : found.end() + 1]
    if re.search(digest, before[-8:]) or re.search(digest, run[:7]):
        return run
    is_value = run.endswith("==") or before[-1:] in {'"', "'"} or after in {"", *" \t,"}
    return MASK if is_random(run) or (is_value and _is_padded(run)) else run


def is_random(run: str) -> bool:
    """Whether it has lower case, upper case and digits, often alternating.

    The parts of a path count alone.
    """
    if len(run) < RANDOM_LENGTH:
        return False
    bare = run.rstrip("=")
    for piece in bare.split("/") if bare.startswith("/") else (bare.replace("/", ""),):
        kinds = [_kind(character) for character in piece]
        changes = sum(one != other for one, other in itertools.pairwise(kinds))
        is_mixed = {"upper", "lower", "digit"} <= {*kinds}
        if len(piece) >= PIECE_LENGTH and is_mixed and changes * 3 >= len(piece):
            return True
    return False


def _kind(character: str) -> str:
    if "a" <= character <= "z":
        return "lower"
    if "A" <= character <= "Z":
        return "upper"
    return "digit" if "0" <= character <= "9" else "other"


def _is_padded(run: str) -> bool:
    """Whether it is base64 that ends with =."""
    bare = run.rstrip("=")
    return (
        1 <= len(run) - len(bare) <= 2
        and len(run) % 4 == 0
        and re.fullmatch(r"[A-Za-z0-9+/]+", bare) is not None
        and re.search(r"[A-Z]", bare) is not None
        and re.search(r"[a-z]", bare) is not None
        and (run.endswith("==") or re.search(r"[0-9]", bare) is not None)
    )


def is_base64(value: str) -> bool:
    bare = value.strip(" \t\r\"'")
    return (
        len(bare) % 4 == 0
        and re.fullmatch(r"[A-Za-z0-9+/]+=?=?", bare) is not None
        and re.search(r"[A-Z=]", bare) is not None
    )


def span(text: str, ends: str) -> int:
    """The number of characters before one of `ends`."""
    return next((at for at, character in enumerate(text) if character in ends), len(text))
