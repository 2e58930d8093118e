"""Finished images where else they were asked to be: in the final repository, and under further tags."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace

from layerwright.build.custom_tags import custom_tags
from layerwright.build.repositories import Repositories
from layerwright.build.result import BuildResult, BuiltImage, Placed
from layerwright.build.run import NotBuilt, how_to_build
from layerwright.build.session import Session
from layerwright.oci.digest import BlobDigest
from layerwright.storage.remote import RemoteStore


def place(session: Session, repositories: Repositories, result: BuildResult, asked_for: Collection[str]) -> BuildResult:
    """`result` with the final images copied, and those of them that were asked for tagged.

    Raises UsageError, RegistryError, MissingBlob, and NotBuilt where nothing may be made now and something is not there.
    """
    final = [image for image in result.images if image.final]
    tags = custom_tags(session.options.custom_tags, [(image.name, image.content_digest) for image in final if image.name in asked_for])
    made = {image.name: _placed(session, repositories, image, tags.get(image.name, ())) for image in final}
    moved = session.traffic()
    return replace(
        result,
        images=tuple(made.get(image.name, image) for image in result.images),
        pulled_bytes=moved.bytes_in,
        pushed_bytes=moved.bytes_out,
        requests=moved.requests,
    )


def _placed(session: Session, repositories: Repositories, image: BuiltImage, tags: Sequence[str]) -> BuiltImage:
    assert image.placed is not None, "images of a repository are placed"
    there, placed = repositories.primary, image.placed
    if repositories.final is not None:
        there, placed = repositories.final, _in_final(session, repositories.primary, repositories.final, image, placed)
    for tag in tags:
        _tag(session, there, image, placed, tag)
    return replace(image, placed=placed, custom_tags=tuple(tags))


def find_final(repositories: Repositories, image: BuiltImage) -> BuiltImage | None:
    """A finished image as it is called in the final repository, where there is one; None if it is not there."""
    if repositories.final is None or not image.final:
        return image
    there = repositories.final.has_image(image.content_digest)
    return replace(image, placed=Placed(repositories.final.name, image.content_digest, there)) if there is not None else None


def _in_final(session: Session, primary: RemoteStore, final: RemoteStore, image: BuiltImage, placed: Placed) -> Placed:
    there = final.has_image(placed.tag)
    if there is None:
        if session.options.require_built:
            what = f"image {image.name or '~'!r}, {placed.tag}, is not in the final repository {final.name}"
            raise NotBuilt(what, where="--require-built-images", mend=f"run first: {how_to_build(session, [image.name or '~'])} --final-repo {final.name}")
        there = final.copy_image(primary, placed.tag, BlobDigest(placed.manifest))
    return Placed(final.name, placed.tag, there)


def _tag(session: Session, there: RemoteStore, image: BuiltImage, placed: Placed, tag: str) -> None:
    """Let the tag name the image, in place of what it named before."""
    named = there.named(tag)
    if named == placed.manifest:
        return
    if session.options.require_built:
        what = f"the tag {tag} of {there.name} names {named or 'nothing'}, not image {image.name or '~'!r}, {placed.manifest}"
        final = "" if there.name == session.tiers.repository else f" --final-repo {there.name}"
        mend = f"run first: {how_to_build(session, [image.name or '~'])}{final} --add-custom-tag {tag}"
        raise NotBuilt(what, where="--add-custom-tag, --require-built-images", mend=mend)
    there.put_tag(tag, BlobDigest(placed.manifest))
