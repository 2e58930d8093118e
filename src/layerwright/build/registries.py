"""The registries of a run, from what a caller says of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from layerwright import __version__
from layerwright.registry.client import Registry
from layerwright.registry.options import RegistryOptions, Transfer


def make_registry(
    env: Mapping[str, str],
    *,
    insecure: bool = False,
    skip_tls_verify: bool = False,
    docker_config: str | None = None,
    on_bytes: Callable[[Transfer], None] | None = None,
    cancelled: Callable[[], bool] | None = None,
) -> Registry:
    """`insecure`: plain HTTP for every host, not only for those of the loopback."""
    return Registry(
        RegistryOptions(
            env=env,
            config_dir=docker_config or "",
            insecure=("*",) if insecure else (),
            skip_tls_verify=skip_tls_verify,
            user_agent=f"layerwright/{__version__}",
            on_bytes=on_bytes,
            cancelled=cancelled,
        )
    )
