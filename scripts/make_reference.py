"""Write the pages of docs/reference that come from the code and the catalog."""

import inspect
import re
from collections.abc import Iterator
from pathlib import Path

import typer
from typer.core import TyperArgument, TyperCommand, TyperGroup, TyperOption

from bundler.catalog import default_version, read_table
from bundler.catalog.lifecycles import READ, list_lifecycles
from bundler.cli.app import app
from bundler.cli.lazy import ExamplesCommand, LazyCommand
from bundler.cluster.cis import BENCHMARKS, ORDER, CisCheck, describe_rule, list_all_checks
from bundler.cluster.components import MINORS
from bundler.cluster.keys import Key, list_children
from bundler.cluster.service_users import (
    SandboxRow,
    UnitFile,
    list_default_users,
    list_sandbox,
)
from bundler.cluster.weakenings import Weakening, list_weakenings

DIRECTORY = Path(__file__).parents[1] / "docs" / "reference"
CLUSTER_HEAD = """# cluster.yaml

Every key of cluster.yaml, in the order of the schema. `bundler explain KEY` prints the same text,
for example `bundler explain runtime.registries.mirrors`. `bundler check` validates a file.

Unknown keys, duplicate keys and values of the wrong type are errors. bundler reports all errors at
once, each with its place and the fix: `cluster.yaml:6:5: nodes[1].adress: unknown key; did you mean
'address'?`

Anchors, aliases and merge keys (`<<`) work. With every alias expanded a file has at most 100,000
values, 8 MiB of text and 40 levels. Texts and keys are single lines of visible characters: control
characters, and characters that change the order of others, are errors.

`bundler init` writes a first file, and `bundler init --example NAME` copies a complete one of
`examples/`. `bundler schema` prints the JSON Schema for editors.

`make docs` writes this page from `bundler/cluster/schema.py`.
"""
WEAKENINGS_HEAD = """# Weak settings

Settings that weaken the cluster. `bundler check` names each that it finds in cluster.yaml, with its
place; `--strict` refuses it unless `security.accept` has its name. RUNBOOK.md and verify.sh list
what is accepted. A name that nothing in the file needs is an error.

A flag and the field that does the same have one name. CIS is the CIS Kubernetes Benchmark 1.10.

`make docs` writes this page from `bundler/catalog/weakenings.tsv`.
"""
REFUSED_HEAD = """## Always refused

NodeRestriction, Node and RBAC stay. What bundler sets itself cannot be changed under another name.
"""
LIFECYCLES_HEAD = f"""# End of life

Until when upstream maintains each release line: the last day with fixes. `bundler check` and
`build` name each line of cluster.yaml that has ended, and what to take instead; `--strict` refuses
it unless `lifecycle.accept` has its name with a reason:
[Known vulnerabilities and end of life](../guides/vulnerabilities.md).

The sources were read on {READ}. flannel, the CNI plugins, CoreDNS, crictl, cri-dockerd and
metrics-server publish no such dates. A line without a date is maintained, and its end is not known.

`make docs` writes this page from `bundler/catalog/end-of-life.tsv`.
"""
CIS_HEAD = """# CIS benchmark and STIG

Every check of the CIS Kubernetes Benchmark, and how a cluster with `profile: cis` meets it:
[Meet a benchmark](../guides/cis.md). The words are this project's; the numbers are those of
kube-bench's benchmarks for Kubernetes 1.20 to the newest, and of DISA's Kubernetes STIG V2R6.
`profile: stig` adds the checks that only the STIG has.

An automated check passes or fails. A manual one passes, or a person decides.

| met by | meaning |
| --- | --- |
| default | every cluster meets it |
| profile | with `profile: cis` or `stig` |
| stig | with `profile: stig` |
| site | only the site can decide |
| no | it cannot hold; the note has the reason |

`make docs` writes this page from `bundler/catalog/cis.tsv`.
"""
CIS_SECTIONS = {
    "master": "Control plane",
    "etcd": "etcd",
    "controlplane": "Authentication and audit",
    "node": "Workers",
    "policies": "Policies",
}
DEFAULTS = (
    ("etcd", "etcd"),
    ("containerd", "containerd"),
    ("runc", "runc"),
    ("cni-plugins", "CNI plugins"),
    ("pause", "pause"),
    ("coredns", "CoreDNS"),
    ("flanneld", "flannel"),
    ("metrics-server", "metrics-server"),
)
"""Component and its column in the table of default versions."""
USERS_HEAD = """# Users of units

Which unit runs as which user, what it reads, and its sandbox. Files on disk belong to root; units
with a user get copies of what they read in /run/bundler/UNIT, and nothing else
([ADR 14](../adr/0014-units-without-root.md)).

`make docs` writes this page from `service-users.tsv`, `unit-files.tsv`, `sandbox.tsv` and
`sandbox-levels.tsv` in `bundler/catalog/`.
"""
USERS_IDS = """install.sh creates a user with its group where it is missing, without a password
and a shell. uninstall.sh removes those that it created; the owner of data that is kept stays. A
host that has the name with another number, or the number with another name, is refused before
anything is changed: choose other numbers, free on all hosts, with `security.user_ids`. A user that
exists with the right number is used as it is. `DESTDIR` stages files and creates no user.

Not in the table, and root: kubelet, kube-proxy and container runtimes, which mount and configure
networks; keepalived, which needs raw sockets and an address; flannel; kube-router and
kube-pod-guard, which write rules of iptables; a kms plugin, which is the site's program (its group
is kube-apiserver, which uses its socket); timers and kube-rotation, which run programs of the
administrator.
"""
USERS_LEVELS = """`systemd-analyze security --offline=yes` of systemd 252: 10 is a unit
without any limit. Before is the version of bundler in which all of them ran as root.
"""
USERS_SANDBOX = """systemd ignores a setting that it does not know, and logs that. Bundles need
systemd 235. A setting with a higher number acts from that version on (EL 8 has 239, Debian 11 247,
Ubuntu 22.04 249).
"""
CLI_HEAD = """# Command line

Every command and option of bundler, as `--help` prints them.

`make docs` writes this page from `bundler/cli/`.
"""


