"""The layout of help: options and commands in panels, at most 60 lines at 80 columns.

`--help` shortens what would be longer: options to their first sentence, then the description to its
first paragraph. `bundler help COMMAND` shows everything.
"""

import inspect
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

LINES = 60
"""The most lines of --help at 80 columns."""

OPTION_PANELS: Mapping[str, Sequence[str]] = {
    "Cluster": ("config", "pins", "state", "new_state", "strict"),
    "Downloads": (
        *("mirror", "registry_mirror", "insecure_registry", "ca_file", "cache", "offline", "jobs"),
    ),
    "Bundles": (*("output", "layout", "split", "since", "public_only", "sign", "seal", "seal_to"),),
    "Messages": ("dry_run", "as_json", "quiet", "verbose", "help"),
}
"""Panel → its parameters. Others are in the panel Options, which comes first."""

FIRST_SENTENCE = re.compile(r".*?[.;](?= |$)", re.DOTALL)
DEFAULT = re.compile(r" *\[(default: [^]]*|required)\]$")
MEANINGFUL = 20  # characters; a shorter beginning says too little
INDENT = 2  # columns before a list, and between its columns
Row = tuple[str, str]


def write_help(
    command: Any, ctx: Any, formatter: Any, examples: Sequence[str], *, full: bool
) -> None:
    """Write the help of a command: complete, or shortened until it has at most LINES lines."""
    texts = (
        _render(command, ctx, examples, is_short=is_short, is_brief=is_brief, note=note)
        for is_short, is_brief, note in (
            (False, False, False),
            (True, False, True),
            (True, True, True),
        )
    )
    for text in texts:
        if full or len(text.splitlines()) <= LINES:
            break
    formatter.write(text)


def write_commands(groups: Mapping[str, Iterable[Row]], formatter: Any) -> None:
    """Write lists of commands, each in its panel, with one column for all names."""
    width = max(len(name) for rows in groups.values() for name, _ in rows)
    space = formatter.width - width - 2 * INDENT
    for title, rows in groups.items():
        with formatter.section(title):
            formatter.write_dl([(name.ljust(width), _fit(text, space)) for name, text in rows])


def _render(
    command: Any, ctx: Any, examples: Sequence[str], *, is_short: bool, is_brief: bool, note: bool
) -> str:
    formatter = ctx.make_formatter()
    command.format_usage(ctx, formatter)
    text = inspect.cleandoc(command.help or "")
    formatter.write_paragraph()
    with formatter.indentation():
        formatter.write_text(text.partition("\n\n")[0] if is_brief else text)
    for title, rows in _list_panels(command, ctx, is_short=is_short).items():
        with formatter.section(title):
            formatter.write_dl(rows)
    if examples:
        with formatter.section("Examples"):
            for line in examples:
                formatter.write(f"{' ' * formatter.current_indent}{line}\n")
    if note:
        path = ctx.command_path.partition(" ")[2]
        formatter.write(f"\nEverything about it: bundler help {path}\n")
    return str(formatter.getvalue())


def _list_panels(command: Any, ctx: Any, *, is_short: bool) -> dict[str, list[Row]]:
    panel_of = {name: title for title, names in OPTION_PANELS.items() for name in names}
    panels: dict[str, list[Row]] = {"Arguments": [], "Options": []}
    panels |= {title: [] for title in OPTION_PANELS}
    shorten: Callable[[Row], Row] = _shorten if is_short else lambda row: row
    for parameter in command.get_params(ctx):
        if record := parameter.get_help_record(ctx):
            is_argument = parameter.param_type_name == "argument"
            title = "Arguments" if is_argument else panel_of.get(parameter.name, "Options")
            panels[title].append(shorten(record))
    return {title: rows for title, rows in panels.items() if rows}


def _shorten(row: Row) -> Row:
    """Keep the first sentence, or its part before a semicolon, and the default."""
    name, text = row
    default = DEFAULT.search(text)
    found = FIRST_SENTENCE.match(text)
    short = found[0].rstrip(".;") if found else DEFAULT.sub("", text)
    return name, short + (f"  {default[0].strip()}" if default else "")


def _fit(text: str, width: int) -> str:
    """Shorten a sentence to one line: at a colon, semicolon or bracket, or at the last comma."""
    text = text.rstrip(".")
    if len(text) <= width:
        return text
    for marks, least in ((r"[;:](?= )| \(", MEANINGFUL), (r",(?= )", 1)):
        ends = [found.start() for found in re.finditer(marks, text)]
        if good := [end for end in ends if least <= end <= width]:
            return text[: good[-1]]
    return text[:width].rpartition(" ")[0] + " …"
