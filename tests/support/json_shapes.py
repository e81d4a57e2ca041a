"""The shapes of docs/reference/json.md, and output of commands that is compared with them."""

import json
import re
from collections.abc import Iterator
from typing import Any

from bundler.cli.json_output import VERSIONS
from support.paths import PROJECT

PAGE = (PROJECT / "docs" / "reference" / "json.md").read_text()


def list_documented(shape: str) -> set[str]:
    """The fields of a shape on the page; `.name` stands below the object of the field before it."""
    section = PAGE.partition(f"\n## {shape}\n")[2].partition("\n## ")[0]
    fields: list[str] = []
    for cell in re.findall(r"^\| (.*?) \|", section, re.MULTILINE):
        for field in re.findall(r"`([^`]+)`", cell):
            above = fields[-1].rpartition(".")[0] if field.startswith(".") else ""
            fields.append(above + field)
    return set(fields)


def list_fields(value: object, path: str = "") -> Iterator[str]:
    """The fields of a value, as the page writes them; an object whose keys are data is one field."""
    if isinstance(value, dict) and path.rpartition(".")[2] != "left_out":
        for key, inner in value.items():
            yield from list_fields(inner, f"{path}.{key}".removeprefix("."))
    elif isinstance(value, list) and value and isinstance(value[0], dict):
        for item in value:
            yield from list_fields(item, f"{path}[]")
    else:
        yield path


def read_shape(text: str, shape: str) -> Any:
    """The JSON of a command, after its format and every field of it were found on the page.

    A field counts as found if the page has it, the object or list that it is in, or fields of its items.
    """
    data = json.loads(text)
    assert data["format"] == f"{shape}/{VERSIONS.get(shape, 1)}"
    assert f"`{data['format']}`" in PAGE
    documented = list_documented(shape)
    if shape.endswith("-checks"):  # the page says "as cluster-checks"
        documented |= list_documented("cluster-checks")
    for field in list_fields(data):
        above = [field[: match.start()] for match in re.finditer(r"\[\]|\.", field)]
        is_empty_list = any(name.startswith(f"{field}[]") for name in documented)
        assert documented & {field, *above} or is_empty_list, (
            f"{field} is not in docs/reference/json.md: {shape}"
        )
    return data
