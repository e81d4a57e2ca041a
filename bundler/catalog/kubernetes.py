"""Where Kubernetes' programs come from: the server's archive, or one file for each program."""

from collections.abc import Collection

from bundler.catalog import KUBERNETES_ARCHIVE, KUBERNETES_PROGRAMS, find_artifact

MEMBERS = {f"kubernetes/server/bin/{program}": program for program in KUBERNETES_PROGRAMS}
"""Member of the archive → the component that is the same program alone."""


def choose_file(
    component: str, member: str, version: str, arch: str, pinned: Collection[str]
) -> tuple[str, str]:
    """Return the component and member that a program is taken from.

    `component` and `member` are its place in an archive. `pinned` are the components that the user
    pins for the architecture: such a program is taken alone, and such an archive before programs
    of the catalog. Otherwise an archive with a built-in pin is taken, then single programs if
    each has a pin. Without any pin it is the archive, which `bundler lock` can fetch.
    """
    program = MEMBERS.get(member) if component == KUBERNETES_ARCHIVE else None
    if program is None:
        return component, member
    if program in pinned:
        return program, ""
    if KUBERNETES_ARCHIVE in pinned or find_artifact(KUBERNETES_ARCHIVE, version, arch):
        return component, member
    is_complete = all(
        name in pinned or find_artifact(name, version, arch) for name in KUBERNETES_PROGRAMS
    )
    return (program, "") if is_complete else (component, member)


def archive_of(component: str) -> str:
    """Return the archive that also contains a component's program, or the component itself."""
    return KUBERNETES_ARCHIVE if component in KUBERNETES_PROGRAMS else component
