"""The `platform` lists. Source: werf.yaml reference, "platform"; OCI image-spec 1.1 for the names."""

from __future__ import annotations

from layerwright.config.faults import Faults, quoted
from layerwright.config.schema import Table
from layerwright.errors import UsageError
from layerwright.oci.platform import parse_platform


def own_platform(keys: Table, faults: Faults) -> str | None:
    """The one platform that `keys` names under "platform", normalised; "" for "local", None if there is none."""
    written: tuple[str, ...] = keys.values.get("platform", ())
    names: list[str] = []
    for one in written:
        if "," in one:
            faults.add(keys.value_at("platform"), f"{keys.shown('platform')} {quoted(one)} holds a comma", "write each platform as an item of the list")
            continue
        try:
            names.append("" if one == "local" else str(parse_platform(one)))
        except UsageError as error:
            faults.add(keys.value_at("platform"), f"{keys.shown('platform')}: {error.what}", error.mend)
    distinct = list(dict.fromkeys(names))
    if len(distinct) > 1:
        faults.unsupported(keys.at("platform"), f"several platforms in {keys.shown('platform')} are", "leave one, and build once for each platform")
    return distinct[0] if distinct else None
