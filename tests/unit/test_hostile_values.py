"""Hostile text in every place of cluster.yaml that takes text: it arrives unchanged, or is refused.

The places come from the schema, and from the flags and fields of every program. What is rendered is
read back by what reads it on hosts: shells, systemd, and readers of TOML, YAML and JSON. The files
must be those of a harmless text, with the hostile one in its place.

BUNDLER_HOSTILE_EXAMPLES=10000 tries more than `make check` does.
"""

import json
import os
import re
import subprocess
import tomllib
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from ipaddress import IPv4Network
from pathlib import Path
from typing import Any
from urllib.parse import unquote_plus

import pytest
import yaml
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from support.shells import SHELLS, TEMPLATES
from support.string_fields import Slot, list_slots
from support.unit_files import SYSTEMD, read_unit, read_with_systemd

from bundler.cluster.loader import load_cluster
from bundler.cluster.plan import assign_pod_subnets, make_plan
from bundler.cluster.schema import Cluster, Role
from bundler.errors import ConfigError
from bundler.files import SECRET_MODE
from bundler.formats.shell_settings import read_settings
from bundler.overlays.files import RENDERED, list_files
from bundler.overlays.templating import NeedsStateError, render_template
from bundler.render.context import make_context
from bundler.render.registries import make_registry_files
from bundler.render.site_files import make_site_files

EXAMPLES = int(os.environ.get("BUNDLER_HOSTILE_EXAMPLES", "300"))
BASES: dict[str, dict[str, Any]] = {
    minor: {
        "apiVersion": "bundler/v1alpha1",
        "name": "base",
        "kubernetes": {"version": version},
        "runtime": {"engine": "containerd"},
        "dns": {"provider": "none"},
        "nodes": [
            {"name": "one", "address": "192.0.2.1", "roles": ["etcd", "control-plane", "worker"]}
        ],
        "images": [{"ref": "web.example/web:1", "use": "verify"}],
    }
    for minor, version in {"1.20": "1.20.2", "1.36": "1.36.2"}.items()
}
HARMLESS = (
    "placeholder", "/placeholder", "https://placeholder.example", "placeholder.example:6443",
    "registry.k8s.io/placeholder:1", "10m", "debian-12", "Mon 03:00", "192.0.2.1", "10.9.0.0/16",
    "30000-30001", "a" * 64, "a" * 128, "2.1.0", "1.20.2", "3.4.23", "20.10.23",
    "0640", "0:0", "placeholder.service", "/etc/placeholder", "placeholder:NoSchedule", "4789/udp",
)  # fmt: skip
"""Texts of which each place accepts one; of the first three it is known how they are rendered."""

NEVER = {
    "artifacts (key)", "audit.policy", "defaults (key)", "defaults.other", "extra (key)", "groups (key)", "groups.other (key)",
    "groups.other.other", "images[].file", "include[]", "lifecycle.accept (key)", "nodes[].groups[]", "nodes[].packages.dir",
    "nodes[].packages.keyring", "nodes[].runtime.default_handler", "runtime.default_handler", "runtime.handlers (key)", "nodes[].files./etc/site.d/agent.conf.source",
    "nodes[].runtime.registries[].ca", "nodes_from[]", "packages.dir", "packages.keyring", "runtime.registries[].ca", "security.accept[]", "security.user_ids (key)", "upstream_keys (key)", "upstream_keys.etcd.cosign",
    "registry.nodes[]", "registry.push.users[].password", "network.addon",
    "upstream_keys.etcd.openpgp", "upstream_keys.etcd.sigstore",
    "admission.manifests[]", "admission.plugins[]", "authentication.oidc[].ca", "encryption.kms.plugin.arguments[]",
    "encryption.kms.plugin.environment", "encryption.kms.plugin.program",
    *(f"admission.pod_security.{kind}_version" for kind in ("audit", "enforce", "warn")),
    "addons[].verify[].kind", "addons[].chart.hooks_not_needed[]", "addons[].chart.path", "addons[].manifests", "artifacts.etcd.made_from[]",
    *(f"audit.syslog.{key}" for key in ("ca", "certificate", "key", "server_name")),  # with tls and files
    *(f"{place}.{file}" for place in ("admission.image_policy", "audit.webhook", "authentication.webhook", "authorization.webhooks[]")
      for file in ("ca", "certificate", "key", "token")),
}  # fmt: skip
"""Places that take none of them: names of components, kinds, plugins, weak settings and groups, versions of a standard, purls, and
paths of files that do not exist here, the name of an add-on with `plugin: addon`, and files of an add-on, which has a chart of a repository here; hooks are KIND/NAMESPACE/NAME."""

