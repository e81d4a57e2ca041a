"""The OS packages of a node, as files of its bundle."""

from collections.abc import Iterator

from bundler.cluster.os_packages import name_of, release_of, wanted_pairs
from bundler.cluster.plan import ClusterPlan, NodePlan
from bundler.errors import ArtifactError
from bundler.render.tree import File
from bundler.sources.packages.files import render_list, select_files
from bundler.sources.payloads import PackageFiles

DIRECTORY = "packages"
LIST = f"{DIRECTORY}/LIST"


def make_package_files(plan: ClusterPlan, node: NodePlan, files: PackageFiles) -> Iterator[File]:
    """Yield the package files for the node, and the list from which install.sh installs them.

    Raises ArtifactError if the file of a package is missing.
    """
    release = release_of(plan, node)
    mine = tuple(
        file for file in files.files if file.arch in {node.arch, "all"} and file.release == release
    )
    pairs = wanted_pairs(plan, node, tuple(file.name for file in mine))
    names = [name_of(pair) for pair in pairs]
    if missing := sorted(set(names) - {file.name for file in mine}):
        raise ArtifactError(
            f"{node.name}: no file for the packages {', '.join(missing)} ({node.arch})",
            hint="put the files into packages.dir, or remove the packages from packages.names",
        )
    chosen = select_files(names, mine)
    if not chosen:
        return
    text = render_list(chosen, pairs)
    yield File(path=LIST, mode=0o644, content=text.encode(), origin="packages")
    for file in chosen:
        origin = f"package {file.name} {file.version} ({file.arch})"
        path = f"{DIRECTORY}/{file.file_name}"
        yield File(path=path, mode=0o644, content=files.payload(file), origin=origin)
