"""The docstring of a package that lists its modules lists all of them."""

import ast
import re
from pathlib import Path

import pytest
from support.paths import PROJECT

ROW = re.compile(r"^(\w+\.py|\w+/)\s", re.MULTILINE)


def read_table(package: Path) -> list[str]:
    docstring = ast.get_docstring(ast.parse((package / "__init__.py").read_text())) or ""
    return ROW.findall(docstring)


PACKAGES = [path.parent for path in sorted((PROJECT / "bundler").rglob("__init__.py"))]
TABLES = [package for package in PACKAGES if read_table(package)]


@pytest.mark.parametrize("package", TABLES, ids=lambda path: str(path.relative_to(PROJECT)))
def test_a_package_lists_all_of_its_modules(package: Path) -> None:
    modules = {path.name for path in package.glob("*.py")} - {"__init__.py"}
    folders = {f"{path.parent.name}/" for path in package.glob("*/__init__.py")}
    assert set(read_table(package)) == modules | folders