def make_cluster_page() -> str:
    """The reference of cluster.yaml: one section for each object, parents before children."""
    return "\n".join([CLUSTER_HEAD, *_list_sections()])


def _list_sections() -> Iterator[str]:
    yield _section("Top level", list_children(None))
    for key in list_children(None):
        yield from _sections_below(key)


def _sections_below(key: Key) -> Iterator[str]:
    children = list_children(key)
    variants = dict.fromkeys(child.variant for child in children)
    for variant in variants:
        of_variant = [child for child in children if child.variant == variant]
        is_choice = len(variants) > 1
        yield _section(_title(key, variant if is_choice else ""), of_variant, key)
        for child in of_variant:
            yield from _sections_below(child)


def _title(key: Key, variant: str) -> str:
    return f"{key.inner_path} with {variant.replace(': ', ' ')}" if variant else key.inner_path


def _section(title: str, keys: list[Key] | tuple[Key, ...], parent: Key | None = None) -> str:
    lines = [f"## {title}", ""]
    if parent:
        lines += [parent.description, ""]
    lines += ["| key | value | default | description |", "| --- | --- | --- | --- |"]
    lines += [
        f"| `{key.name}` | {_show_kind(key)} | {_show_default(key)} | {_cell(key.description)} |"
        for key in keys
    ]
    return "\n".join([*lines, ""])


def _show_kind(key: Key) -> str:
    """The kind, and whether hosts may differ; of an object with a link to its sections."""
    return f"{_link_kind(key)}; may differ per host" if key.per_host else _link_kind(key)


def _link_kind(key: Key) -> str:
    if not key.models:
        return key.kind
    variants = list(dict.fromkeys(child.variant for child in list_children(key)))
    if len(variants) == 1:
        return f"[{key.kind}](#{_anchor(_title(key, ''))})"
    return " or ".join(
        f"[{variant.partition(': ')[2]}](#{_anchor(_title(key, variant))})" for variant in variants
    )


def _show_default(key: Key) -> str:
    if key.default is None:
        return "**required**"
    if key.has_described_default:
        return "see description"
    return f"`{key.default}`" if key.default else "none"


def _anchor(title: str) -> str:
    """As GitHub and Python-Markdown make it from a heading."""
    return re.sub(r"[^\w\s-]", "", title.lower()).strip().replace(" ", "-")


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", r"\|")


def make_weakenings_page() -> str:
    """The names of weak settings, and what is always refused."""
    rows = list_weakenings()
    return "\n".join(
        [
            WEAKENINGS_HEAD,
            "## Accepted by name",
            "",
            "| name | component | setting | weak | what it does |",
            "| --- | --- | --- | --- | --- |",
            *(f"| `{row.name}` {_show_weakening(row)}" for row in rows if row.name),
            "",
            REFUSED_HEAD,
            "| component | setting | refused | because |",
            "| --- | --- | --- | --- |",
            *(_show_weakening(row) for row in rows if not row.name),
            "",
        ]
    )


