"""An add-on as hosts have it: files to apply, and a list of its objects."""

from collections.abc import Mapping
from dataclasses import dataclass, field

SECRET = "secrets"  # noqa: S105 - the name of a part
ORDER = ("namespaces", "crds", "first", SECRET, "objects")
"""The parts of an add-on, in the order in which they are applied.

`secrets` has what only root may read: after service accounts, and before workloads.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedHook:
    """An object that runs before or after the others are applied."""

    events: tuple[str, ...]
    words: tuple[str, str, str]  # kind with group, namespace or -, name
    marks: str  # delete: the earlier one; end: delete it when it has succeeded; or -
    content: str = field(repr=False)  # YAML
    is_secret: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class AddonSource:
    """What an add-on was made from, for the SBOM."""

    kind: str  # manifest | chart
    name: str  # the path of the file, or the name of the chart
    version: str = ""
    digest: str = ""  # SHA-256; empty for files with Secrets
    url: str = ""
    evidence: str = ""  # the trust source of the digest


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedAddon:
    """One add-on of the cluster."""

    name: str
    needs: tuple[str, ...]
    timeout: int  # seconds
    prune: str  # objects | all
    reconcile: bool = False  # what somebody changed on the cluster is applied again
    parts: Mapping[str, str] = field(repr=False)  # part → YAML
    objects: tuple[str, ...]  # `KIND[.GROUP] NAMESPACE NAME MARKS`, in the order of deletion
    hooks: tuple[PlannedHook, ...] = ()  # in order
    sources: tuple[AddonSource, ...] = ()
    verify: tuple[tuple[str, str, str, str], ...] = ()  # kind, namespace, name, condition or -
