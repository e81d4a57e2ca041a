"""The administrator's group, to which a ClusterRoleBinding gives all rights (cluster-admins.yaml).

admin-group        in the state directory: the group, if it was ever replaced
"""

import re

from bundler.errors import PkiError
from bundler.pki.declarations import ADMIN_GROUP
from bundler.state.directory import RESTORE, State

FILE = "admin-group"
GROUP = re.compile(rf"{ADMIN_GROUP}(:\d{{8}}T\d{{6}}Z)?")


def read_admin_group(state: State) -> str:
    """The group of the administrator's certificate."""
    path = state.directory / FILE
    if not path.exists():
        return ADMIN_GROUP
    group = state.read_file(path).decode(errors="replace").strip()
    if not GROUP.fullmatch(group):
        raise PkiError(f"{path}: expected {ADMIN_GROUP}:TIME", hint=RESTORE)
    return group
