"""redact() of the host scripts, under every awk of this machine."""

import os
import random
import shutil
import subprocess
from pathlib import Path

import pytest
from support.secret_forms import FORMS, PEM_FORMS, READABLE, split_marks
from support.shells import SHELLS, write_program
from support.trees import Trees

from bundler.formats.redaction import redact

AWKS = [
    words
    for words in (["mawk"], ["busybox", "awk"], ["gawk"], ["gawk", "--posix"], ["original-awk"])
    if shutil.which(words[0])
]
BETWEEN = "\nbetween: forms\nand more\n"


@pytest.fixture(params=AWKS, ids=" ".join)
def awk(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A directory with that awk."""
    write_program(tmp_path / "bin/awk", f'exec {" ".join(request.param)} "$@"\n')
    return tmp_path / "bin"


def run_redact(trees: Trees, awk: Path, text: str, shell: list[str] | None = None) -> str:
    here = trees / "master1"
    done = subprocess.run(
        [*(shell or ["sh"]), "-c", f"here={here}; . $here/lib/core/redact.sh; redact"],
        input=text, capture_output=True, text=True, check=True,
        env={**os.environ, "PATH": f"{awk}:{os.environ['PATH']}"},
    )  # fmt: skip
    assert done.stderr == ""
    return done.stdout


@pytest.mark.parametrize("shell", SHELLS, ids=lambda shell: shell[0])
@pytest.mark.slow
def test_a_secret_is_redacted_in_every_form(trees: Trees, awk: Path, shell: list[str]) -> None:
    text = BETWEEN.join(split_marks(form)[0] for form in FORMS + PEM_FORMS) + "\n"
    parts = run_redact(trees, awk, text, shell).split(BETWEEN)
    assert len(parts) == len(FORMS + PEM_FORMS)
    for form, part in zip(FORMS + PEM_FORMS, parts, strict=True):
        _, secrets = split_marks(form)
        assert [secret for secret in secrets if secret in part] == [], part
        assert "[masked" in part, part


def test_text_without_secrets_stays_as_it_is(trees: Trees, awk: Path) -> None:
    text = BETWEEN.join(READABLE) + "\n"
    assert run_redact(trees, awk, text) == text


def test_it_redacts_what_bundler_redacts(trees: Trees, awk: Path) -> None:
    """Also texts that nobody thought of: each form with some characters changed."""
    choices = random.Random(17)
    texts = [split_marks(form)[0] for form in FORMS] + READABLE
    for form in tuple(texts):
        text = [*form]
        for _ in range(choices.randint(1, 4)):
            at = choices.randrange(len(text) + 1)
            text[at : at + choices.randint(0, 1)] = choices.choice("\"'\\:=, -/&<>[]{}|.#@;A9z\t")
        texts.append("".join(text))
    whole = BETWEEN.join(text for text in texts if "-----" not in text) + "\n"
    assert run_redact(trees, awk, whole).split("\n") == redact(whole).split("\n")


def test_without_its_patterns_it_prints_nothing(trees: Trees, awk: Path) -> None:
    (trees / "master1/lib/core/secret-patterns.awk").unlink()
    with pytest.raises(subprocess.CalledProcessError) as failed:
        run_redact(trees, awk, "password: hunter2\n")
    assert failed.value.stdout == ""
