"""Compare text files line by line, and mask everything that may be a secret."""

import difflib
import hashlib
import re

from bundler.formats.redaction import redact

TEXT_LIMIT = 256 << 10
"""Files with more bytes are not compared line by line."""
ONLY_MASKED = "(only masked text differs)"
ONLY_LINE_ENDS = "(only line endings differ)"

PEM = re.compile(r"-----BEGIN ([A-Z0-9 ]+)-----.*?(?:-----END \1-----|\Z)", re.DOTALL)


def diff_texts(before: bytes, after: bytes) -> tuple[str, ...]:
    """Return the lines of a unified diff without its heading; nothing if a file is not text.

    Private keys and tokens are masked, other PEM blocks are shown by their digests.
    """
    old, new = _read_text(before), _read_text(after)
    if old is None or new is None:
        return ()
    old, new = mask(old), mask(new)
    lines = difflib.unified_diff(old.splitlines(), new.splitlines(), lineterm="", n=3)
    return tuple(lines)[2:] or (ONLY_MASKED if old == new else ONLY_LINE_ENDS,)


def mask(text: str) -> str:
    """Replace the secrets in a text."""
    return redact(PEM.sub(_mask_pem, text))


def _mask_pem(match: re.Match[str]) -> str:
    if "PRIVATE" in match[1]:
        return f"[{match[1].lower()}: masked]"
    return f"[{match[1].lower()} sha256:{hashlib.sha256(match[0].encode()).hexdigest()[:16]}]"


def _read_text(content: bytes) -> str | None:
    if b"\0" in content:
        return None
    try:
        return content.decode()
    except UnicodeDecodeError:
        return None