VISIBLE = (
    "'; touch pwned; : '", '"; touch pwned; : "', "$(touch pwned)", "`touch pwned`", "\\", "'", '"', "''",
    "'\"'\"'", "$", "$HOME", "${x}", "%", "%n", "%%", ";", "&", "|", ">pwned", "#", " #", ": ", "- ", "*a",
    "&a ", "!!str ", "<<", "{", "}", "{{ 7*7 }}", "{% if 1 %}", "[", "]", "=", ",", "~", "null", "true",
    "yes", "1e3", "0x1f", "1_0", "+.1", "é", "漢", " ", "  ", "/", "..", "-", "--", "@", "\\n",
)  # fmt: skip
HIDDEN = (
    "\n", "\nUser=nobody", "\r", "\t", "\0", "\x1b[31m", "\x7f", "\x85", "\u00a0", "\u2028", "\u202e", "\u200b",
    "\ufeff", "\ud800", "\U000e0001",
)  # fmt: skip
PLAIN = re.compile(r"[-A-Za-z0-9_./:@*,~ +{}]*")
"""The characters of text that no file takes apart; a reference is rendered in its full form."""

Parse = Callable[[str], Any]


def read_rows(text: str) -> list[Any]:
    """kubelet-configz.tsv: a field and its JSON."""
    rows = (line.split("\t") for line in text.splitlines())
    return [(name, json.loads(value)) for name, value in rows]


def read_marks(text: str) -> list[tuple[str, ...]]:
    """The rows of node-labels.tsv; each has a value twice, percent-encoded and as JSON."""
    rows = [line.split("\t") for line in text.splitlines() if not line.startswith("#")]
    for *_, value, as_json in rows:
        decoded = "" if value == "-" else unquote_plus(value)
        assert as_json == "-" or decoded == json.loads(as_json)
    return [(*key, as_json if as_json == "-" else json.loads(as_json)) for *key, _, as_json in rows]


PARSERS: dict[str, Parse] = {
    "*.env": read_settings,
    "*/systemd/system/*": read_unit,
    "*.toml": tomllib.loads,
    "*.json": json.loads,
    "*.conflist": json.loads,
    "*.yaml": lambda text: list(yaml.safe_load_all(text)),
    "*.kubeconfig": yaml.safe_load,
    "*/node-labels.tsv": read_marks,
    "*/kubelet-configz.tsv": read_rows,
    "lib/kubelet-configz.tsv": read_rows,
    "*": str,
}


@dataclass
class Site:
    """Renders clusters that differ in one text."""

    directory: Path
    harmless: dict[Slot, tuple[str, dict[str, Any]] | None] = field(default_factory=dict)
    units: dict[str, str] = field(default_factory=dict)  # what systemd has to read
    accepted: int = 0
    refused: int = 0

    def load(self, document: Mapping[str, Any]) -> Cluster:
        path = self.directory / "cluster.yaml"
        path.write_text(yaml.safe_dump(document), encoding="utf-8")
        return load_cluster(path).cluster

    def find_harmless(self, slot: Slot) -> tuple[str, dict[str, Any]] | None:
        """A text that the place accepts, and the files with it; None if it accepts none."""
        if slot not in self.harmless:
            self.harmless[slot] = None
            for text in HARMLESS:
                try:
                    cluster = self.load(slot.make(text))
                except ConfigError:
                    continue
                files = render(cluster) if text in HARMLESS[:3] else {}
                self.harmless[slot] = (text, {p: parse(p, t) for p, t in files.items()})
                break
        return self.harmless[slot]


