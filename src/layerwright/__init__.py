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
    from layerwright.build.base_image_store import BaseImages, open_images
    from layerwright.build.events import (
        BuildDone,
        BuildStarted,
        ContainerStarts,
        Detail,
        Event,
        ImageDone,
        ImageFound,
        ImageStarted,
        Listener,
        Progress,
        StageBuilt,
        StageFailed,
        StageOutput,
        StageReused,
        StageStarted,
        StateKept,
        Warned,
    )
    from layerwright.build.export import Compression
    from layerwright.build.image_tools import DaemonAbsent, NotTaken, ToolFailed
    from layerwright.build.layer_makers import StageFailedError
    from layerwright.build.options import BuildOptions, Cancel, Introspect
    from layerwright.build.plan import Build, BuildPlan, PlannedImage, Reuse, Unknown
    from layerwright.build.report import BuildReport, ImageReport, StageReport, report_of
    from layerwright.build.result import BuildResult, BuiltImage, Exported, Placed
    from layerwright.config.faults import ConfigError, Fault
    from layerwright.config.position import Position
    from layerwright.errors import Cancelled, LayerwrightError, MachineLacks, UsageError
    from layerwright.host.files import DiskFull, NotWritable
    from layerwright.project import Project, open_project
    from layerwright.registry.errors import RegistryError
    from layerwright.storage.image_removal import Freed
    from layerwright.storage.images import StoredImage
    from layerwright.storage.kept_states import KeptState

_WHERE = {
    "BaseImages": "layerwright.build.base_image_store",
    "Build": "layerwright.build.plan",
    "BuildDone": "layerwright.build.events",
    "BuildOptions": "layerwright.build.options",
    "BuildPlan": "layerwright.build.plan",
    "BuildReport": "layerwright.build.report",
    "BuildResult": "layerwright.build.result",
    "BuildStarted": "layerwright.build.events",
    "BuiltImage": "layerwright.build.result",
    "Cancel": "layerwright.build.options",
    "Cancelled": "layerwright.errors",
    "Compression": "layerwright.build.export",
    "ConfigError": "layerwright.config.faults",
    "ContainerStarts": "layerwright.build.events",
    "DaemonAbsent": "layerwright.build.image_tools",
    "Detail": "layerwright.build.events",
    "DiskFull": "layerwright.host.files",
    "Event": "layerwright.build.events",
    "Exported": "layerwright.build.result",
    "Fault": "layerwright.config.faults",
    "Freed": "layerwright.storage.image_removal",
    "ImageDone": "layerwright.build.events",
    "ImageFound": "layerwright.build.events",
    "ImageReport": "layerwright.build.report",
    "ImageStarted": "layerwright.build.events",
    "Introspect": "layerwright.build.options",
    "KeptState": "layerwright.storage.kept_states",
    "LayerwrightError": "layerwright.errors",
    "Listener": "layerwright.build.events",
    "MachineLacks": "layerwright.errors",
    "NotTaken": "layerwright.build.image_tools",
    "NotWritable": "layerwright.host.files",
    "Placed": "layerwright.build.result",
    "PlannedImage": "layerwright.build.plan",
    "Position": "layerwright.config.position",
    "Progress": "layerwright.build.events",
    "Project": "layerwright.project",
    "RegistryError": "layerwright.registry.errors",
    "Reuse": "layerwright.build.plan",
    "StageBuilt": "layerwright.build.events",
    "StageFailed": "layerwright.build.events",
    "StageFailedError": "layerwright.build.layer_makers",
    "StageOutput": "layerwright.build.events",
    "StageReport": "layerwright.build.report",
    "StageReused": "layerwright.build.events",
    "StageStarted": "layerwright.build.events",
    "StateKept": "layerwright.build.events",
    "StoredImage": "layerwright.storage.images",
    "ToolFailed": "layerwright.build.image_tools",
    "Unknown": "layerwright.build.plan",
    "UsageError": "layerwright.errors",
    "Warned": "layerwright.build.events",
    "open_images": "layerwright.build.base_image_store",
    "open_project": "layerwright.project",
    "report_of": "layerwright.build.report",
}

__all__ = [
    "BaseImages",
    "Build",
    "BuildDone",
    "BuildOptions",
    "BuildPlan",
    "BuildReport",
    "BuildResult",
    "BuildStarted",
    "BuiltImage",
    "Cancel",
    "Cancelled",
    "Compression",
    "ConfigError",
    "ContainerStarts",
    "DaemonAbsent",
    "Detail",
    "DiskFull",
    "Event",
    "Exported",
    "Fault",
    "Freed",
    "ImageDone",
    "ImageFound",
    "ImageReport",
    "ImageStarted",
    "Introspect",
    "KeptState",
    "LayerwrightError",
    "Listener",
    "MachineLacks",
    "NotTaken",
    "NotWritable",
    "Placed",
    "PlannedImage",
    "Position",
    "Progress",
    "Project",
    "RegistryError",
    "Reuse",
    "StageBuilt",
    "StageFailed",
    "StageFailedError",
    "StageOutput",
    "StageReport",
    "StageReused",
    "StageStarted",
    "StateKept",
    "StoredImage",
    "ToolFailed",
    "Unknown",
    "UsageError",
    "Warned",
    "__version__",
    "open_images",
    "open_project",
    "report_of",
]


def __getattr__(name: str) -> Any:
    """Names are imported when first used: `import layerwright` alone costs next to nothing (PEP 562)."""
    if name not in _WHERE:
        raise AttributeError(f"module 'layerwright' has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(_WHERE[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
