"""`bundler schema`."""

from bundler import log
from bundler.cluster.json_schema import format_schema


def schema_command() -> None:
    """Print the JSON Schema of cluster.yaml, with which editors complete and check it.

    The schema has the description of every key, and which components, flags, fields and feature
    gates each minor has. It accepts what `bundler check` accepts, and refuses unknown keys; only
    `bundler check` compares keys with one another. Editors find it by the first line of
    cluster.yaml, which `bundler init` writes:

    # yaml-language-server: $schema=bundler.schema.json
    """
    log.result(format_schema(), end="")
