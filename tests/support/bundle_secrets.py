"""The secrets of an unpacked bundle, as a program may print them."""

import base64
import re
from pathlib import Path

SECRET_FILES = ("*.key", "*.kubeconfig", "*encryption-config.yaml", "*bootstrap-tokens.yaml")


def list_secrets(bundle: Path) -> set[str]:
    """Every secret of a bundle: lines of keys, tokens, base64 of either, as they may be printed."""
    found = set()
    for pattern in SECRET_FILES:
        for path in bundle.rglob(pattern):
            text = path.read_text()
            found |= set(re.findall(r"-data: (\S{40,})", text))
            found |= set(re.findall(r'(?:token|secret|token-secret): "?([^"\s]+)', text))
            found |= {
                line for line in text.splitlines() if re.fullmatch(r"[A-Za-z0-9+/=]{40,}", line)
            }
    for value in tuple(found):
        if value.startswith("LS0t"):
            pem = base64.b64decode(value).decode()
            found |= {line for line in pem.splitlines() if "-----" not in line and "PRIVATE" in pem}
    return found
