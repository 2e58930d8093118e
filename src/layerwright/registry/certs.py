"""Which certificates are trusted and shown, for each host: the system's trust, and the certs.d directories that Docker and Podman share.

Source: Docker, "Verify repository client with certificates"; containers-certs.d(5).
"""

from __future__ import annotations

import os
import ssl
import threading
from collections.abc import Mapping
from dataclasses import dataclass

from layerwright.errors import UsageError
from layerwright.registry.config_files import below, user_config_dir


@dataclass(frozen=True, slots=True, kw_only=True)
class HostCertificates:
    """The files of one host's directory: authorities to trust besides the system's, and (certificate, key) to show."""

    authorities: tuple[str, ...] = ()
    clients: tuple[tuple[str, str], ...] = ()


def cert_directories(env: Mapping[str, str], system_dir: str) -> tuple[str, ...]:
    """Where a directory for a host may lie; the first that has one is taken."""
    own = user_config_dir(env)
    system = (os.path.join(system_dir, "containers", "certs.d"), os.path.join(system_dir, "docker", "certs.d"))
    return (*below(own, "containers", "certs.d"), *below(own, "docker", "certs.d"), *system)


def host_directory(host: str, env: Mapping[str, str], system_dir: str) -> str:
    """The directory of "host" or "host:port", "" if there is none; port 443 may be left out of its name."""
    names = (host, host.removesuffix(":443")) if host.endswith(":443") else (host, f"{host}:443") if ":" not in host else (host,)
    paths = (os.path.join(directory, name) for directory in cert_directories(env, system_dir) for name in names)
    return next((path for path in paths if os.path.isdir(path)), "")


def read_directory(path: str) -> HostCertificates:
    """NAME.crt are authorities, NAME.cert with NAME.key a client's. Raises UsageError for half a pair, or a directory that cannot be read."""
    try:
        names = sorted(os.listdir(path))
    except OSError as error:
        raise UsageError(f"cannot read the certificates: {error.strerror}", where=path, mend="make the directory readable, or remove it") from error
    for name in names:
        stem, dot, kind = name.rpartition(".")
        if dot and kind == "cert" and f"{stem}.key" not in names:
            mend = f"put the key beside it as {stem}.key; a certificate of an authority is to end in .crt"
            raise UsageError(f"the client certificate {name} has no key", where=path, mend=mend)
        if dot and kind == "key" and f"{stem}.cert" not in names:
            raise UsageError(f"the key {name} has no client certificate", where=path, mend=f"put the certificate beside it as {stem}.cert")
    return HostCertificates(
        authorities=tuple(os.path.join(path, name) for name in names if name.endswith(".crt")),
        clients=tuple((os.path.join(path, name), os.path.join(path, f"{name[:-5]}.key")) for name in names if name.endswith(".cert")),
    )


class Trust:
    """TLS settings by host. Thread-safe. One that costs 19 ms serves all hosts without a directory of their own."""

    def __init__(self, env: Mapping[str, str], system_dir: str) -> None:
        self._env = env
        self._system_dir = system_dir
        self._guard = threading.Lock()
        self._contexts: dict[tuple[str, bool], ssl.SSLContext] = {}
        self._directories: dict[str, str] = {}

    def directory(self, host: str) -> str:
        with self._guard:
            if host not in self._directories:
                self._directories[host] = host_directory(host.lower(), self._env, self._system_dir)
            return self._directories[host]

    def context(self, host: str, *, verify: bool) -> ssl.SSLContext:
        """For "host" or "host:port". Raises UsageError, naming the file that cannot be used."""
        directory = self.directory(host)
        with self._guard:
            if (context := self._contexts.get((directory, verify))) is None:
                context = self._contexts[directory, verify] = _new_context(directory, verify=verify)
            return context


def _new_context(directory: str, *, verify: bool) -> ssl.SSLContext:
    context = ssl.create_default_context()  # the system's trust; SSL_CERT_FILE and SSL_CERT_DIR are read by the library itself
    # As Go's tools do: an authority that somebody named is taken as it is, however its extensions were filled in and whoever signed it.
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    if not verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    found = read_directory(directory) if directory else HostCertificates()
    for path in found.authorities:
        try:
            context.load_verify_locations(cafile=path)
        except OSError as error:  # ssl.SSLError is one, too
            raise _unusable(path, error, "a certificate in PEM form") from error
    for certificate, key in found.clients:
        try:
            context.load_cert_chain(certificate, key, password=_refuse_to_ask)
        except (OSError, ValueError) as error:
            raise _unusable(certificate, error, f"a certificate and its key ({os.path.basename(key)}, without a passphrase) in PEM form") from error
    return context


def _refuse_to_ask() -> str:
    """OpenSSL would ask for a passphrase on the terminal, in the middle of a build."""
    raise ValueError("the key has a passphrase")


def _unusable(path: str, error: Exception, wanted: str) -> UsageError:
    said = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return UsageError(f"cannot use the certificate: {said}", where=path, mend=f"put {wanted} there, or remove the file")
