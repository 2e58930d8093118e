"""What a run decides about registries, once for all of them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Literal

Direction = Literal["in", "out"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Transfer:
    """How far one blob has come. `done_bytes` starts again where a transfer has to.

    Of a blob that is made while it is sent, `total_bytes` is 0 until its end, and `digest` "stream:" and 12 hex digits that only this upload has.
    """

    direction: Literal["pull", "push"]
    reference: str
    digest: str
    done_bytes: int
    total_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RegistryOptions:
    """`env` gives DOCKER_CONFIG, REGISTRY_AUTH_FILE, CONTAINERS_REGISTRIES_CONF, HOME, XDG_CONFIG_HOME, XDG_RUNTIME_DIR, PATH (for credential helpers)
    and the proxy variables; nothing else is read from the environment but by OpenSSL (SSL_CERT_FILE, SSL_CERT_DIR).

    Hosts are "host:port", or "host" for any port. "*" among the insecure ones lets any host that does not speak TLS be spoken to without it;
    one that does is spoken to over TLS. `on_bytes` and `on_moved` are called from whichever thread moves the bytes.
    """

    env: Mapping[str, str] = field(default_factory=dict)
    config_dir: str = ""  # Docker's; "" is DOCKER_CONFIG, else ~/.docker
    insecure: Collection[str] = ()  # hosts spoken to over plain HTTP
    tls: Collection[str] = ()  # hosts of the loopback spoken to over TLS; all others are
    skip_tls_verify: bool = False
    mirrors: Collection[str] = ()  # of docker.io: "host", "https://host:port/path"; before those of the settings below
    system_dir: str = "/etc"  # holds docker/daemon.json, docker/certs.d, containers/registries.conf, containers/certs.d
    helper_timeout_s: float = 60.0  # a credential helper may wait for somebody to unlock a key ring
    connect_timeout_s: float = 10.0
    read_timeout_s: float = 60.0
    commit_timeout_s: float = 600.0  # a registry that moves an uploaded blob to its storage may say nothing for minutes
    lowest_speed: int = 1024  # bytes a second, on average over `read_timeout_s`: what is slower counts as standing still
    attempts: int = 6
    first_wait_s: float = 0.5
    longest_wait_s: float = 30.0
    enough_s: float = 900.0  # no further try of one request starts so long after the first; new bytes begin the time anew
    user_agent: str = "layerwright"
    on_bytes: Callable[[Transfer], None] | None = None
    on_moved: Callable[[Direction, int], None] | None = None  # bytes of blobs and manifests, just when they are counted
    on_request: Callable[[str, str, int], None] | None = None  # method, address without secrets, status; from whichever thread asks
    cancelled: Callable[[], bool] | None = None
