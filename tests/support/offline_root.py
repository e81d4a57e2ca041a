"""An external PKI that uses the openssl command line: a root, intermediate CAs, signatures."""

import re
import shlex
import subprocess
from pathlib import Path

CONSTRAINTS = "basicConstraints=critical,CA:TRUE"
SIGNS = "keyUsage=critical,keyCertSign,cRLSign"


def openssl(*words: str | Path, cwd: Path | None = None) -> str:
    done = subprocess.run(
        ["openssl", *map(str, words)], capture_output=True, text=True, check=False, cwd=cwd
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


class OfflineRoot:
    """A root CA in a directory, with the files NAME.crt and NAME.key."""

    def __init__(
        self, directory: Path, name: str = "root", subject: str = "/O=Bank/CN=Bank Root",
        days: int = 7300,
    ) -> None:  # fmt: skip
        directory.mkdir(parents=True, exist_ok=True)
        self.directory = directory
        self.file = directory / f"{name}.crt"
        openssl(
            "req", "-x509", "-new", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-384",
            "-nodes", "-keyout", self.file.with_suffix(".key"), "-out", self.file, "-days", str(days),
            "-subj", subject, "-addext", CONSTRAINTS, "-addext", SIGNS,
        )  # fmt: skip

    @classmethod
    def load(cls, directory: Path, name: str = "root") -> "OfflineRoot":
        """Open an existing root."""
        root = cls.__new__(cls)
        root.directory, root.file = directory, directory / f"{name}.crt"
        return root

    def issue_ca(
        self, name: str, *, issuer: Path | None = None, extensions: str = "", key: str = "ec",
        days: int = 3650,
    ) -> Path:  # fmt: skip
        """Issue an intermediate CA: name.crt and name.key."""
        lines = extensions or f"{CONSTRAINTS},pathlen:0\n{SIGNS}"
        return self.issue(name, f"/O=Bank/CN={name}", lines, issuer=issuer, key=key, days=days)

    def issue(
        self, name: str, subject: str, extensions: str, *, issuer: Path | None = None,
        key: str = "ec", days: int = 365,
    ) -> Path:  # fmt: skip
        """Issue a certificate with a new key."""
        base, issuer = self.directory / name, issuer or self.file
        kind = {
            "ec": ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"],
            "p384": ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-384"],
            "p521": ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-521"],
            "ed25519": ["-newkey", "ed25519"],
        }.get(key, ["-newkey", key])
        openssl(
            "req", "-new", *kind, "-nodes", "-keyout", f"{base}.key", "-out", f"{base}.csr",
            "-subj", subject,
        )  # fmt: skip
        return self.sign(Path(f"{base}.csr"), extensions, issuer=issuer, days=days)

    def sign(
        self, request: Path, extensions: str, *, issuer: Path | None = None, days: int = 365
    ) -> Path:
        """Sign a request; the certificate is in the same directory."""
        issuer = issuer or self.file
        file = request.with_suffix(".conf")
        file.write_text(f"subjectKeyIdentifier=hash\nauthorityKeyIdentifier=keyid\n{extensions}\n")
        openssl(
            "x509", "-req", "-in", request, "-CA", issuer, "-CAkey", issuer.with_suffix(".key"),
            "-CAcreateserial", "-days", str(days), "-extfile", file,
            "-out", request.with_suffix(".crt"),
        )  # fmt: skip
        return request.with_suffix(".crt")

    def follow(self, requests: Path, **signers: Path) -> None:
        """Run the commands of README.txt unchanged, with the paths of the signers filled in."""
        text = (requests / "README.txt").read_text()
        lines = [
            line for line in text.splitlines() if re.match(r"openssl |[A-Z_]+=/path/to/", line)
        ]
        script = ["set -eu"]
        for line in lines:
            variable = re.match(r"([A-Z_]+?)(_KEY)?=", line)
            if variable:
                file = signers[variable[1].lower()]
                file = file.with_suffix(".key") if variable[2] else file
                script.append(f"{variable[0]}{shlex.quote(str(file))}")
            else:
                script.append(line)
        done = subprocess.run(
            ["sh", "-c", "\n".join(script)],
            capture_output=True,
            text=True,
            check=False,
            cwd=requests,
        )
        assert done.returncode == 0, done.stderr