def render(cluster: Cluster) -> dict[str, str]:
    """Every rendered file by path, without secrets: those hold no text but names and keys."""
    plan = make_plan(cluster)
    workers = [node.name for node in plan.having(Role.WORKER)]
    plan = assign_pod_subnets(plan, {name: IPv4Network("10.200.0.0/24") for name in workers})
    node = plan.nodes[0]
    context = make_context(plan, node, None)
    made = (*make_registry_files(plan, node), *make_site_files(node))
    files = {
        file.path: bytes(file.content).decode() for file in made if "/site.d/" not in file.path
    }
    for template in list_files(plan, node):
        if template.suffix == RENDERED and template.mode != SECRET_MODE:
            with suppress(NeedsStateError):
                files[template.path] = render_template(template.content, template.origin, context)
    return files


def parse(path: str, text: str) -> Any:
    return next(read for pattern, read in PARSERS.items() if fnmatchcase(path, pattern))(text)


def replace(data: Any, old: str, new: str) -> Any:
    """The data with another text, also in keys."""
    if isinstance(data, dict):
        return {replace(key, old, new): replace(value, old, new) for key, value in data.items()}
    if isinstance(data, list | tuple):
        return type(data)(replace(value, old, new) for value in data)
    return data.replace(old, new) if isinstance(data, str) else data


OF_PROGRAM = re.compile(r"(nodes\[\]\.)?extra\.[-a-z]+\.")
SLOTS = {base: list(list_slots(document)) for base, document in BASES.items()}
BY_NAME = {(base, slot.name): slot for base, slots in SLOTS.items() for slot in slots}
SCHEMA = {base: [s for s in slots if not OF_PROGRAM.match(s.name)] for base, slots in SLOTS.items()}
EXTRA = {base: [s for s in slots if OF_PROGRAM.match(s.name)] for base, slots in SLOTS.items()}
RESOLV_CONF = BY_NAME["1.36", "extra.kubelet.config.resolvConf"]
DEFRAGMENT = BY_NAME["1.36", "etcd.defragment"]
EVENT_TTL = BY_NAME["1.36", "extra.kube-apiserver.flags.event-ttl"]

places = st.sampled_from(sorted(BASES)).flatmap(
    lambda base: st.one_of(
        st.sampled_from(SCHEMA[base]), st.sampled_from(EXTRA[base]), st.just(RESOLV_CONF)
    )
)
visible = st.one_of(
    st.sampled_from(VISIBLE), st.text(st.characters(exclude_categories=("C", "Z")), max_size=4)
)
texts = st.lists(
    st.integers(0, 15).flatmap(lambda n: visible if n else st.sampled_from(HIDDEN)),
    min_size=1,
    max_size=4,
).map("".join)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Site:
    made = Site(tmp_path_factory.mktemp("hostile"))
    (made.directory / "key.asc").write_text("a key")
    (made.directory / "web.hash").write_text("$6$salt$hash\n")
    return made


