"""Redact secrets in text: by their names, and by what they look like.

redact.awk in templates/common/lib/core does the same on hosts; a test compares both.
"""

import re

from bundler.formats.secret_shapes import (
    LONGEST_LINE,
    MASK,
    is_base64,
    is_random,
    load_patterns,
    mask_random,
    mask_shapes,
    span,
)

NAME = re.compile(
    r"([A-Za-z_][A-Za-z0-9_.-]*)(\\*[\"']?[ \t]*(=>|:=|[:=>,])?[ \t]*([!&][A-Za-z!][^ \t]*[ \t]+)?)"
)
"""A name, and what is between it and its value."""
LINE_START = re.compile(r"[ \t]*(- +)*((export|set|setenv|ENV|declare -x) +)?[\"']?")
ITEM = re.compile(r"[ \t]*(- +)+")
KEY = re.compile(r"[\"']?[A-Za-z0-9_./-]+[\"']?[ \t]*(:([ \t]|$)|=)")
BLOCK = re.compile(r"[|>][-+0-9]*[ \t]*(#.*)?")
OPENING = re.compile(r"(\[|#.*)?")
FOLLOWED = {"name", "value", "data", "string-data"}
WORD_ENDS = " \t\"'\\,;&{}()<>[]|"
QUOTE = re.compile(r"\\*[\"']")
ENTRY = re.compile(r"[^ \t:]+:[ \t]*")
PATH = re.compile(r"(/[A-Za-z0-9_.*-]*)+")
NUMBER = re.compile(r"[0-9]?[0-9]?[0-9]?[0-9]?[0-9]?|[0-9.]+(ns|us|ms|s|m|h|d)([0-9]+[msh])*")
SPACED_LENGTH = 10
"""Shorter words after `token ` are words of a sentence."""


def redact(text: str) -> str:
    """Replace the secrets in a text, except for PEM blocks."""
    redactor = _Redactor()
    return "\n".join(redactor.redact(line) for line in text.split("\n"))


