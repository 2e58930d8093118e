"""Image references. Source: OCI distribution-spec 1.1 "Pulling manifests", and Docker's rules for short names."""

from __future__ import annotations

import re
from dataclasses import dataclass

from layerwright.errors import UsageError
from layerwright.oci.digest import BlobDigest

_COMPONENT = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_REPOSITORY = re.compile(rf"{_COMPONENT}(?:/{_COMPONENT})*\Z")
_HOST = re.compile(r"(?:[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?(?:\.[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?)*|\[[0-9a-fA-F:]+\])(?::[0-9]+)?\Z")
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}\Z")
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}\Z")
_LOGIN = re.compile(r"\A.*:.*@(?!sha\d+:)", re.DOTALL)


@dataclass(frozen=True, slots=True, kw_only=True)
class Reference:
    """One name of an image: `registry` "docker.io" or "host:port", `repository` "library/alpine", and a tag, a digest, or both."""

    registry: str
    repository: str
    tag: str | None = None
    digest: BlobDigest | None = None

    def __str__(self) -> str:
        tag = f":{self.tag}" if self.tag else ""
        digest = f"@{self.digest}" if self.digest else ""
        return f"{self.registry}/{self.repository}{tag}{digest}"

    @property
    def name(self) -> str:
        return f"{self.registry}/{self.repository}"

    @property
    def version(self) -> str:
        """What a registry is asked for: the digest if there is one, else the tag."""
        return self.digest or self.tag or "latest"


def parse_reference(text: str, *, where: str = "") -> Reference:
    """`text` as Docker reads it: `alpine` is docker.io/library/alpine:latest. Raises UsageError."""

    def refuse(reason: str) -> UsageError:
        return UsageError(
            f"{without_login(text)!r} is not an image reference: {reason}",
            where=where,
            mend="write NAME, NAME:TAG or NAME@sha256:DIGEST, with the registry's host in front if it is not Docker Hub",
        )

    rest, at, digest = text.partition("@")
    if at and not _DIGEST.match(digest):
        raise refuse("what follows @ must be sha256: and 64 hex digits")
    head, slash, tail = rest.rpartition("/")
    name, colon, tag = tail.partition(":")
    if colon and not _TAG.match(tag):
        raise refuse("a tag has 1 to 128 letters, digits, '_', '.' and '-'")
    path = head + slash + name
    first, has_host, remainder = path.partition("/")
    if has_host and ("." in first or ":" in first or first == "localhost" or first.startswith("[")):
        registry, repository = first, remainder
    else:
        registry, repository = "docker.io", path
    if registry == "index.docker.io":
        registry = "docker.io"
    if registry == "docker.io" and "/" not in repository:
        repository = f"library/{repository}"
    if not _HOST.match(registry):
        raise refuse(f"{registry!r} is not a host name")
    if not _REPOSITORY.match(repository) or len(repository) > 255:
        raise refuse("a repository has lower-case letters, digits, '.', '_', '-' and '/'")
    return Reference(registry=registry, repository=repository, tag=tag or (None if digest else "latest"), digest=BlobDigest(digest) if digest else None)


def without_login(text: str) -> str:
    """`text`, refused as a reference, as it may be shown: somebody wrote USER:PASSWORD@HOST."""
    return _LOGIN.sub("***@", text)


def has_version(text: str) -> bool:
    """Whether `text` names a tag or a digest itself."""
    return "@" in text or ":" in text.rpartition("/")[2]
