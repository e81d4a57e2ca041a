"""Which add-ons an add-on needs, directly or through others."""

from collections.abc import Mapping, Sequence


def list_needed(name: str, needs: Mapping[str, Sequence[str]]) -> set[str]:
    """Everything that an add-on needs, and itself."""
    found: set[str] = set()
    waiting = [name]
    while waiting:
        one = waiting.pop()
        if one not in found:
            found.add(one)
            waiting += needs.get(one, ())
    return found