def _show_weakening(row: Weakening) -> str:
    weak = f"{row.weak}, from {row.since}" if row.since else row.weak
    if len(weak) > 60 and weak.startswith("not only TLS"):
        weak = "not only TLS 1.3, and ECDHE with AES-GCM or ChaCha20"
    component = "every component" if row.component == "*" else row.component
    return f"| {component} | `{row.setting}` | {_cell(weak)} | {_cell(row.why)} |"


def make_lifecycles_page() -> str:
    """The end of each release line, and its source."""
    rows = [
        f"| `{row.name}` | {row.ends or ''} | {row.last} | {_cell(row.source)} |"
        for row in list_lifecycles()
    ]
    head = ["| release line | ends | last release | source |", "| --- | --- | --- | --- |"]
    return "\n".join([LIFECYCLES_HEAD, *head, *rows, ""])


def make_cli_page() -> str:
    """The reference of the command line: one section for each command, groups before theirs."""
    root = typer.main.get_command(app)
    return "\n".join([CLI_HEAD, *_list_commands(root, "bundler")])


def _list_commands(command: TyperCommand | TyperGroup, path: str) -> Iterator[str]:
    if isinstance(command, LazyCommand):
        command = command.load()
    yield _describe_command(command, path)
    if isinstance(command, TyperGroup):
        for name, inner in command.commands.items():
            if not inner.hidden:
                yield from _list_commands(inner, f"{path} {name}")


def _describe_command(command: TyperCommand | TyperGroup, path: str) -> str:
    parameters = [p for p in command.params if "--help" not in p.opts and not p.hidden]
    arguments = [_show_name(p) for p in parameters if isinstance(p, TyperArgument)]
    arguments += ["COMMAND ..."] if isinstance(command, TyperGroup) else []
    lines = [f"## {path}", "", f"`{' '.join([path, '[OPTIONS]', *arguments])}`", ""]
    if text := inspect.cleandoc(command.help or ""):
        lines += [text, ""]
    if isinstance(command, ExamplesCommand) and command.examples:
        lines += ["```sh", *command.examples, "```", ""]
    rows = [
        f"| `{_cell(_show_name(parameter))}` | {_describe_parameter(parameter)} |"
        for parameter in parameters
    ]
    if rows:
        lines += ["| argument or option | description |", "| --- | --- |", *rows, ""]
    return "\n".join(lines)


def _show_name(parameter: TyperArgument | TyperOption) -> str:
    """`-c, --config CONFIG`, `[COMPONENT]`: without words of Typer's, which differ by version."""
    value = parameter.metavar or str(parameter.name).upper()
    if isinstance(parameter, TyperArgument):
        return value if parameter.required or value.startswith("[") else f"[{value}]"
    names = ", ".join(sorted([*parameter.opts, *parameter.secondary_opts], key=len))
    return names if parameter.is_flag or parameter.count else f"{names} {value}"


def _describe_parameter(parameter: TyperArgument | TyperOption) -> str:
    text = _cell(parameter.help or "")
    default = getattr(parameter.default, "value", parameter.default)
    if isinstance(parameter, TyperOption) and parameter.required:
        return f"{text} Required."
    if isinstance(default, bool | None) or callable(default) or "Default:" in text:
        return text
    return f"{text} Default: `{default}`."


def make_cis_page() -> str:
    """The page of the benchmark: which one is for which minor, what cannot hold, all checks."""
    checks = list_all_checks()
    lines = [
        CIS_HEAD,
        "## Which benchmark",
        "",
        "| Kubernetes, from | benchmark |",
        "| --- | --- |",
    ]
    lines += [f"| {minor} | cis-{benchmark} |" for minor, benchmark in BENCHMARKS.items()]
    lines += ["", "## What cannot hold", "", "| check | numbers | type | reason |"]
    lines += ["| --- | --- | --- | --- |"]
    lines += [
        f"| {_cell(check.title)} | {_show_ids(check)} | {check.type} | {_cell(check.note)} |"
        for check in checks
        if check.met_by == "no"
    ]
    for target, title in CIS_SECTIONS.items():
        lines += [
            "",
            f"## {title}",
            "",
            "| check | numbers | STIG | type | must be | met by | note |",
        ]
        lines += ["| --- | --- | --- | --- | --- | --- | --- |"]
        lines += [_show_check(check) for check in checks if check.target == target]
    return "\n".join([*lines, ""])


