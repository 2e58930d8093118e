"""An authority of the tests' own, and the certificates it signs. Made by openssl, valid for two days."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path

from tests.support.machine import find_program


@dataclass(frozen=True, slots=True, kw_only=True)
class Certificate:
    """`path` and `key` are files in PEM form."""

    path: Path
    key: Path


class Authority:
    """A certificate authority in a directory; `path` is what to trust."""

    def __init__(self, directory: Path, name: str = "tests") -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self._directory = directory
        self.path = directory / "ca.crt"
        self._key = directory / "ca.key"
        _openssl("req", "-x509", *_NEW_KEY, "-subj", f"/CN=authority {name}", "-days", "2", "-keyout", self._key, "-out", self.path)

    def certificate(self, name: str, *addresses: str) -> Certificate:
        """A new one, for host names and "IP:..." `addresses`; without any it is a client's."""
        made = Certificate(path=self._directory / f"{name}.crt", key=self._directory / f"{name}.key")
        request, more = self._directory / f"{name}.csr", self._directory / f"{name}.ext"
        names = ",".join(one if one.startswith("IP:") else f"DNS:{one}" for one in addresses)
        more.write_text(f"subjectAltName={names}\n" if names else "extendedKeyUsage=clientAuth\n")
        _openssl("req", *_NEW_KEY, "-subj", f"/CN={name}", "-keyout", made.key, "-out", request)
        _openssl("x509", "-req", "-in", request, "-CA", self.path, "-CAkey", self._key, "-CAcreateserial", "-days", "2", "-extfile", more, "-out", made.path)
        return made


_NEW_KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")


def _openssl(*arguments: str | Path) -> None:
    subprocess.run((find_program("openssl"), *map(str, arguments)), stdin=subprocess.DEVNULL, check=True, capture_output=True)
