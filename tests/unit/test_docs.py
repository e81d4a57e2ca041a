"""Documentation: generated pages are current, links and commands work, every check has an entry."""

import ast
import re
import runpy
import shlex
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import typer.main
import yaml

from bundler.cli.app import app
from bundler.cli.lazy import LazyCommand

PROJECT = Path(__file__).parents[2]
DOCS = PROJECT / "docs"
PAGES = [*sorted(PROJECT.glob("*.md")), *sorted(DOCS.rglob("*.md"))]
TROUBLESHOOTING = DOCS / "guides" / "troubleshooting.md"
SCRIPTS = {
    **{f"{name}.sh": f"templates/common/{name}.sh" for name in ("install", "uninstall", "verify", "diagnose")},
    **{f"{name}.sh": f"templates/etcd/{name}.sh" for name in ("backup", "restore")},
    "join.sh": "bundler/resources/join.sh",
    "forget-node.sh": "templates/control-plane/rootfs/opt/k8s/libexec/forget-node.sh",
}  # fmt: skip
"""Scripts of hosts that the documentation shows, and where they are."""

FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
SEPARATORS = ("&&", "||", "|", ";", "&", "do", "done;", "then", "else")


def name_of(page: Path) -> str:
    return str(page.relative_to(PROJECT))


pages = pytest.mark.parametrize("page", PAGES, ids=name_of)


# ---- links


@cache
def anchors_of(page: Path) -> frozenset[str]:
    """The anchors of a page's headings, as GitHub and MyST make them."""
    text = FENCE.sub("", page.read_text(encoding="utf-8"))
    found: dict[str, int] = {}
    anchors = set()
    for heading in re.findall(r"^#{1,6} (.+)$", text, re.MULTILINE):
        words = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", heading)
        slug = re.sub(r"[^\w\- ]", "", words.strip().lower()).replace(" ", "-")
        count = found.get(slug, 0)
        found[slug] = count + 1
        anchors.add(f"{slug}-{count}" if count else slug)
    return frozenset(anchors)


def links_of(page: Path) -> Iterator[str]:
    text = FENCE.sub("", page.read_text(encoding="utf-8"))
    yield from re.findall(r"\]\(([^)\s]+)\)", text)


@pages
def test_every_link_leads_to_a_file_and_a_heading(page: Path) -> None:
    broken = []
    for link in links_of(page):
        if link.startswith(("http://", "https://", "mailto:")):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        if not target.exists() or (anchor and anchor not in anchors_of(target)):
            broken.append(link)
    assert broken == []


def test_every_page_is_in_the_sidebar_of_the_site() -> None:
    sections = yaml.safe_load((DOCS / "navigation.yaml").read_text(encoding="utf-8"))
    listed = ["README.md", *(page for pages in sections.values() for page in pages)]
    assert sorted(listed) == sorted(name_of(page) for page in PAGES)


def test_pages_that_the_code_names_exist() -> None:
    folders = ("bundler/", "templates/", "scripts/", "tests/", "Makefile")
    missing = [
        (name, page)
        for name in tracked_files()
        if name.startswith(folders) and not name.startswith("tests/golden/")
        for page in re.findall(
            r"(?<![\w/])docs/[\w/-]+\.md\b", (PROJECT / name).read_text(errors="replace")
        )
        if not (PROJECT / page).is_file()
    ]
    assert missing == []


@pytest.mark.slow
def test_the_site_loads_nothing_from_a_network_and_its_search_knows_the_guides(
    tmp_path: Path,
) -> None:
    site = tmp_path / "site"
    subprocess.run([sys.executable, PROJECT / "scripts" / "site.py", site], check=True)
    loading = re.compile(r"<(?:script|link|img|iframe)\b[^>]*(?:src|href)=[\"']?(?:https?:)?//")
    html = sorted(site.rglob("*.html"))
    assert len(html) > 40
    assert [page for page in html if loading.search(page.read_text(encoding="utf-8"))] == []
    css = re.compile(r"url\([\"']?(?:https?:)?//|@import")
    assert [page for page in site.rglob("*.css") if css.search(page.read_text())] == []
    assert "apparmor" in (site / "searchindex.js").read_text(encoding="utf-8")


