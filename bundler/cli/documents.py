"""`bundler inspect --sbom` and `--provenance`: a bundle's own documents on stdout, as they are."""

from pathlib import Path
from typing import Annotated

import typer

from bundler.bundle.inspect import BundleReport, read_document
from bundler.bundle.provenance import PROVENANCE
from bundler.bundle.sbom import SBOM

SbomOption = Annotated[
    bool, typer.Option("--sbom", help="Print its list of components: CycloneDX, JSON.")
]
ProvenanceOption = Annotated[
    bool, typer.Option("--provenance", help="Print what it was made of: in-toto, SLSA provenance.")
]


def print_document(bundle: Path, report: BundleReport, *, sbom: bool, provenance: bool) -> bool:
    """Print the document that is asked for; False where none is."""
    for name, is_wanted in ((SBOM, sbom), (PROVENANCE, provenance)):
        if is_wanted:
            print(read_document(bundle, report, name).decode(), end="")
    return sbom or provenance
