"""The bounds of YAML: aliases, depth, size, numbers and keys, with either of PyYAML's parsers."""

import ast
import re
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from bundler.formats import bounded_yaml
from bundler.formats.bounded_yaml import Bounds, YamlError, read_document

PROJECT = Path(__file__).parents[3]


def nest_aliases(first: str, then: str, levels: int) -> str:
    """Each level names the one before nine times."""
    lines = [f"a0: &a0 {first}"]
    lines += [f"a{n}: &a{n} {then.replace('*', f'*a{n - 1}')}" for n in range(1, levels)]
    return "\n".join(lines) + "\n"


@pytest.fixture(params=["CSafeLoader", "SafeLoader"])
def _parser(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounded_yaml, "LOADER", getattr(yaml, request.param))


BOMBS = {
    "lists": nest_aliases("[x, x, x, x, x, x, x, x, x]", "[*, *, *, *, *, *, *, *, *]", 9),
    "mappings": nest_aliases("{a: 1, b: 1}", "{a: *, b: *, c: *, d: *, e: *, f: *}", 12),
    "merge keys": nest_aliases("{a: 1, b: 1}", "{<<: [*, *, *, *, *, *, *, *, *]}", 12),
    "deep": nest_aliases("[x]", "[*]", 100),
    "long text": f"a: &a {'x' * 100_000}\nb: [{', '.join(['*a'] * 200)}]\n",
}


@pytest.mark.parametrize("text", BOMBS.values(), ids=BOMBS)
@pytest.mark.usefixtures("_parser")
def test_nested_aliases_are_refused_in_a_moment(text: str) -> None:
    started = time.process_time()
    with pytest.raises(YamlError, match=r"^\d+:\d+: (more than 100000 values|nested deeper)"):
        read_document(text)
    assert time.process_time() - started < 1


LARGE = {
    "values on one line": "[" + "x," * (2 << 20 - 1) + "]",
    "values on lines": "- x\n" * (1 << 20),
    "brackets": "[" * (4 << 20),
    "brackets on lines": "[\n" * (2 << 20),
    "question marks": "? " * (2 << 20),
    "dashes": "- " * (2 << 20),
    "keys": "".join(f"k{n}: v\n" for n in range(300_000)),
    "anchors": "[" + ",".join(f"&a{n} x" for n in range(300_000)) + "]",
    "numbers to base 60": "a: 1" + ":1" * (1 << 20),
    "a number": "a: 0x" + "f" * (4 << 20 - 1),
    "documents": "--- a\n" * 600_000,
    "line ends": "\n" * (4 << 20) + "a: [",
}


def measure_the_largest_accepted_text() -> float:
    """Seconds of a processor."""
    text = "".join(f"k{n}: v\n" for n in range(Bounds().values // 2 - 1))
    started = time.process_time()
    read_document(text)
    return time.process_time() - started


@pytest.mark.parametrize("text", LARGE.values(), ids=LARGE)
def test_a_large_text_is_refused_in_a_moment(text: str) -> None:
    started = time.process_time()
    with pytest.raises(YamlError):
        read_document(text)
    taken = time.process_time() - started
    # a processor that two hyperthreads share is slower: then the largest text that is accepted is the measure
    assert taken < 1 or taken < 1.5 * measure_the_largest_accepted_text()


@pytest.mark.usefixtures("_parser")
def test_what_is_within_the_bounds_is_read_as_pyyaml_reads_it() -> None:
    text = """
    base: &base {a: 1, b: [x, 1.5, true, ~, 'null', "é"], <<: {c: 3}}
    own: {<<: *base, a: 2}
    earlier merges win: {<<: [{a: first}, *base]}
    list: [*base, &text word, *text]
    again: &base 0x10
    later: *base
    """
    expected = yaml.safe_load(
        text.replace("&base 0x10", "&other 16").replace("later: *base", "later: *other")
    )
    assert read_document(text).data == expected
    assert read_document("").data is None


def test_the_bounds_hold_exactly() -> None:
    bounds = Bounds(values=4, depth=2, characters=3)
    assert read_document("[x, [y]]", bounds).data == ["x", ["y"]]
    for text in ("[x, [y], z]", "[[[x]]]", "[wx, yz]"):
        with pytest.raises(YamlError):
            read_document(text, bounds)


@pytest.mark.usefixtures("_parser")
@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a: 1\nb: {c: 1,\n  c: 2}\n", "3:3: b: duplicate key c, first in line 2: keep one"),
        ("a: *b\n", "1:4: *b: there is no &b before it"),
        ("a: &a [*a]\n", "1:8: *a is inside of &a: remove it"),
        ("a: &a {<<: *a}\n", "1:12: *a is inside of &a: remove it"),
        ("{<<: {a: 1}, <<: {b: 1}}", "1:14: <<: <<: write << once"),
        ("<<: [1]\n", "1:5: << takes a mapping, or a list of mappings"),
        ("on: 1\n", "1:1: the key on is not text: write it in quotes"),
        ("? {a: b}\n: c\n", "1:3: a key must be text"),
        ("a: !!set {b}\n", "1:4: a: the tag !!set is not supported"),
        ("a: !!map [b]\n", "1:4: a: the tag !!map is not supported"),
        ("a: !own b\n", "1:4: a: the tag !own is not supported"),
        ("a: !!binary eA==\n", "1:4: a: the tag !!binary is not supported"),
        ("a: 18446744073709551616\n", "1:4: a: 18446744073709551616: not a number of 64 bits"),
        ("a: -.inf\nb: 1.0e+999\n", "1:4: a: -.inf: not a finite number"),
        ("a: !!int x\n", "1:4: a: x: "),
        ("a:\n\tb: 1\n", "2:1: not valid YAML: a tab cannot indent YAML: use spaces"),
        ("a: 1\n--- {b: 1}\n", "2:5: several documents (---): keep one"),
    ],
)  # fmt: skip
def test_a_fault_has_its_place_and_key(text: str, expected: str) -> None:
    with pytest.raises(YamlError) as caught:
        read_document(text)
    assert expected.replace("<<: <<: write", "<< twice: write") in str(caught.value)


def test_all_faults_are_found_at_once() -> None:
    with pytest.raises(YamlError) as caught:
        read_document('a: "\\n"\nb: [{c: 2020-01-01}]\n"d\\u202e": 1\n')
    assert [str(fault).split(": ")[0] for fault in caught.value.faults] == ["1:4", "2:9", "3:1"]


def list_calls(directory: Path) -> Iterator[tuple[str, str]]:
    for path in sorted(directory.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
                yield path.relative_to(PROJECT).as_posix(), f"{node.value.id}.{node.attr}"


def test_only_the_bounded_reader_parses_yaml() -> None:
    readers = {
        path for path, name in list_calls(PROJECT / "bundler")
        if re.match(r"yaml\.(.*(load|Load)|parse|scan|compose)", name)
    }  # fmt: skip
    assert readers == {"bundler/formats/bounded_yaml.py"}