def _show_ids(check: CisCheck) -> str:
    return "<br>".join(_show_span(part) for part in check.ids.split()) or "STIG only"


def _show_span(part: str) -> str:
    span, _, number = part.rpartition(":")
    return (
        number if span == f"{ORDER[0]}..{ORDER[-1]}" else f"{number} ({span.replace('..', ' to ')})"
    )


def _show_check(check: CisCheck) -> str:
    what = f"`{' '.join(filter(None, (check.subject, check.argument)))}`: " if check.subject else ""
    rule = describe_rule(check.rule, check.value) if check.rule else ""
    value = "strong suites" if check.name.endswith("-ciphers") else _cell(rule)
    cells = (
        _cell(check.title), _show_ids(check), check.stig.replace(" ", "<br>"), check.type,
        f"{what}{value}", check.met_by, _cell(check.note),
    )  # fmt: skip
    return f"| {' | '.join(cells)} |"


def make_users_page() -> str:
    """The page of the users: their units, exposure levels, what they read and own, sandboxes."""
    units = [unit for user in list_default_users() for unit in user.units]
    files = [UnitFile(**row) for row in read_table("unit-files.tsv")]
    lines = [USERS_HEAD, "| user | UID, GID | units | reads |", "| --- | --- | --- | --- |"]
    lines += [
        f"| {user.name} | {user.id} | {', '.join(user.units)} | {_cell(user.reads)} |"
        for user in list_default_users()
    ]
    lines += ["", USERS_IDS, "## Before and after", "", USERS_LEVELS]
    lines += ["| unit | before | after | aim | |", "| --- | --- | --- | --- | --- |"]
    columns = ("unit", "before", "after", "limit", "why")
    lines += [
        f"| {' | '.join(_cell(row[name]) for name in columns)} |"
        for row in read_table("sandbox-levels.tsv")
    ]
    lines += ["", "## What a unit reads and owns", "", "| unit | copies | directories |"]
    lines += ["| --- | --- | --- |"]
    lines += [
        f"| {unit} | {_join_paths(files, unit, 'copy')} | {_join_paths(files, unit, 'own')} |"
        for unit in units
    ]
    lines += ["", "## Sandbox", "", USERS_SANDBOX]
    lines += ["| setting | systemd | units | reason |", "| --- | --- | --- | --- |"]
    lines += [
        f"| `{row.line}` | {row.since} | {_name_units(row)} | {_cell(row.why)} |"
        for row in list_sandbox()
    ]
    return "\n".join([*lines, ""])


def _join_paths(files: list[UnitFile], unit: str, kind: str) -> str:
    return "<br>".join(f"`{one.path}`" for one in files if (one.unit, one.kind) == (unit, kind))


def _name_units(row: SandboxRow) -> str:
    return ", ".join("all with a user" if unit == "users" else unit for unit in row.units)


def make_compatibility_page() -> str:
    """The page as it is, with the default versions of today's catalog in its table."""
    names = dict(DEFAULTS)
    head = f"| Kubernetes | {' | '.join(names.values())} |\n{'| --- ' * (len(names) + 1)}|\n"
    rows = (
        f"| {minor} | {' | '.join(default_version(name, minor) for name in names)} |\n"
        for minor in MINORS
    )
    text = (DIRECTORY / "compatibility.md").read_text(encoding="utf-8")
    before, _, after = text.partition("| Kubernetes | ")
    return f"{before}{head}{''.join(rows)}\n{after.partition(chr(10) * 2)[2]}"


def make_pages() -> dict[Path, str]:
    """Every generated page, by its path."""
    return {
        DIRECTORY / "cluster-yaml.md": make_cluster_page(),
        DIRECTORY / "cli.md": make_cli_page(),
        DIRECTORY / "cis.md": make_cis_page(),
        DIRECTORY / "service-users.md": make_users_page(),
        DIRECTORY / "weak-settings.md": make_weakenings_page(),
        DIRECTORY / "end-of-life.md": make_lifecycles_page(),
        DIRECTORY / "compatibility.md": make_compatibility_page(),
    }


if __name__ == "__main__":
    DIRECTORY.mkdir(parents=True, exist_ok=True)
    for path, text in make_pages().items():
        path.write_text(text, encoding="utf-8")
