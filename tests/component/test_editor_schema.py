"""The schema of cluster.yaml in the programs that read it: check-jsonschema, and editors' YAML server.

yaml-language-server is what VS Code, Neovim, Emacs and others start. It speaks LSP over stdio.
"""

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.command import run_bundler
from support.paths import EXAMPLES, PROJECT

VERSION = "2.0.0"


@pytest.fixture(scope="module")
def schema(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("schema") / "bundler.schema.json"
    path.write_bytes(run_bundler(["schema"]).stdout)
    return path


def check_jsonschema(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [Path(sys.executable).parent / "check-jsonschema", *map(str, arguments)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip


def test_check_jsonschema_accepts_the_schema_and_every_example(schema: Path) -> None:
    assert check_jsonschema("--check-metaschema", schema).returncode == 0
    files = [*EXAMPLES.glob("*.yaml"), PROJECT / "scripts" / "lab.yaml"]
    done = check_jsonschema("--schemafile", schema, *files)
    assert done.returncode == 0, done.stdout


def test_check_jsonschema_names_an_unknown_key(schema: Path, tmp_path: Path) -> None:
    wrong = tmp_path / "cluster.yaml"
    wrong.write_text((EXAMPLES / "single.yaml").read_text().replace("address:", "adress:"))
    done = check_jsonschema("--schemafile", schema, wrong)
    assert done.returncode == 1
    assert "adress" in done.stdout


class YamlServer:
    """A running yaml-language-server."""

    def __init__(self, program: Path) -> None:
        self.process = subprocess.Popen(
            [program, "--stdio"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        self.number = 0
        self.ask("initialize", processId=os.getpid(), rootUri=None, capabilities={})
        self.tell("initialized")

    def send(self, message: dict[str, Any]) -> None:
        body = json.dumps({"jsonrpc": "2.0", **message}).encode()
        assert self.process.stdin
        self.process.stdin.write(b"Content-Length: %d\r\n\r\n" % len(body) + body)
        self.process.stdin.flush()

    def receive(self) -> dict[str, Any]:
        assert self.process.stdout
        length = 0
        while (line := self.process.stdout.readline()) != b"\r\n":
            assert line, "the server ended"
            if line.lower().startswith(b"content-length:"):
                length = int(line.partition(b":")[2])
        found: dict[str, Any] = json.loads(self.process.stdout.read(length))
        return found

    def tell(self, method: str, **parameters: Any) -> None:
        self.send({"method": method, "params": parameters})

    def ask(self, method: str, **parameters: Any) -> Any:
        self.number += 1
        self.send({"id": self.number, "method": method, "params": parameters})
        return self.wait_for(
            lambda message: message.get("id") == self.number and "method" not in message
        )["result"]

    def wait_for(self, wanted: Any, seconds: float = 60) -> dict[str, Any]:
        """The first message that is wanted; requests of the server get an empty answer."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            message = self.receive()
            if wanted(message):
                return message
            if "id" in message and "method" in message:
                items = message.get("params", {}).get("items", [])
                self.send({"id": message["id"], "result": [None for _ in items]})
        raise TimeoutError

    def open(self, path: Path) -> list[dict[str, Any]]:
        """Open a file as an editor does; the faults that it would underline."""
        document = {
            "uri": path.as_uri(),
            "languageId": "yaml",
            "version": 1,
            "text": path.read_text(),
        }
        self.tell("textDocument/didOpen", textDocument=document)
        message = self.wait_for(
            lambda m: (
                m.get("method") == "textDocument/publishDiagnostics"
                and m["params"]["uri"] == path.as_uri()
            )
        )
        found: list[dict[str, Any]] = message["params"]["diagnostics"]
        return found

    def complete(self, path: Path, line: int, character: int) -> list[str]:
        """The words that it offers at a place."""
        answer = self.ask(
            "textDocument/completion", textDocument={"uri": path.as_uri()},
            position={"line": line, "character": character},
        )  # fmt: skip
        return [item["label"] for item in answer["items"]]

    def hover(self, path: Path, line: int, character: int) -> str:
        answer = self.ask(
            "textDocument/hover", textDocument={"uri": path.as_uri()},
            position={"line": line, "character": character},
        )  # fmt: skip
        return str(answer["contents"]["value"])


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[YamlServer]:
    directory = tmp_path_factory.mktemp("yaml-server")
    if not shutil.which("node") or not shutil.which("npm"):
        pytest.skip("editors' YAML server cannot run: there is no node or npm")
    done = subprocess.run(
        ["npm", "install", "--no-audit", "--no-fund", "--ignore-scripts", f"yaml-language-server@{VERSION}"],
        cwd=directory, capture_output=True, text=True, check=False, timeout=300,
    )  # fmt: skip
    if done.returncode:
        pytest.skip("editors' YAML server cannot run: npm cannot install it")
    started = YamlServer(directory / "node_modules" / ".bin" / "yaml-language-server")
    yield started
    with started.process:  # closes its pipes
        started.process.kill()


@pytest.fixture
def written(tmp_path: Path) -> Path:
    """A cluster.yaml as `bundler init` writes it, next to its schema."""
    run_bundler(
        ["init", "--control-plane", "192.0.2.10", "--os", "debian-12"], cwd=tmp_path, check=True
    )
    return tmp_path / "cluster.yaml"


def underlined(path: Path, diagnostics: list[dict[str, Any]]) -> list[str]:
    """The texts that the diagnostics underline."""
    lines = path.read_text().splitlines()
    ranges = [diagnostic["range"] for diagnostic in diagnostics]
    return [
        lines[r["start"]["line"]][r["start"]["character"] : r["end"]["character"]] for r in ranges
    ]


def test_an_editor_underlines_nothing_in_what_init_writes(
    server: YamlServer, written: Path
) -> None:
    assert server.open(written) == []


@pytest.mark.parametrize("name", [path.stem for path in EXAMPLES.glob("*.yaml")])
def test_an_editor_underlines_nothing_in_an_example(
    server: YamlServer, tmp_path: Path, name: str
) -> None:
    run_bundler(["init", "--example", name], cwd=tmp_path, check=True)
    assert server.open(tmp_path / "cluster.yaml") == []


@pytest.mark.parametrize(
    ("right", "wrong", "word"),
    [
        ("address: 192", "adress: 192", "adress"),
        ("service_cidr:", "servic_cidr:", "servic_cidr"),
        ("apiVersion", "kind: Cluster\napiVersion", "kind"),
        ("{engine: containerd}", "{engine: containerd, data_rot: /data}", "data_rot"),
        ("images:", "extra: {kubelet: {flags: {docker-tls: true}}}\nimages:", "docker-tls"),
    ],
)
def test_an_editor_underlines_an_unknown_key(
    server: YamlServer, written: Path, right: str, wrong: str, word: str
) -> None:
    written.write_text(written.read_text().replace(right, wrong, 1))
    assert word in " ".join(underlined(written, server.open(written)))


def test_an_editor_offers_keys_and_shows_their_descriptions(
    server: YamlServer, written: Path
) -> None:
    written.write_text(written.read_text() + "\n")
    server.open(written)
    end = written.read_text().count("\n") - 1
    assert {"etcd", "audit", "pki"} <= set(server.complete(written, end, 0))
    line = next(
        n
        for n, text in enumerate(written.read_text().splitlines())
        if "pod_cidr" in text and text.startswith("  ")
    )
    assert "range of the pods' addresses" in server.hover(written, line, 4)
