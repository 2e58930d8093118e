"""When things were last used, through all that uses them. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from layerwright.storage.inventory import Root
from layerwright.storage.paths import project_folder

DAY_NS = 24 * 3600 * 1_000_000_000


def last_uses(roots: Sequence[Root]) -> dict[str, int]:
    """The last use of every root, by name. A finished image's use is one of its stages, of the images it stands on, and of its base's reference;
    a project's use is one of its build_dir mounts."""
    uses = {root.name: root.last_use_ns for root in roots}
    below = stands_below(roots)
    projects: dict[str, int] = {}
    references: dict[str, list[Root]] = {}
    for root in roots:
        if root.kind == "reference":
            references.setdefault(root.manifest, []).append(root)
    for root in sorted(roots, key=lambda one: -one.last_use_ns):
        for one in below(root):
            uses[one.name] = max(uses[one.name], root.last_use_ns)
        if root.kind in ("image", "stage"):
            for one in references.get(root.manifest, ()) if root.manifest else ():
                uses[one.name] = max(uses[one.name], uses[root.name])
            folder = project_folder(root.project)
            projects[folder] = max(projects.get(folder, 0), uses[root.name])
    for root in roots:
        if root.kind == "build_dir":
            uses[root.name] = max(uses[root.name], projects.get(root.project, 0))
    return uses


def stands_below(roots: Iterable[Root]) -> Callable[[Root], tuple[Root, ...]]:
    """For a finished image: its own stages, the images of the same file that it stands on, and theirs. For all else nothing."""
    images = {root.digest: root for root in roots if root.kind == "image"}
    stages = {root.digest: root for root in roots if root.kind == "stage"}
    known: dict[str, tuple[Root, ...]] = {}

    def below(root: Root) -> tuple[Root, ...]:
        if root.kind != "image":
            return ()
        if root.name not in known:
            known[root.name] = ()  # a circle, which no build makes, ends here
            found = {one.name: one for digest in root.stages if (one := stages.get(digest)) is not None}
            if (base := images.get(root.base)) is not None:
                found |= {one.name: one for one in (base, *below(base))}
            known[root.name] = tuple(found.values())
        return known[root.name]

    return below
