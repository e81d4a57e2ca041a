"""What checks of cluster.yaml yield: a problem, with its place in the file."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """Something wrong at `path` of cluster.yaml. A warning (`is_error=False`) stops no build."""

    path: tuple[str | int, ...]
    text: str
    is_error: bool = True
    weakening: str = ""  # its name in catalog/weakenings.tsv: --strict refuses it
