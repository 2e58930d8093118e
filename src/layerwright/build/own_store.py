"""The store of this user, opened with what belongs to who he is: which trees he can use, and how files of mapped owners are removed."""

from __future__ import annotations

from collections.abc import Mapping

from layerwright.errors import UsageError
from layerwright.host.files import remove_tree
from layerwright.limits import limits_of
from layerwright.runtime.flavours import own_flavour
from layerwright.storage.local import LocalStore
from layerwright.storage.paths import default_home


def open_store(home: str | None, env: Mapping[str, str]) -> LocalStore:
    """The store at `home`, or where `env` says. Starts nothing. Raises UsageError."""
    place = home or default_home(env)
    flavour = own_flavour(env.get("PATH", ""))

    def remove(path: str) -> tuple[str, ...]:
        try:
            return remove_tree(path)
        except PermissionError:
            if not flavour.user_namespace:
                raise
        from layerwright.build.tree_calls import remove_owned

        return remove_owned(store, [path])

    try:
        limits = limits_of(env)
    except ValueError as error:
        raise UsageError(f"{error}", mend="write a number, or a size such as 200G; unset it for the usual limit (docs/limits.md)") from None
    store = LocalStore(place, flavour=flavour.name, remove=remove, limits=limits)
    return store
