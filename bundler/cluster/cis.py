"""The CIS Kubernetes Benchmark: its checks, what each one needs, and which number it has.

catalog/cis.tsv has a row for each check, in this project's own words:

name      how other tables call it
ids       `FIRST..LAST:ID` or `BENCHMARK:ID` of each benchmark that has the check; empty: only STIG
target    where kube-bench has it: master, etcd, controlplane, node or policies
role      the hosts that it is about
type      automated, or manual: a person decides
kind      what is looked at (lib/verify/cis.sh); empty: nothing that a program could look at
subject   a program or a path; {etcd_data} and {kubelet_root} are those of the host
argument  flags, fields or both, separated by spaces
rule      what must hold (RULES), with `value`
stig      DISA's ids of the Kubernetes STIG, where it has the same rule
met_by    default: every cluster; profile, stig: with that profile;
          site: what only the site can decide; no: not met, for the reason in `note`

Sources: kube-bench, cfg/cis-*; DISA, Kubernetes STIG V2R6.
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache

from bundler.catalog import read_table
from bundler.cluster.components import key_of, row_for
from bundler.cluster.schema_policy import CIPHER_SUITES

BENCHMARKS = {
    "1.20": "1.20",
    "1.22": "1.23",
    "1.24": "1.24",
    "1.25": "1.7",
    "1.26": "1.8",
    "1.27": "1.9",
    "1.28": "1.10",
    "1.29": "1.11",
    "1.32": "1.12",
}
"""First Kubernetes minor → the benchmark for it: kube-bench, cfg/config.yaml, version_mapping."""

OLDEST = min(BENCHMARKS, key=key_of)
ORDER = tuple(BENCHMARKS.values())
CLOSED = "mode"
"""The kind of checks that say who may read a file."""

STRONG_SUITES = tuple(
    name
    for name in CIPHER_SUITES
    if "_ECDHE_" in name and ("_GCM_" in name or "_CHACHA20_" in name)
)
"""The suites that every benchmark accepts."""

ACCEPTED_SUITES = tuple(
    dict.fromkeys(
        spelling for name in STRONG_SUITES for spelling in (name, name.removesuffix("_SHA256"))
        if "CHACHA20" in name or spelling == name
    )
)  # fmt: skip
"""The same, as programs write them: those with ChaCha20 have two names."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CisCheck:
    """One row of the table."""

    name: str
    ids: str
    target: str
    role: str
    type: str
    kind: str
    subject: str
    argument: str
    rule: str
    value: str
    stig: str
    met_by: str
    title: str
    note: str

    @property
    def is_automated(self) -> bool:
        """Whether a program decides, so that the check can fail."""
        return self.type == "automated"

    def find_id(self, benchmark: str) -> str | None:
        """The number of the check in a benchmark; None if the benchmark does not have it."""
        position = ORDER.index(benchmark)
        for part in self.ids.split():
            span, _, number = part.rpartition(":")
            first, _, last = span.partition("..")
            if ORDER.index(first) <= position <= ORDER.index(last or first):
                return number
        return None

    def label(self, benchmark: str) -> str:
        """`CIS 1.2.17, STIG V-242464`, as far as it has these ids."""
        number = self.find_id(benchmark)
        names = ([f"CIS {number}"] if number else []) + [f"STIG {one}" for one in self.stig.split()]
        return ", ".join(names)


def choose_benchmark(minor: str) -> str | None:
    """The benchmark of a Kubernetes minor; None for minors before OLDEST."""
    return None if key_of(minor) < key_of(OLDEST) else row_for(BENCHMARKS, minor)


@cache
def list_all_checks() -> tuple[CisCheck, ...]:
    """Read the complete table."""
    suites = ",".join(ACCEPTED_SUITES)
    return tuple(
        CisCheck(**{**row, "value": row["value"].replace("{suites}", suites)})
        for row in read_table("cis.tsv")
    )


def list_checks(minor: str, profile: str) -> Iterator[CisCheck]:
    """Yield the checks of the benchmark of a minor; with `stig` also those that only STIG has."""
    benchmark = choose_benchmark(minor)
    if benchmark:
        for check in list_all_checks():
            if check.find_id(benchmark) or (not check.ids and profile == "stig"):
                yield check


def list_cannot_hold(minor: str, profile: str) -> Iterator[tuple[str, CisCheck]]:
    """Yield label and row of each check that no cluster of the minor meets."""
    benchmark = choose_benchmark(minor) or ""
    for check in list_checks(minor, profile):
        if check.met_by == "no":
            yield check.label(benchmark), check


def list_closed_paths(minor: str, profile: str) -> frozenset[str]:
    """The files that only their owner may read because of the profile."""
    return frozenset(
        check.subject
        for check in list_checks(minor, profile)
        if check.kind == CLOSED and check.met_by == "profile"
    )


Rule = Callable[[str, str], bool]


def meets(rule: str, value: str, found: str | None) -> bool:
    """Whether what was found meets a rule; None: nothing is set. lib/verify/cis.awk is the same."""
    base = rule.removesuffix("-if-set")
    if isinstance(found, str):
        return RULES[base](found, value)
    return base != rule or base == "unset"


def describe_rule(rule: str, value: str) -> str:
    """The rule in words, as lib/verify/cis.awk prints it."""
    base = rule.removesuffix("-if-set")
    words = WORDS[base].format(value=value.replace(",", ", "))
    return words if base == rule else f"{words}, or not set"


def _is_subset(found: str, value: str) -> bool:
    items = [item.strip() for item in found.split(",") if item.strip()]
    return bool(items) and set(items) <= set(value.split(","))


RULES: dict[str, Rule] = {
    "set": lambda found, _: bool(found),
    "unset": lambda _found, _: False,
    "is": lambda found, value: found == value,
    "not": lambda found, value: found not in {value, f"{value}s"},
    "has": lambda found, value: value in found,
    "without": lambda found, value: value not in found,
    "at-least": lambda found, value: (
        bool(re.fullmatch(r"-?\d+", found)) and int(found) >= int(value)
    ),
    "at-most": lambda found, value: not int(found, 8) & ~int(value, 8),
    "one-of": lambda found, value: found in value.split(","),
    "only": _is_subset,
}
WORDS = {
    "set": "set",
    "unset": "not set",
    "is": "{value}",
    "not": "not {value}",
    "has": "with {value}",
    "without": "without {value}",
    "at-least": "at least {value}",
    "at-most": "at most {value}",
    "one-of": "one of {value}",
    "only": "only {value}",
}
"""Rule → what it means; `-if-set` behind it: nothing has to be set."""
