"""Files of `NAME='VALUE'` lines, which shells run and others read as text: node.env, state.env."""

QUOTED_QUOTE = "'\"'\"'"
"""A quote inside of quotes: it closes them, quotes itself, and opens them again."""


def quote_setting(text: str) -> str:
    """The text as one word of a shell."""
    return "'" + text.replace("'", QUOTED_QUOTE) + "'"


def read_settings(text: str) -> dict[str, str]:
    """The settings of such a file; other lines are left out."""
    lines = (line.partition("=") for line in text.splitlines() if not line.startswith("#"))
    return {
        name: value[1:-1].replace(QUOTED_QUOTE, "'")
        for name, _, value in lines
        if len(value) > 1 and value[0] == value[-1] == "'"
    }
