"""The hierarchy of errors: each problem that a user can meet, with its exit code and its fix."""

INTERRUPTED = 130
"""Exit code after Ctrl-C, as shells use it: 128 + SIGINT."""


class BundlerError(Exception):
    """An error to show to the user: what was expected and found, and in `hint` what to do."""

    exit_code = 1

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class ConfigError(BundlerError):
    """cluster.yaml or the command line is wrong; `message` has one problem per line."""

    exit_code = 2


class ArtifactError(BundlerError):
    """An upstream file or image is not available, or does not match its digest."""

    exit_code = 3


class PkiError(BundlerError):
    """Keys, certificates or tokens in the state directory are missing, unreadable or conflict."""

    exit_code = 4


class TemplateError(BundlerError):
    """A template or an overlay of bundler is wrong."""

    exit_code = 5


class OutputError(BundlerError):
    """The result cannot be written (space, permissions, existing files), or a check failed."""

    exit_code = 6
