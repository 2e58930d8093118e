"""Platforms. Source: OCI image-spec 1.1, image-index.md "platform"."""

from __future__ import annotations

import os
from dataclasses import dataclass

from layerwright.errors import UsageError

_ARCHITECTURES = {"x86_64": "amd64", "x86-64": "amd64", "aarch64": "arm64", "armhf": "arm", "armel": "arm", "i386": "386", "i686": "386"}


@dataclass(frozen=True, slots=True, order=True)
class Platform:
    """`os`/`architecture`[/`variant`], in Go's words: linux/amd64, linux/arm/v7."""

    os: str
    architecture: str
    variant: str = ""

    def __str__(self) -> str:
        return f"{self.os}/{self.architecture}" + (f"/{self.variant}" if self.variant else "")


def parse_platform(text: str) -> Platform:
    """`text` as OS/ARCH[/VARIANT], architecture names normalised. Raises UsageError."""
    parts = text.strip().lower().split("/")
    if len(parts) not in (2, 3) or not all(parts):
        raise UsageError(f"{text!r} is not a platform", mend="write OS/ARCH or OS/ARCH/VARIANT, for example linux/amd64")
    architecture = _ARCHITECTURES.get(parts[1], parts[1])
    variant = parts[2] if len(parts) == 3 else ""
    if architecture == "arm64" and variant == "v8":
        variant = ""
    if parts[1] == "armhf" and not variant:
        variant = "v7"
    return Platform(parts[0], architecture, variant)


def host_platform() -> Platform:
    machine = os.uname().machine
    return parse_platform(f"linux/arm/{machine[3:5]}" if machine.startswith("armv") else f"linux/{machine}")


def suits(wanted: Platform, offered: Platform) -> bool:
    """Whether an image for `offered` is one for `wanted`; an offer without variant suits every variant."""
    if (wanted.os, wanted.architecture) != (offered.os, offered.architecture):
        return False
    return wanted.variant == offered.variant or not offered.variant or not wanted.variant
