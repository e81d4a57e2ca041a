"""Secrets are redacted by name and by shape, and other text stays as it is."""

import re

import pytest
from support.secret_forms import FORMS, PEM_FORMS, READABLE, split_marks

from bundler.formats.redaction import redact
from bundler.formats.secret_shapes import LONGEST_LINE, load_patterns
from bundler.upgrade.text import mask


@pytest.mark.parametrize("form", FORMS + PEM_FORMS)
def test_a_secret_is_redacted_in_every_form(form: str) -> None:
    text, secrets = split_marks(form)
    assert secrets
    redacted = mask(f"before\n{text}\n")
    assert [secret for secret in secrets if secret in redacted] == []
    assert "masked]" in redacted
    assert redacted.startswith("before\n")


@pytest.mark.parametrize("form", [form for form in FORMS if "\nnext: line" in form])
def test_the_line_after_a_secret_of_several_lines_stays(form: str) -> None:
    assert redact(split_marks(form)[0]).endswith("next: line")


@pytest.mark.parametrize("text", READABLE)
def test_text_without_secrets_stays_as_it_is(text: str) -> None:
    assert redact(text) == text
    assert redact(f"Nov 30 01:33:53 host kubelet[1]: {text}").endswith(text)


def test_a_line_too_long_to_be_redacted_is_left_out() -> None:
    assert redact("x" * (LONGEST_LINE + 1)) == "[masked: a line of 65537 characters]"


def test_what_is_redacted_stays_so() -> None:
    once = [redact(split_marks(form)[0]) for form in FORMS]
    assert [redact(text) for text in once] == once


def test_the_table_has_no_expression_that_awk_and_python_read_differently() -> None:
    """Intervals, classes with a backslash and look-around are not in every awk."""
    patterns = load_patterns()
    texts = [
        patterns.line, patterns.word, patterns.hint, patterns.ending, patterns.query, patterns.plain,
        patterns.shape, patterns.digest, patterns.account, patterns.scheme,
        *(shape.pattern for shape in patterns.shapes),
        *(command.program + command.flag for command in patterns.commands),
    ]  # fmt: skip
    for text in texts:
        assert not re.search(r"(?<!\\)\{[0-9]|\\[A-Za-z0-9]|\(\?", text), text
        assert "\t" not in text
