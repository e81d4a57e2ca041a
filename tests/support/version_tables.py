"""Tables of the catalog that only tests read: deprecated flags, and APIs by minor."""

from functools import cache

from bundler.catalog import read_table
from bundler.cluster.accepted import is_within


@cache
def deprecated_flags(component: str, minor: str) -> dict[str, str]:
    """Flags that have a successor in that minor → the successor."""
    return {
        row["flag"]: row["successor"]
        for row in read_table("deprecated-flags.tsv")
        if row["component"] == component and is_within(row["since"], None, minor)
    }


@cache
def served_apis(minor: str) -> frozenset[tuple[str, str]]:
    """(group/version, kind) that the API server of a minor serves or reads."""
    return frozenset(
        (row["api"], row["kind"])
        for row in read_table("apis.tsv")
        if is_within(row["since"], row["until"], minor)
    )
