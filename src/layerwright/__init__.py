"""layerwright: container images from git, without a daemon, nothing built twice.

    import layerwright

    with layerwright.open_project("path/to/project") as project:
        result = project.build(on_event=print)
        for image in result.images:
            print(image.name, image.content_digest, image.rebuilt)

See docs/library.md. Nothing is printed, nothing is global; errors are `LayerwrightError`, with what, where and how to mend it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from layerwright.build.result import BuildResult, BuiltImage
    from layerwright.build.options import BuildOptions, Cancel
    from layerwright.errors import Cancelled, LayerwrightError, MachineLacks, UsageError
    from layerwright.project import Project, open_project

_WHERE = {
    "BuildOptions": "layerwright.build.options",
    "BuildResult": "layerwright.build.result",
    "BuiltImage": "layerwright.build.result",
    "Cancel": "layerwright.build.options",
    "Cancelled": "layerwright.errors",
    "LayerwrightError": "layerwright.errors",
    "MachineLacks": "layerwright.errors",
    "Project": "layerwright.project",
    "UsageError": "layerwright.errors",
    "open_project": "layerwright.project",
}

__all__ = [
    "BuildOptions",
    "BuildResult",
    "BuiltImage",
    "Cancel",
    "Cancelled",
    "LayerwrightError",
    "MachineLacks",
    "Project",
    "UsageError",
    "__version__",
    "open_project",
]


def __getattr__(name: str) -> Any:
    """Names are imported when first used: `import layerwright` alone costs next to nothing (PEP 562)."""
    if name not in _WHERE:
        raise AttributeError(f"module 'layerwright' has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(_WHERE[name]), name)
