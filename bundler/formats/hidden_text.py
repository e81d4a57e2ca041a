"""Characters that a reviewer of a text does not see, and that end lines or change their order."""

import re
import unicodedata

RAW = re.compile(
    "[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u2028\u2029\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069"
    "\ufeff\ufffe\uffff\ud800-\udfff]|\r(?!\n)"
)
"""Refused anywhere in a YAML file, also in comments: control characters, and what changes the order
of characters or begins a line that an editor does not show."""


def find_hidden(text: str) -> str:
    """The first hidden character of a text that must be one line; empty if there is none.

    Every space but the plain one is hidden too: it looks like one, and separates nothing.
    """
    return "" if text.isprintable() else next(c for c in text if not c.isprintable())


def describe_hidden(character: str) -> str:
    """What to do about a hidden character, in words."""
    name = unicodedata.name(character, "a control character")
    if character in "\r\n":
        name = "a line break"
    return f"has the character U+{ord(character):04X} ({name}): write it without"
