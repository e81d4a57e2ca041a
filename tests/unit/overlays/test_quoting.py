"""Values in files that a shell, systemd or a reader of YAML takes apart."""

import re
import subprocess
from pathlib import Path

import pytest
import yaml
from support.paths import PROJECT
from support.shells import SHELLS
from support.unit_files import SYSTEMD, read_with_systemd, read_words

from bundler.errors import TemplateError
from bundler.formats.shell_settings import read_settings
from bundler.formats.yaml_output import dump_yaml
from bundler.overlays.templating import quote_shell, quote_systemd

HOSTILE = (
    "/etc/resolv.conf'; touch pwned; : '",
    "'",
    "''",
    "'\"'\"'",
    "a\"b'c\\d$e`touch pwned`f",
    "$(touch pwned)",
    "ends with \\",
    " spaces at both ends ",
    "%n %% $HOME ${HOME} $$",
    ";",
    "# no comment",
    "=",
    "*",
    "é ü 漢",
    "",
)
TEMPLATES = PROJECT / "templates"
QUOTED = {".env.j2": "shell"}


@pytest.mark.parametrize("shell", SHELLS, ids=" ".join)
def test_a_shell_and_text_field_read_every_setting_as_it_was(
    tmp_path: Path, shell: list[str]
) -> None:
    names = [f"NAME_{index}" for index in range(len(HOSTILE))]
    settings = dict(zip(names, HOSTILE, strict=True))
    text = "".join(f"{name}={quote_shell(value)}\n" for name, value in settings.items())
    (tmp_path / "some.env").write_text(text)
    assert read_settings(text) == settings
    values = " ".join(f'"${name}"' for name in names)
    script = (
        '. ./some.env; . "$1/common/lib/core/common.sh"; shift\n'
        'for name; do text_field some.env "$name"; done >fields\n'
        f'printf "%s\\n" {values}'
    )
    done = subprocess.run(
        [*shell, "-c", script, "sh", TEMPLATES, *names],
        cwd=tmp_path, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout.split("\n")[:-1] == list(HOSTILE)
    assert (tmp_path / "fields").read_text().split("\n")[:-1] == list(HOSTILE)
    assert not (tmp_path / "pwned").exists()


def test_systemd_reads_every_word_as_it_was(tmp_path: Path) -> None:
    words = [f"--flag={value}" for value in HOSTILE] + [value for value in HOSTILE if value]
    command = " ".join(quote_systemd(word) for word in words)
    assert read_words(command) == words
    if not SYSTEMD:
        pytest.skip("units cannot be read by systemd: there is no systemd-analyze")
    text = f"[Service]\nExecStart=/bin/echo \\\n    {command}\n"
    read = read_with_systemd({"quoted.service": text}, tmp_path / "units")
    assert read == {"quoted.service": [["/bin/echo", *words]]}


@pytest.mark.parametrize("quote", [quote_shell, quote_systemd])
@pytest.mark.parametrize(
    "character", ["\n", "\r", "\t", "\0", "\x1b", "\x7f", "\x85", "\u2028", "\u202e", "\ud800"]
)
def test_no_filter_writes_a_hidden_character(quote: object, character: str) -> None:
    with pytest.raises(TemplateError, match=rf"U\+{ord(character):04X}"):
        quote(f"1h{character}User=nobody")  # type: ignore[operator]


@pytest.mark.parametrize("suffix", QUOTED)
def test_every_value_that_a_shell_reads_is_quoted(suffix: str) -> None:
    files = [path for path in TEMPLATES.rglob(f"*{suffix}") if path.is_file()]
    assert files
    for path in files:
        for expression in re.findall(r"\{\{(.*?)\}\}", path.read_text()):
            assert expression.endswith(f"| {QUOTED[suffix]} "), f"{path}: {expression}"


def test_every_flag_and_command_of_a_unit_is_quoted() -> None:
    units = sorted(TEMPLATES.rglob("rootfs/etc/systemd/system/*.j2"))
    assert len(units) > 10
    for path in units:
        for line in path.read_text().splitlines():
            if line.startswith(("Exec", "    {{")):
                for expression in re.findall(r"\{\{(.*?)\}\}", line):
                    known = expression.strip() in {
                        '" \\\\" if not loop.last',
                        "etcd_position * 600",
                    }
                    assert known or expression.endswith("| systemd "), f"{path}: {expression}"


@pytest.mark.parametrize(
    "text",
    ["1e3", "12e5", "0o17", "0b1", "0x1f", "1_000", "+1", "-.5", "1.", ".", "y", "N", "no", "~", "", "=", "null",
     "1:30", "2020-01-01", "<<", "*a", "&a", "- a", "a: b", "a #b", "é", " a ", "'", '"', "\\"],
)  # fmt: skip
def test_text_that_looks_like_something_else_stays_text_in_yaml(text: str) -> None:
    written = dump_yaml({"key": text})
    assert yaml.safe_load(written) == {"key": text}
    value = written.removeprefix("key: ")
    # Go's YAML reads more numbers than PyYAML does, so that all of them need quotes
    assert value[0] in "'\"" or not re.fullmatch(r"[-+.0-9_xobe:]+|[yn]", value, re.IGNORECASE)


def test_yaml_that_names_one_object_twice_has_no_alias() -> None:
    shared = ["x"]
    assert dump_yaml({"a": shared, "b": shared}) == "a:\n- x\nb:\n- x"