@cache
def tracked_files() -> tuple[str, ...]:
    listing = ["git", "ls-files", "-z"]
    done = subprocess.run(listing, cwd=PROJECT, check=True, capture_output=True, text=True)
    return tuple(name for name in done.stdout.split("\0") if (PROJECT / name).is_file())


@pages
def test_scripts_tests_and_tables_that_a_page_names_exist(page: Path) -> None:
    names = {name.rpartition("/")[2].removesuffix(".j2") for name in tracked_files()}
    text = page.read_text(encoding="utf-8")
    named = set(re.findall(r"(?<![\w.-])([A-Za-z][\w-]*\.(?:sh|py|tsv|awk))\b(?!/)", text))
    generated = {
        "images.tsv",
        "registry.tsv",
        "site-files.tsv",
        "conf.py",
        "NAME.awk",
        "UNSEAL.tsv",
    }
    assert sorted(named - names - generated) == []


# ---- commands


def commands_of(page: Path) -> Iterator[list[str]]:
    """The words of each command in console and sh blocks, and in code spans."""
    text = page.read_text(encoding="utf-8")
    lines = []
    for kind, body in FENCE.findall(text):
        if kind in {"sh", "bash"}:
            lines += body.splitlines()
        elif kind == "console":
            lines += re.findall(r"^(?:[$#>] )(.*)$", body, re.MULTILINE)
        elif kind == "yaml":
            lines += re.findall(r"^ *- run: (.*)$", body, re.MULTILINE)
    lines += re.findall(r"`((?:bundler|[\w./-]*\w+\.sh) [^`\n]*)`", FENCE.sub("", text))
    for line in lines:
        yield from split_commands(line)


def split_commands(line: str) -> Iterator[list[str]]:
    lexer = shlex.shlex(line, posix=True, punctuation_chars=";&|")
    lexer.whitespace_split = True
    lexer.commenters = ""
    try:
        words = list(lexer)
    except ValueError:  # prose in quotes, as in `it's`
        words = line.split()
    command: list[str] = []
    for word in words:
        if word.startswith("#"):
            break
        if word in SEPARATORS or word.strip(";&|") == "":
            if command:
                yield command
            command = []
        else:
            command.append(word)
    if command:
        yield command


@cache
def command_line() -> Any:
    return typer.main.get_command(app)


def find_faults(words: list[str]) -> str | None:
    """What is wrong with a `bundler` command."""
    command = command_line()
    rest = words[1:]
    while hasattr(command, "commands"):
        options = known_options(command)
        name = next((word for word in rest if word not in options), None)
        if not name or not re.fullmatch(r"[a-z]+(?:\|[a-z]+)*", name):
            return None  # `bundler --help`, `bundler COMMAND`, `bundler …`
        found = command.commands.get(name)
        if not found:
            return f"no command {name}"
        command = found.load() if isinstance(found, LazyCommand) else found
        rest = rest[rest.index(name) + 1 :]
    options = known_options(command)
    for word in rest:
        option = word.partition("=")[0]
        if option.startswith("-") and option not in options and option != "-":
            return f"no option {option}"
    return None


def known_options(command: Any) -> set[str]:
    names = {"--help", "-h"}
    for parameter in command.params:
        names.update(parameter.opts, parameter.secondary_opts)
    return names


@pages
def test_every_bundler_command_names_commands_and_options_that_exist(page: Path) -> None:
    faults = [
        (" ".join(words), fault)
        for words in commands_of(page)
        if words[0].rpartition("/")[2] == "bundler" and (fault := find_faults(words))
    ]
    assert faults == []


@cache
def help_of(script: str) -> str:
    """The head of a script: `--help` prints it."""
    lines = (PROJECT / SCRIPTS[script]).read_text(encoding="utf-8").splitlines()[1:]
    head = next(number for number, line in enumerate(lines) if not line.startswith("#"))
    return "\n".join(lines[:head])


