"""Finished images where else they were asked to be: in the final repository, and under further tags."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from layerwright.build.custom_tags import custom_tags
from layerwright.build.repositories import Repositories
from layerwright.build.result import BuildResult, BuiltImage, Placed
from layerwright.build.run import NotBuilt
from layerwright.build.session import Session
from layerwright.oci.digest import BlobDigest
from layerwright.storage.remote import RemoteStore


def place(session: Session, repositories: Repositories, result: BuildResult) -> BuildResult:
    """`result` with the final images copied and tagged. Raises UsageError, RegistryError, and NotBuilt where nothing may be made now and something is not there."""
    final = [image for image in result.images if image.final]
    tags = custom_tags(session.options.custom_tags, [(image.name, image.content_digest) for image in final])
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
        there, placed = repositories.final, _in_final(session, repositories.primary, repositories.final, placed)
    for tag in tags:
        _tag(session, there, placed, tag)
    return replace(image, placed=placed, custom_tags=tuple(tags))


def _in_final(session: Session, primary: RemoteStore, final: RemoteStore, placed: Placed) -> Placed:
    there = final.has_image(placed.tag)
    if there is None:
        if session.options.require_built:
            what = f"{placed.tag} is not in the final repository {final.name}"
            raise NotBuilt(what, where="--require-built-images", mend="run the build without it once: it copies the image there")
        there = final.copy_image(primary, placed.tag, BlobDigest(placed.manifest))
    return Placed(final.name, placed.tag, there)


def _tag(session: Session, there: RemoteStore, placed: Placed, tag: str) -> None:
    """Let the tag name the image, in place of what it named before."""
    named = there.named(tag)
    if named == placed.manifest:
        return
    if session.options.require_built:
        what = f"the tag {tag} names {named or 'nothing'}, not {placed.manifest}"
        raise NotBuilt(what, where="--add-custom-tag", mend="run the build without --require-built-images once: it sets the tag")
    there.put_tag(tag, BlobDigest(placed.manifest))
