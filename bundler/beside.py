"""What upstream publishes beside a file: digests and signatures, small, and pinned by nobody."""

from dataclasses import replace

from bundler.catalog import Artifact
from bundler.download import FetchOptions
from bundler.errors import ArtifactError
from bundler.fetch import fetch_unpinned
from bundler.fetch_faults import NowhereError, StoppedError

MOST = 1 << 20  # bytes


def fetch_beside(
    artifact: Artifact, what: str, url: str, instead: str, options: FetchOptions
) -> bytes | None:
    """The document at `url`, which is `what` of the artifact; None where there is none.

    That there is none, only sources that work can say. Any other fault is an ArtifactError with
    `instead` in its hint: whoever can cause one would otherwise choose what is believed.
    """
    named = replace(artifact, component=f"{what} of {artifact.component}")
    document = replace(named, url=url, algorithm="sha256", digest="", size=None)
    try:
        _, path = fetch_unpinned(document, options, MOST)
    except NowhereError:
        return None
    except StoppedError:
        raise
    except ArtifactError as error:
        raise ArtifactError(
            error.message,
            hint=f"{error.hint}; only 404 and 410 say that upstream has none: try again later,"
            f" or {instead}",
        ) from error
    return path.read_bytes()