@pages
def test_every_option_of_a_host_script_is_in_its_help(page: Path) -> None:
    unknown = []
    for words in commands_of(page):
        script = next((n for w in words if (n := w.rpartition("/")[2]) in SCRIPTS), None)
        if not script:
            continue
        start = next(i for i, w in enumerate(words) if w.rpartition("/")[2] == script)
        unknown += [
            (script, word)
            for word in words[start + 1 :]
            if re.fullmatch(r"--?[a-z][a-z-]*", word)
            and not re.search(rf"(?<![\w-]){re.escape(word)}(?![\w-])", help_of(script))
        ]
    assert unknown == []


def test_the_tests_of_commands_see_faults() -> None:
    assert find_faults(["bundler", "biuld"]) == "no command biuld"
    assert find_faults(["bundler", "build", "--splt", "4G"]) == "no option --splt"
    assert not find_faults(["bundler", "certs", "renew", "--all"])
    assert list(split_commands("a -b && c | d # e")) == [["a", "-b"], ["c"], ["d"]]


# ---- troubleshooting


def list_preflight_checks() -> list[str]:
    path = PROJECT / "templates/common/lib/preflight/checks.sh"
    script = f". '{path}'; print_preflight"
    done = subprocess.run(["sh", "-c", script], check=True, capture_output=True, text=True)
    return [line.partition("|")[0] for line in done.stdout.splitlines()]


def list_verify_checks() -> list[str]:
    path = PROJECT / "templates/common/lib/verify/table.sh"
    values = "ROLES='etcd control-plane worker' FEATURES='coredns metrics-server addons kube-proxy kube-router network-policy registry' UNIT_USERS=etcd:etcd"
    names = "etcdctl= etcd_commas= pki= kubectl_line= again= namespace= CLOSED_PORTS= UNITS="
    prints = "print_cluster_checks; print_node_checks; print_failover_checks"
    script = f"{values} {names}; . '{path}'; {prints}"
    done = subprocess.run(["sh", "-c", script], check=True, capture_output=True, text=True)
    return [line.partition("|")[0] for line in done.stdout.splitlines()]


def test_every_preflight_check_has_an_entry_in_troubleshooting() -> None:
    checks = list_preflight_checks()
    assert len(checks) > 20
    assert [name for name in checks if f"\n### `{name}`\n" not in TROUBLESHOOTING.read_text()] == []


def test_every_check_of_verify_has_an_entry_in_troubleshooting() -> None:
    checks = list_verify_checks()
    assert len(checks) > 40
    assert [name for name in checks if f"\n### `{name}`\n" not in TROUBLESHOOTING.read_text()] == []


def test_troubleshooting_has_no_entry_for_a_check_that_is_gone() -> None:
    entries = re.findall(r"^### `([^`]+)`$", TROUBLESHOOTING.read_text(), re.MULTILINE)
    before_checks = ["trust", "base", "payload", "seal"]  # refusals before the first check
    assert sorted(entries) == sorted(
        [*before_checks, *list_preflight_checks(), *list_verify_checks()]
    )


def test_each_entry_of_troubleshooting_has_three_commands_and_a_fix() -> None:
    text = TROUBLESHOOTING.read_text(encoding="utf-8")
    entries = re.split(r"^### ", text, flags=re.MULTILINE)[1:]
    for entry in entries:
        block = FENCE.search(entry)
        assert block, entry
        assert len(re.findall(r"^# ", block[2], re.MULTILINE)) == 3, entry
        assert "**Fix:**" in entry, entry


# ---- what is said about tests, and pages that are generated


def test_the_generated_reference_pages_are_up_to_date() -> None:
    make_pages = runpy.run_path(str(PROJECT / "scripts" / "make_reference.py"))["make_pages"]
    stale = [path.name for path, text in make_pages().items() if path.read_text() != text]
    assert stale == [], "run: make docs"