class _Redactor:
    """Redacts line after line, and keeps what one line says about the next."""

    def __init__(self) -> None:
        self.patterns = load_patterns()
        self.indent = -1  # of a name whose value is in the lines below
        self.is_block = False  # that value is a YAML block
        self.map_indent = -1  # of `data` or `stringData`
        self.is_map_encoded = False
        self.quote = ""  # of a value that is not closed yet
        self.is_item_next = False  # `- --password`: the next item is the value
        self.is_named = False  # `name: DB_PASSWORD`: the value follows

    def redact(self, line: str) -> str:
        if len(line) > LONGEST_LINE:
            return f"[masked: a line of {len(line)} characters]"
        masked = self._continue(line)
        if masked is not None:
            return masked
        return mask_random(self._mask_names(mask_shapes(line)))

    def _continue(self, line: str) -> str | None:
        """Mask a line whose secret began in a line before; None if there is no such secret."""
        text = line.lstrip(" \t")
        indent = len(line) - len(text)
        if self.quote:
            return self._continue_quote(line, indent)
        if not text:
            return line
        item = ITEM.match(line)
        start = item.end() if item else indent
        is_value = self.is_item_next and item and not line.startswith("-", start)
        self.is_item_next = False
        if is_value or self._is_below(line, indent, start, is_item=item is not None):
            return line[:start] + MASK
        return self._mask_entry(line, indent)

    def _continue_quote(self, line: str, indent: int) -> str:
        end = _find_end(line, self.quote)
        if end < 0:
            return line[:indent] + (MASK if line[indent:] else "")
        self.quote = ""
        return MASK + line[end:]

    def _is_below(self, line: str, indent: int, start: int, *, is_item: bool) -> bool:
        """Whether the line belongs to the value of a name above it."""
        if self.indent < 0:
            return False
        if indent > self.indent and self.is_block:
            return True
        is_below = indent > self.indent or (is_item and indent == self.indent)
        if is_below and not self.is_block and not _is_structure(line, start):
            return True
        self.indent = -1
        return False

    def _mask_entry(self, line: str, indent: int) -> str | None:
        """Mask an entry of a Secret's `data` or `stringData`."""
        if indent <= self.map_indent:
            self.map_indent = -1
        entry = ENTRY.match(line, indent)
        value = line[entry.end() :] if entry else ""
        if self.map_indent < 0 or not entry or not value:
            return None
        if self.is_map_encoded and not is_base64(value):
            return None
        if BLOCK.fullmatch(value):
            self.indent, self.is_block = indent, True
            return line
        return line[: entry.end()] + MASK

    def _mask_names(self, line: str) -> str:
        if not (self.is_named or re.search(self.patterns.hint, re.sub(r"[_.]", "-", line.lower()))):
            return line
        done, rest = "", line
        while found := NAME.search(rest):
            before = done + rest[: found.start()]
            after = rest[found.end() :]
            scope = self._find_scope(before, found[1], found[2], after)
            done, rest = before + found[0], after
            if scope:
                value, rest = self._take_value(before, found[1], found[2], scope, after)
                done += value
        return done + rest

    def _find_scope(self, before: str, name: str, gap: str, after: str) -> str:
        """How much after the name is secret: `line`, `word`, `query`, or nothing."""
        words = _split_words(name)
        is_assigned = ":" in gap or "=" in gap
        if is_assigned and words in FOLLOWED:
            return self._follow(words, before, after)
        if (
            is_assigned
            and re.search(r"([?&;]|&amp;)$", before)
            and re.match(self.patterns.query, words)
        ):
            return "query"
        # a part of a path, or `Kind=Secret: error`
        is_other = before.endswith("/") or (before.endswith("=") and re.match(r":[ \t]", gap))
        scope = "" if is_other else self._classify(words)
        if is_assigned or not scope:
            return scope
        if ">" in gap:
            return scope if before.endswith("<") else ""
        return self._find_spaced_scope(before, gap, scope, after)

    def _follow(self, words: str, before: str, after: str) -> str:
        """The same for names that say what follows: `name: DB_PASS`, then `value:`; `data:`."""
        if words == "name":
            named = NAME.match(after.lstrip("\\\"'"))
            self.is_named = named is not None and self._classify(_split_words(named[1])) != ""
        elif words == "value" and self.is_named:
            self.is_named = False
            return "line"
        elif words != "value" and not after.strip(" \t{"):
            self.map_indent = len(before) - len(before.lstrip(" \t\"'"))
            self.is_map_encoded = words == "data"
        return ""

    def _classify(self, words: str) -> str:
        if re.search(self.patterns.ending, words):
            return ""
        if re.search(self.patterns.line, words):
            return "line"
        return "word" if re.search(self.patterns.word, words) else ""

    def _find_spaced_scope(self, before: str, gap: str, scope: str, after: str) -> str:
        """The same where no : or = is between name and value."""
        is_flag = before.endswith("-")
        if not after:
            self.is_item_next = is_flag and ITEM.match(before) is not None
            return ""
        if is_flag:
            return scope if re.search(r"[ \t,]", gap) and not after.startswith("-") else ""
        if "," in gap or not re.search(r"[ \t]", gap):
            return ""
        is_directive = LINE_START.fullmatch(before) and re.fullmatch(r"[^ \t;{}]+;?", after)
        if scope == "line" and (
            after[0] in "\"'" or is_directive or re.search(r"login[ \t]+[^ \t]+[ \t]+$", before)
        ):
            return scope
        word = re.match(r"[A-Za-z0-9+/=_]*", after)
        length = word.end() if word else 0
        is_whole = after[length : length + 1] in {"", *" \t\"',;"}
        if length >= SPACED_LENGTH and is_whole and re.search(r"[0-9]", after[:length]):
            return "word"
        return ""

    def _take_value(
        self, before: str, name: str, gap: str, scope: str, after: str
    ) -> tuple[str, str]:
        """Return the masked value, and the rest of the line after it."""
        is_start = LINE_START.fullmatch(before) is not None
        is_mapping = is_start and ":" in gap
        if opening := QUOTE.match(after):
            return self._take_quoted(after, opening[0], name, scope, is_start=is_start)
        if is_mapping and (BLOCK.fullmatch(after) or OPENING.fullmatch(after)):
            self.indent, self.is_block = _column(before), BLOCK.fullmatch(after) is not None
            return after, ""
        if after.startswith(("{", "[{", MASK)) and not after.startswith("{{"):
            return "", after
        end = _find_value_end(before, gap, scope, after, is_start=is_start)
        if is_mapping and end == len(after):
            self.indent, self.is_block = _column(before), False
        return self._hide(after[:end], name, scope), after[end:]

    def _take_quoted(
        self, after: str, opening: str, name: str, scope: str, *, is_start: bool
    ) -> tuple[str, str]:
        inner = after[len(opening) :]
        end = _find_end(inner, opening)
        if end < 0:
            if is_start:
                self.quote = opening
            return opening + self._hide(inner, name, scope), ""
        hidden = self._hide(inner[:end], name, scope)
        rest = inner[end + len(opening) :]
        attached = span(rest, " \t,;:)}]<>&|\\\"'") if hidden.endswith(MASK) else 0
        return opening + hidden + opening, rest[attached:]

    def _hide(self, value: str, name: str, scope: str) -> str:
        """Mask a value, except for the scheme of an Authorization header and plain values."""
        bare = value.strip(" \t\r,;")
        if not bare or MASK in bare or re.match(self.patterns.plain, bare.lower()):
            return value
        if scope != "line" and (
            NUMBER.fullmatch(bare) or (PATH.fullmatch(bare) and not is_random(bare))
        ):
            return value
        scheme, blank, secret = value.partition(" ")
        is_authorization = _split_words(name).endswith("authorization")
        if is_authorization and secret.strip() and re.match(self.patterns.scheme, scheme.lower()):
            return scheme + blank + MASK
        return MASK


