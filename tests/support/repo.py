"""What tests of a repository that keeps stages ask of its registry: over HTTP and by its own log, never through our own code."""

from __future__ import annotations

import hashlib
import json
import re
import urllib.request
from dataclasses import dataclass
from typing import Any

from tests.support.registry_server import RegistryServer

NAMES = re.compile(r"(?:(?:stage-|record-)?[0-9a-f]{56}|index-[0-9a-f]{64})\Z")
_REQUEST = re.compile(r'"(GET|HEAD|POST|PUT|PATCH|DELETE) (/v2/\S*) HTTP/1\.1" (\d+)')


@dataclass(frozen=True, slots=True)
class Asked:
    """One request that a registry answered."""

    method: str
    path: str
    status: int

    def __str__(self) -> str:
        return f"{self.method} {self.path} {self.status}"


class Requests:
    """The requests that a registry answers from now on; `repository` narrows them to one."""

    def __init__(self, registry: RegistryServer, repository: str = "") -> None:
        self._registry = registry
        self._prefix = f"/v2/{repository}/" if repository else "/v2/"
        self._begin = len(registry.log)

    @property
    def all(self) -> list[Asked]:
        found = [Asked(method, path, int(status)) for method, path, status in _REQUEST.findall(self._registry.log[self._begin :])]
        return [one for one in found if one.path.startswith(self._prefix)]

    def of(self, method: str, path: str = "") -> list[Asked]:
        """Those of a method whose path holds the regular expression."""
        return [one for one in self.all if one.method == method and re.search(path, one.path)]


def got(registry: RegistryServer, path: str, *accepted: str) -> bytes:
    """What the registry answers."""
    headers = {"Accept": ", ".join(accepted)} if accepted else {}
    with urllib.request.urlopen(urllib.request.Request(f"http://{registry.address}{path}", headers=headers)) as answer:
        content: bytes = answer.read()
    return content


def tags(registry: RegistryServer, repository: str) -> list[str]:
    return sorted(json.loads(got(registry, f"/v2/{repository}/tags/list"))["tags"])


def manifest(registry: RegistryServer, repository: str, tag: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(_manifest_bytes(registry, repository, tag))
    return found


def manifest_digest(registry: RegistryServer, repository: str, tag: str) -> str:
    return "sha256:" + hashlib.sha256(_manifest_bytes(registry, repository, tag)).hexdigest()


def _manifest_bytes(registry: RegistryServer, repository: str, tag: str) -> bytes:
    return got(registry, f"/v2/{repository}/manifests/{tag}", "application/vnd.oci.image.manifest.v1+json", "application/vnd.oci.image.index.v1+json")


def names_in(stdout: str) -> dict[str, tuple[str, str]]:
    """What `build` printed of its images: by name the full name and the digest of the manifest."""
    return {name: (full, digest) for name, full, digest in re.findall(r"^Image (\S+)  (\S+)@(sha256:[0-9a-f]{64})$", stdout, re.MULTILINE)}
