"""The `platform` lists. Source: werf.yaml reference, "platform"; OCI image-spec 1.1 for the names."""

from __future__ import annotations

from collections.abc import Sequence

from layerwright.config.faults import Faults, quoted
from layerwright.config.nodes import Node
from layerwright.config.readers import text
from layerwright.config.schema import Wrong
from layerwright.errors import UsageError
from layerwright.oci.platform import host_platform, parse_platform

LOCAL = "local"  # the host's


def platform_name(node: Node, name: str, faults: Faults) -> str:
    """One item of such a list, normalised; `local` stays as it is."""
    written = text(node, name, faults)
    if written == LOCAL:
        return LOCAL
    if "," in written:
        faults.add(node.position, f"{name} {quoted(written)} holds a comma", "write each platform as an item of the list")
        raise Wrong
    try:
        return str(parse_platform(written))
    except UsageError as error:
        faults.add(node.position, f"{name}: {error.what}", error.mend)
        raise Wrong from error


def effective_platforms(*lists: Sequence[str]) -> tuple[str, ...]:
    """What the first of `lists` that names any platform asks for: each once, in its order; () for the host's alone."""
    written = next(filter(None, lists), ())
    if all(one == LOCAL for one in written):
        return ()
    host = str(host_platform())
    return tuple(dict.fromkeys(host if one == LOCAL else one for one in written))