@pytest.mark.slow
def test_hostile_text_in_any_place_arrives_unchanged_or_is_refused(site: Site) -> None:
    @settings(
        max_examples=EXAMPLES, deadline=None, database=None, derandomize=EXAMPLES <= 1000,
        suppress_health_check=list(HealthCheck), print_blob=False,
    )  # fmt: skip
    @given(place=places, text=texts, insert=st.integers(0, 20))
    @example(place=RESOLV_CONF, text="/etc/resolv.conf'; touch pwned; : '", insert=0)
    @example(
        place=EVENT_TTL, text='1h\nExecStartPost=/bin/sh -c "touch pwned"\nUser=nobody', insert=0
    )
    @example(place=EVENT_TTL, text="1h \\", insert=0)
    @example(place=DEFRAGMENT, text=": ", insert=0)
    def try_text(place: Slot, text: str, insert: int) -> None:
        try_place(site, place, text, insert)

    try_text()
    print(f"accepted {site.accepted}, refused {site.refused}, units {len(site.units)}")
    assert site.accepted > EXAMPLES / 10
    assert site.refused > EXAMPLES / 10
    if SYSTEMD:
        check_with_systemd(site.units, site.directory / "units")


def try_place(site: Site, slot: Slot, text: str, insert: int) -> None:
    """Load and render; compare what each reader reads with the harmless files."""
    harmless, expected = site.find_harmless(slot) or ("", {})
    if insert % 2:  # a text that is nearly right
        text = harmless[:insert] + text + harmless[insert:]
    try:
        cluster = site.load(slot.make(text))
    except ConfigError as error:
        site.refused += 1
        refusal = error.message
    else:
        refusal = ""
    if refusal:
        assert all(line.isprintable() for line in refusal.split("\n")), refusal
        return
    site.accepted += 1
    files = render(cluster)
    found = {path: parse(path, content) for path, content in files.items()}
    if not expected:
        assert PLAIN.fullmatch(text), f"{slot.name}: {text!r}"
        return
    changed = [
        path for path in expected if expected[path] != replace(expected[path], harmless, text)
    ]
    assert found == {path: replace(data, harmless, text) for path, data in expected.items()}
    for path in changed:
        if path.endswith(".env"):
            check_shells(site.directory, files[path], found[path])
        if path.endswith(".service"):
            name = f"u{len(site.units)}-{path.rpartition('/')[2]}"
            site.units[name] = files[path]


def check_shells(directory: Path, text: str, expected: dict[str, str]) -> None:
    """Run the settings in every shell, and read one as text: the same values, and no command ran."""
    (directory / "some.env").write_text(text)
    script = 'set -a; . ./some.env; . "$1/common/lib/core/common.sh"; RESOLV_CONF_AS_TEXT=$(text_field some.env RESOLV_CONF); exec env -0'
    for shell in SHELLS:
        done = subprocess.run(
            [*shell, "-c", script, "sh", TEMPLATES], cwd=directory, capture_output=True, check=True,
            env={"PATH": os.environ["PATH"]},
        )  # fmt: skip
        lines = done.stdout.decode().split("\0")
        values = dict(line.split("=", maxsplit=1) for line in lines if line)
        assert {name: values[name] for name in expected} == expected
        assert values["RESOLV_CONF_AS_TEXT"] == expected["RESOLV_CONF"]
    assert not (directory / "pwned").exists()


def check_with_systemd(units: Mapping[str, str], directory: Path) -> None:
    """The systemd of this machine reads the words that `read_unit` reads."""
    names = sorted(units)
    for start in range(0, len(names), 100):
        some = {name: units[name] for name in names[start : start + 100]}
        read = read_with_systemd(some, directory / f"{start}")
        for name, text in some.items():
            commands = [
                [words[0].lstrip("-+"), *words[1:]]
                for key, values in read_unit(text).items()
                if key.startswith("[Service]Exec")
                for words in values
            ]
            assert sorted(map(str, read[name])) == sorted(map(str, commands)), name


@pytest.mark.slow
def test_every_place_of_the_schema_accepts_some_text(site: Site) -> None:
    """Otherwise a hostile text could be refused for another reason than its characters."""
    never = {slot.name for slot in SCHEMA["1.36"] if not site.find_harmless(slot)}
    assert not never ^ NEVER, " ".join(sorted(never ^ NEVER))
