"""How the scalars of YAML are read: their tags, and what is refused because YAML misleads there."""

import math
from collections.abc import Callable
from typing import Any

import yaml
from yaml.constructor import SafeConstructor
from yaml.resolver import Resolver

TAG = "tag:yaml.org,2002:"
TEXT, MERGE = f"{TAG}str", f"{TAG}merge"
NUMBERS = range(-(2**63), 2**64)
LONGEST_NUMBER = 40  # digits
RESOLVER: Any = Resolver()
CONSTRUCTOR: Any = SafeConstructor()


def _read_integer(text: str) -> int:
    if len(text) > LONGEST_NUMBER:
        raise ValueError("not a number of 64 bits: write text in quotes")
    number: int = CONSTRUCTOR.construct_yaml_int(yaml.ScalarNode(f"{TAG}int", text))
    if number not in NUMBERS:
        raise ValueError("not a number of 64 bits: write text in quotes")
    return number


def _read_float(text: str) -> float:
    number: float = CONSTRUCTOR.construct_yaml_float(yaml.ScalarNode(f"{TAG}float", text))
    if not math.isfinite(number):
        raise ValueError("not a finite number: write text in quotes")
    return number


def _refuse_date(_: str) -> Any:
    raise ValueError("YAML reads a date here: write it in quotes")


SCALARS: dict[str, Callable[[str], Any]] = {
    TEXT: str,
    MERGE: str,
    f"{TAG}value": str,
    f"{TAG}null": lambda _: None,
    f"{TAG}bool": lambda text: CONSTRUCTOR.bool_values[text.lower()],
    f"{TAG}int": _read_integer,
    f"{TAG}float": _read_float,
    f"{TAG}timestamp": _refuse_date,
}
"""Tag of a scalar → how its text is read; other tags are refused."""

MANIFEST_SCALARS = SCALARS | {
    f"{TAG}timestamp": str,
    f"{TAG}int": lambda text: text if ":" in text else _read_integer(text),
    f"{TAG}float": lambda text: text if ":" in text else _read_float(text),
}
"""The same in Kubernetes manifests."""
