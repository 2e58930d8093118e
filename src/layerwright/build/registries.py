"""The registries of a run, from what a caller says of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Literal

from layerwright import __version__
from layerwright.registry.client import Registry
from layerwright.registry.hosts import check_mirrors
from layerwright.registry.options import RegistryOptions, Transfer
from layerwright.registry.tuning import tuned


def make_registry(
    env: Mapping[str, str],
    *,
    insecure: bool = False,
    skip_tls_verify: bool = False,
    docker_config: str | None = None,
    mirrors: Sequence[str] = (),
    on_bytes: Callable[[Transfer], None] | None = None,
    on_request: Callable[[str, str, int], None] | None = None,
    on_moved: Callable[[Literal["in", "out"], int], None] | None = None,
    cancelled: Callable[[], bool] | None = None,
) -> Registry:
    """`insecure`: plain HTTP for every host that has no TLS, not only for those of the loopback; `mirrors`: of docker.io, asked first. Raises UsageError.

    How patient to be is in `env` (registry.tuning).
    """
    check_mirrors(mirrors, where="--container-registry-mirror")
    options = RegistryOptions(
        env=env,
        config_dir=docker_config or "",
        insecure=("*",) if insecure else (),
        skip_tls_verify=skip_tls_verify,
        mirrors=tuple(mirrors),
        user_agent=f"layerwright/{__version__}",
        on_bytes=on_bytes,
        on_request=on_request,
        on_moved=on_moved,
        cancelled=cancelled,
    )
    return Registry(tuned(options, env))
