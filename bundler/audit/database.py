"""Open a file of advisories that was carried in: which kind it is shows in its content."""

import sqlite3
import zipfile
from pathlib import Path

from bundler.audit.advisory import Database
from bundler.audit.csaf import Csaf, is_csaf
from bundler.audit.debian import DebianTracker, read_tracker
from bundler.audit.grype import Grype
from bundler.audit.osv import Osv
from bundler.errors import ArtifactError

SQLITE = b"SQLite format 3\0"


def open_database(path: Path) -> Database:
    """The database in a file or a directory; ArtifactError for other content."""
    try:
        if is_csaf(path):
            return Csaf(path)
        if path.is_dir():
            return Osv(path)
        with path.open("rb") as file:
            begin = file.read(len(SQLITE))
        if begin == SQLITE:
            return Grype(path)
        if zipfile.is_zipfile(path):
            return Osv(path)
    except OSError as error:
        raise ArtifactError(f"{path}: {error.strerror or error}") from error
    except sqlite3.Error as error:
        raise ArtifactError(f"{path}: not a database of Grype: {error}") from error
    if begin[:1] in {b"{", b"["} and read_tracker(path) is not None:
        return DebianTracker(path)
    raise ArtifactError(
        f"{path}: not a database of advisories that bundler reads",
        hint="give a zip or a directory of OSV, Grype's vulnerability.db (unpacked), the JSON"
        " of Debian's security tracker, or CSAF files of Red Hat",
    )
