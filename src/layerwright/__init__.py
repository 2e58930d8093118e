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
    from layerwright.build.options import BuildOptions, Cancel
    from layerwright.build.plan import Build, BuildPlan, PlannedImage, Reuse, Unknown
    from layerwright.build.result import BuildResult, BuiltImage
    from layerwright.errors import Cancelled, LayerwrightError, MachineLacks, UsageError
    from layerwright.project import Project, open_project

_WHERE = {
    "Build": "layerwright.build.plan",
    "BuildOptions": "layerwright.build.options",
    "BuildPlan": "layerwright.build.plan",
    "BuildResult": "layerwright.build.result",
    "BuiltImage": "layerwright.build.result",
    "Cancel": "layerwright.build.options",
    "Cancelled": "layerwright.errors",
    "LayerwrightError": "layerwright.errors",
    "MachineLacks": "layerwright.errors",
    "PlannedImage": "layerwright.build.plan",
    "Project": "layerwright.project",
    "Reuse": "layerwright.build.plan",
    "Unknown": "layerwright.build.plan",
    "UsageError": "layerwright.errors",
    "open_project": "layerwright.project",
}

__all__ = [
    "Build",
    "BuildOptions",
    "BuildPlan",
    "BuildResult",
    "BuiltImage",
    "Cancel",
    "Cancelled",
    "LayerwrightError",
    "MachineLacks",
    "PlannedImage",
    "Project",
    "Reuse",
    "Unknown",
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
