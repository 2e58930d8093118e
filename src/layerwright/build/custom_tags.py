"""Further tags of finished images, from formats with placeholders. Pure. Source: docs/repo.md, "Further tags"."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence

from layerwright.build.slugs import TAG, slug, tag_slug
from layerwright.errors import UsageError
from layerwright.storage.remote_names import OWN_TAG

_WHERE = "--add-custom-tag"
_OF_IMAGE = ("%image%", "%image_slug%", "%image_safe_slug%")
_CONTENT = "%image_content_based_tag%"
_WORD = re.compile(r"%[A-Za-z0-9_]*%")
_STAND_IN = "0" * 56


def check_custom_tags(formats: Sequence[str], images: Iterable[str]) -> None:
    """Before anything is built: raises what `custom_tags` would."""
    custom_tags(formats, [(name, _STAND_IN) for name in images])


def custom_tags(formats: Sequence[str], images: Sequence[tuple[str, str]]) -> Mapping[str, Sequence[str]]:
    """The tags of each image, by name, in the order of the formats. `images`: name and content digest.

    Raises UsageError for an unknown placeholder, for what is no tag or one of ours, and where two images would get one tag.
    """
    made: dict[str, list[str]] = {name: [] for name, _ in images}
    owners: dict[str, str] = {}
    for given in dict.fromkeys(formats):
        _check(given, several=len(images) > 1)
        for name, content in images:
            tag = _filled(given, name, content)
            if owners.setdefault(tag, name) != name:
                what = f"{given!r} is the tag {tag!r} for image {owners[tag] or '~'!r} and for image {name or '~'!r}"
                raise UsageError(what, where=_WHERE, mend="write %image_slug% in it, which differs for each image")
            if tag not in made[name]:
                made[name].append(tag)
    return made


def _check(given: str, *, several: bool) -> None:
    known = (*_OF_IMAGE, _CONTENT)
    unknown = [word for word in _WORD.findall(given) if word not in known]
    if unknown:
        raise UsageError(f"{given!r} has {unknown[0]}, which is no placeholder", where=_WHERE, mend=f"there are: {', '.join(known)}")
    if several and not any(word in given for word in known):
        raise UsageError(f"{given!r} would be the tag of several images", where=_WHERE, mend=f"write one of {', '.join(_OF_IMAGE)} in it, or build one image")


def _filled(given: str, name: str, content: str) -> str:
    values = {"%image%": name, "%image_slug%": slug(name), "%image_safe_slug%": tag_slug(name), _CONTENT: content}
    tag = _WORD.sub(lambda word: values[word[0]], given)
    if not TAG.match(tag):
        mend = "a tag has 1 to 128 letters, digits, '_', '.' and '-'; %image_safe_slug% is one for every image"
        raise UsageError(f"{given!r} is {tag!r} for image {name or '~'!r}, which is not a tag", where=_WHERE, mend=mend)
    if OWN_TAG.match(tag):
        mend = "write something before or behind it: builds write such names themselves, once"
        raise UsageError(f"{given!r} is {tag!r} for image {name or '~'!r}, a name that stages and images have", where=_WHERE, mend=mend)
    return tag
