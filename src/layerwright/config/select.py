"""Which images a command is about. Source: werf.yaml reference, "Selecting images on the command line"."""

from __future__ import annotations

import re
from collections.abc import Sequence

from layerwright.config.faults import suggestion
from layerwright.config.model import Config
from layerwright.errors import UsageError
from layerwright.globs import BadGlob, expression

_LONGEST = 100
_FORBIDDEN = re.compile(r"\*\*|[&$|]")


def select_images(config: Config, patterns: Sequence[str], *, final_only: bool = False) -> tuple[str, ...]:
    """The names that `patterns` choose, in the file's order. "~" is the nameless image, "!" before a pattern leaves its images out.

    Without patterns, or with exclusions alone, all are chosen. An image that is named in full stays, whatever is excluded.
    `final_only` chooses among final images only. Raises UsageError.
    """
    offered = [image.shown for image in config.images if image.final or not final_only]
    includes = [one for one in patterns if not one.startswith("!")]
    chosen = {name for one in includes for name in _matching(one, offered, config)} if includes else set(offered)
    excluded = {name for one in patterns if one.startswith("!") for name in offered if _expression(one[1:]).fullmatch(name)}
    kept = (chosen - excluded) | (chosen & set(includes))
    return tuple(image.name for image in config.images if image.shown in kept)


def _matching(pattern: str, offered: Sequence[str], config: Config) -> set[str]:
    found = {name for name in offered if _expression(pattern).fullmatch(name)}
    if found:
        return found
    if any(_expression(pattern).fullmatch(image.shown) for image in config.images):
        raise UsageError(f"{pattern!r} names no final image", where=config.file, mend='take "final: false" out of its section, or name another image')
    meant = suggestion(pattern, offered)
    mend = f"did you mean {meant!r}? " if meant else ""
    raise UsageError(f"no image is named {pattern!r}", where=config.file, mend=f"{mend}there are: {', '.join(offered) or 'none'}")


def _expression(pattern: str) -> re.Pattern[str]:
    """The pattern of one path component; `*` does not reach over a slash."""
    mend = "write a name, or a pattern with *, ? and [a-z]"
    if len(pattern) > _LONGEST:
        raise UsageError(f"the image pattern {pattern[:20]!r}… is longer than {_LONGEST} characters", mend=mend)
    if forbidden := _FORBIDDEN.search(pattern):
        raise UsageError(f"{forbidden[0]!r} is not allowed in the image pattern {pattern!r}", mend=mend)
    try:
        return expression(pattern, braces=False)
    except BadGlob as error:
        raise UsageError(f"{pattern!r} is not an image pattern: {error}", mend=mend) from error
