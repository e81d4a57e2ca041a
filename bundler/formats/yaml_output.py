"""Write YAML that every reader takes as it was meant, whichever version of YAML it implements."""

import re
from typing import Any

import yaml

LIKE_A_NUMBER = re.compile(
    r"[-+]?(0[xob]?[0-9a-f_]*|[0-9_]*\.?[0-9_]*(e[-+]?[0-9_]*)?)|y|n|=", re.IGNORECASE
)
"""Texts that Go's YAML reads as numbers or booleans, although PyYAML would leave quotes out."""


class _Dumper(yaml.SafeDumper):
    """Block style without aliases, so that it reads as if written by hand."""

    def ignore_aliases(self, _data: Any) -> bool:
        return True


def _represent_text(dumper: _Dumper, text: str) -> yaml.ScalarNode:
    style = "'" if LIKE_A_NUMBER.fullmatch(text) else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _represent_text)


def dump_yaml(value: object) -> str:
    """Dump YAML in block style, keys in the given order, without a newline at the end."""
    return yaml.dump(value, Dumper=_Dumper, sort_keys=False, width=2**20).rstrip()
