"""An add-on as hosts have it: files to apply, and a list of its objects."""

from collections.abc import Mapping
from dataclasses import dataclass, field

SECRET = "secrets"  # noqa: S105 - the name of a part
ORDER = ("namespaces", "crds", "first", SECRET, "objects")
"""The parts of an add-on, in the order in which they are applied.

`secrets` has what only root may read: after service accounts, and before workloads.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedAddon:
    """One add-on of the cluster."""

    name: str
    needs: tuple[str, ...]
    timeout: int  # seconds
    prune: str  # objects | all
    parts: Mapping[str, str] = field(repr=False)  # part → YAML
    objects: tuple[str, ...]  # `KIND[.GROUP] NAMESPACE NAME MARKS`, in the order of deletion
