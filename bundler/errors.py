"""One hierarchy of errors: every fault a user can meet, with its exit code and its fix."""


class BundlerError(Exception):
    """A fault to show to the user: what was expected, what was found, and in `hint` what to do."""

    exit_code = 1

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class ConfigError(BundlerError):
    """The cluster description is wrong; `message` holds every fault, one a line."""

    exit_code = 2


class ArtifactError(BundlerError):
    """An upstream file or image cannot be had, or is not what its pin says."""

    exit_code = 3


class PkiError(BundlerError):
    """Keys, certificates or tokens in the state directory are missing, unreadable or at odds."""

    exit_code = 4


class TemplateError(BundlerError):
    """A template or an overlay of the product is wrong."""

    exit_code = 5


class OutputError(BundlerError):
    """The result cannot be written: no space, no permission, an existing file in the way."""

    exit_code = 6
