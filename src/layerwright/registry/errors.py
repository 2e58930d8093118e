"""What can go wrong with a registry, one class for each thing a caller may want to catch."""

from __future__ import annotations

from layerwright.errors import LayerwrightError
from layerwright.oci.platform import Platform


class RegistryError(LayerwrightError):
    """A registry refused, or answered what cannot be.

    `tries`: how often in all the same request is worth sending; `retry_after_s`: the pause the registry asked for; `status` of its answer and
    `said`, its own words: 0 and "" without one.
    """

    def __init__(self, what: str, *, where: str = "", mend: str = "", tries: int = 1, retry_after_s: float | None = None) -> None:
        super().__init__(what, where=where, mend=mend)
        self.tries = tries
        self.retry_after_s = retry_after_s
        self.status = 0
        self.said = ""
        self.is_counted = False  # `what` says how often it was tried


class NotFound(RegistryError):
    """The registry answers, and does not have it."""


class Unauthorized(RegistryError):
    """No login, a refused one, or one that does not reach this far. Some registries answer so for what does not exist."""


class Unreachable(RegistryError):
    """No usable answer now: no connection, a cut one, or a registry that is overloaded or broken. Another time may do."""


class NameTaken(RegistryError):
    """The name stands for another manifest already, and the registry moves no name."""


class BlobsMissing(RegistryError):
    """A manifest was refused because the registry lacks something it refers to: whoever sends that again may push the manifest then."""


class ChunksRefused(RegistryError):
    """The registry takes no blob in chunks, or loses it again and again: it has to be sent whole, so its digest and size must be known first."""


class NoTls(RegistryError):
    """A server that was spoken to over TLS, and speaks plain HTTP."""


class WrongBytes(RegistryError):
    """Bytes that are not those of the digest or the size they were asked by."""


class NoSuchPlatform(RegistryError):
    """The image exists, but not for the platform that is wanted; `offered` are those it exists for."""

    def __init__(self, what: str, *, where: str = "", mend: str = "", offered: tuple[Platform, ...] = ()) -> None:
        super().__init__(what, where=where, mend=mend)
        self.offered = offered