def _is_structure(line: str, start: int) -> bool:
    """Whether the line has a name or a bracket of its own."""
    return KEY.match(line, start) is not None or line[start : start + 1] in {*"{}[]#"}


def _split_words(name: str) -> str:
    """`dbPass`, `DB_PASS` and `db.pass` as `db-pass`."""
    parts = re.sub(r"([a-z0-9])([A-Z])", r"\1-\2", name.rstrip(".-"))
    parts = re.sub(r"([A-Z])([A-Z][a-z])", r"\1-\2", parts)
    return re.sub(r"[_.]", "-", parts).lower()


def _column(before: str) -> int:
    return len(before.rstrip("\"'"))


def _find_value_end(before: str, gap: str, scope: str, after: str, *, is_start: bool) -> int:
    """Where the value ends that is not in quotes."""
    quote = before[-1:] if before[-1:] in {'"', "'"} and not QUOTE.match(gap) else ""
    if not quote and scope == "line" and not is_start and before.count('"') % 2 == 1:
        quote = '"'
    if scope == "query":
        return span(after, "&\"'<> \t#;")
    if quote:
        end = _find_end(after, quote)
        return len(after) if end < 0 else end
    if ">" in gap and "=" not in gap:
        return span(after, "<")
    if after.startswith("["):
        return span(after, "]")
    if is_start or (scope == "line" and re.search(r"[:=][ \t]+$", gap)):
        return len(after)
    return _find_word_end(after) if scope == "line" else span(after, WORD_ENDS)


def _find_end(text: str, quote: str) -> int:
    """Where the closing quote is, with as many backslashes as the opening one; -1 if nowhere."""
    at = -1
    while (at := text.find(quote[-1], at + 1)) >= 0:
        slashes = at - len(text[:at].rstrip("\\"))
        if quote == "'" and text[at + 1 : at + 2] == "'":
            at += 1  # '' is a quote in YAML and SQL
        elif slashes == len(quote) - 1 or (quote == "'" and slashes):
            return at - len(quote) + 1
    return -1


def _find_word_end(text: str) -> int:
    """The end of a word of a shell, which may have quoted parts and escaped blanks."""
    at, quote = 0, ""
    while at < len(text):
        character = text[at]
        if character == "\\":
            at += 1
        elif quote:
            quote = "" if character == quote else quote
        elif character in "\"'" and character in text[at + 1 :]:
            quote = character
        elif character in " \t&<>\"'":
            break
        at += 1
    return min(at, len(text))
