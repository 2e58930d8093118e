"""What must be known of every image before anything is built: the content digests. Bases first, since another image enters by its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from layerwright.build.session import Session
from layerwright.build.sources import MappingSource
from layerwright.config.model import ExternalBase, Image, Import, InternalBase
from layerwright.stages.conveyor import ImageFacts, content_document, conveyor
from layerwright.stages.from_image import BaseFacts
from layerwright.stages.key import content_digest
from layerwright.storage.records import ContentDigest


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """One image, known well enough to be asked for."""

    facts: ImageFacts
    sources: tuple[MappingSource, ...]
    content: ContentDigest


def gather(session: Session, names: Sequence[str]) -> Mapping[str, Known]:
    """`names` in dependency order, with all they need. Raises what sources and registries (fromLatest only) raise."""
    known: dict[str, Known] = {}
    for name in names:
        known[name] = _know(session, session.config.image(name), known)
    return known


def _know(session: Session, image: Image, known: Mapping[str, Known]) -> Known:
    sources = session.sources(image)
    facts = ImageFacts(
        image=image,
        project=session.config.project,
        platform=session.platform_of(image),
        base=_base_facts(session, image, known),
        git=tuple(source.facts for source in sources),
        imports={number: _import_content(one, known) for number, one in enumerate(image.imports)},
    )
    return Known(facts=facts, sources=sources, content=content_digest(content_document(facts)))


def _base_facts(session: Session, image: Image, known: Mapping[str, Known]) -> BaseFacts:
    match image.base:
        case InternalBase(image=name):
            return BaseFacts(content=known[name].content)
        case ExternalBase(latest=True):
            return BaseFacts(latest=session.bases.digest_now(image.base))
    return BaseFacts()


def _import_content(one: Import, known: Mapping[str, Known]) -> ContentDigest:
    source = known[one.image]
    if not one.stage or one.stage not in (stage.name for stage in conveyor(source.facts.image)):
        return source.content
    return content_digest(content_document(source.facts, until=one.stage))
