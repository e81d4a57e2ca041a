"""Unseal codes: what a person types on a host to open its sealed bundle.

28 random characters (140 bits) and 4 that check them, in groups of four. The letters I, L, O and U
are left out, because they look like others (Crockford's Base32); install.sh reads I and L as 1, O
as 0, and ignores case, spaces and dashes.
"""

import hashlib
import re
import secrets

ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
RANDOM, CHECK, GROUP = 28, 4, 4
FORM = re.compile(rf"[{ALPHABET}]{{{RANDOM + CHECK}}}")


def make_code() -> str:
    """Make a new code, without dashes."""
    drawn = "".join(secrets.choice(ALPHABET) for _ in range(RANDOM))
    return drawn + _check(drawn)


def format_code(code: str) -> str:
    """Write a code in groups, to be typed."""
    return "-".join(code[at : at + GROUP] for at in range(0, len(code), GROUP))


def parse_code(text: str) -> str | None:
    """Read a code in groups; None if it is not one."""
    code = text.strip().replace("-", "")
    return code if FORM.fullmatch(code) and code[RANDOM:] == _check(code[:RANDOM]) else None


def _check(drawn: str) -> str:
    return hashlib.sha256(f"{drawn}\n".encode()).hexdigest()[:CHECK].upper()