SKIPS = {"skip", "skipif", "xfail", "importorskip"}


def list_skip_reasons(source: str) -> Iterator[str]:
    """The reason of each skip in a test file, as far as it is the same on every machine.

    What follows a second colon, and values in braces, are left out.
    """
    nodes = list(ast.walk(ast.parse(source)))
    calls = {id(node.func): node for node in nodes if isinstance(node, ast.Call)}
    for node in nodes:
        if getattr(node, "attr", getattr(node, "id", None)) in SKIPS:
            parts = read_reason(calls.get(id(node))).split(": ")
            yield re.sub(" *{}", "", ": ".join(parts[:2]))


def read_reason(call: ast.Call | None) -> str:
    """The text of the argument `reason`, else of the first, with `{}` for each value in it."""
    given = (
        [] if call is None else [k.value for k in call.keywords if k.arg == "reason"] + call.args
    )
    if not given:
        return ""
    reason = given[0]
    parts = reason.values if isinstance(reason, ast.JoinedStr) else [reason]
    return "".join(str(part.value) if isinstance(part, ast.Constant) else "{}" for part in parts)


def test_the_testing_page_has_each_reason_of_a_skip_and_no_other() -> None:
    page = (DOCS / "development" / "testing.md").read_text(encoding="utf-8")
    section = page.partition("\n## What tests skip\n")[2].partition("\n## ")[0]
    table = [
        ": ".join(row) for row in re.findall(r"^\| (.*) \| (.*) \|$", section, re.MULTILINE)[2:]
    ]
    sources = [path.read_text(encoding="utf-8") for path in (PROJECT / "tests").rglob("*.py")]
    reasons = {reason for source in sources for reason in list_skip_reasons(source)}
    assert [reason for reason in reasons if not re.fullmatch(r".+ cannot [^:]+: .+", reason)] == []
    assert sorted(table) == sorted(reasons)
    assert len(table) > 10


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ('pytest.skip("a cannot b: c")', "a cannot b: c"),
        ('pytest.skip(reason="a cannot b: c")', "a cannot b: c"),
        ('pytest.xfail("a cannot b: "\n    "c")', "a cannot b: c"),
        ('pytest.importorskip("module", reason="a cannot b: c")', "a cannot b: c"),
        ('pytest.importorskip("module")', "module"),
        ('@pytest.mark.xfail(x, reason="a cannot b: c")\ndef test(): ...', "a cannot b: c"),
        ("@pytest.mark.skip\ndef test(): ...", ""),
        ("pytest.skip()", ""),
        ('mark = pytest.mark.skipif(x, reason=f"a cannot b: c {d}"\n    f" e: {f} g")', "a cannot b: c e"),
        ('skip(f"a cannot b: c {d}: e")', "a cannot b: c"),
        ("pytest.skip(text)", ""),
    ],
)  # fmt: skip
def test_the_test_of_skips_sees_every_form(source: str, reason: str) -> None:
    assert list(list_skip_reasons(source)) == [reason]


def test_the_architecture_page_names_every_package() -> None:
    page = (PROJECT / "ARCHITECTURE.md").read_text(encoding="utf-8")
    folders = sorted((PROJECT / "bundler").glob("*/__init__.py"))
    assert len(folders) > 10
    assert [path.parent.name for path in folders if f"| `{path.parent.name}/` |" not in page] == []


def test_files_that_the_architecture_page_names_exist() -> None:
    page = (PROJECT / "ARCHITECTURE.md").read_text(encoding="utf-8")
    named = re.findall(r"`((?:bundler|templates)/[\w./-]+)`", page)
    assert len(named) > 5
    placeholders = re.compile(r"[A-Z]{4}")  # OVERLAY, PATH
    missing = [path for path in named if not (PROJECT / path).exists()]
    assert [path for path in missing if not placeholders.search(path)] == []


def test_the_readme_is_short() -> None:
    text = (PROJECT / "README.md").read_text(encoding="utf-8")
    assert len(text.split()) <= 1200
    assert len(text.splitlines()) <= 150
