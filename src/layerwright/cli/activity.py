"""What is going on in a build, from its events: for each image at work its stage, what it moves or prints, and since when. Pure: the time is an argument."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

from layerwright.build.events import (
    BuildStarted,
    Event,
    ImageDone,
    ImageStarted,
    Progress,
    StageBuilt,
    StageFailed,
    StageOutput,
    StageReused,
    StageStarted,
)

SPEED_OVER_S = 3.0
Parts = dict[str, tuple[int, int]]


@dataclass(slots=True)
class Transfer:
    """All that is moved of one repository for one image: parts by name, bytes done and whole. Ended once no part is under way."""

    action: str
    subject: str
    since: float
    parts: Parts = field(default_factory=dict)
    moving: set[str] = field(default_factory=set)
    _moved: int = 0
    _samples: deque[tuple[float, int]] = field(default_factory=deque)

    @property
    def done(self) -> int:
        return sum(done for done, _ in self.parts.values())

    @property
    def total(self) -> int:
        """0 where a part's size is not known."""
        wholes = [total for _, total in self.parts.values()]
        return sum(wholes) if all(wholes) else 0

    def told(self, event: Progress, now: float) -> None:
        before = self.parts.get(event.part, (0, 0))[0]
        self._moved += max(event.done - before, 0)
        self.parts[event.part] = (event.done, event.total)
        (self.moving.discard if event.finished else self.moving.add)(event.part)
        self._samples.append((now, self._moved))
        while self._samples[0][0] < now - SPEED_OVER_S and len(self._samples) > 2:
            self._samples.popleft()

    def speed(self, now: float) -> float:
        """Bytes for each second, over the last few; 0.0 while nobody can say."""
        first, moved = self._samples[0] if self._samples else (now, 0)
        first, moved = (self.since, 0) if len(self._samples) < 2 else (first, moved)
        return (self._moved - moved) / (now - first) if now - first > 0.2 else 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One line of what is going on. `transfer` None: `doing` is what the stage printed last."""

    image: str
    stage: str
    doing: str
    seconds: float
    transfer: Transfer | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Totals:
    """`speed`: of everything that moves over the network now, bytes for each second; `waiting`: images not begun."""

    done: int
    waiting: int
    built: int
    reused: int
    pulled_bytes: int
    pushed_bytes: int
    speed: float
    seconds: float


@dataclass(slots=True)
class _Image:
    since: float
    stage: str = ""
    stage_since: float = 0.0
    last_line: str = ""
    transfers: dict[tuple[str, str], Transfer] = field(default_factory=dict)


class Activity:
    """Follows one build, and whatever is moved before and after it."""

    def __init__(self, now: float) -> None:
        self._since = now
        self._images: dict[str, _Image] = {}
        self._others: dict[tuple[str, str], Transfer] = {}  # not for one image
        self._expected: set[str] = set()
        self._done: set[str] = set()
        self._built = self._reused = 0
        self._moved = {"pull": 0, "push": 0}

    def told(self, event: Event, now: float) -> None:
        match event:
            case BuildStarted(sets=sets):
                self._expected |= {name for names in sets for name in names}
            case ImageStarted(image=image):
                self._images[image] = _Image(since=now)
            case ImageDone(image=image):
                self._images.pop(image, None)
                self._done.add(image)
            case StageStarted(image=image, stage=stage):
                at_work = self._images.setdefault(image, _Image(since=now))
                at_work.stage, at_work.stage_since, at_work.last_line = stage, now, ""
                at_work.transfers.clear()
            case StageOutput(image=image, text=text):
                if image in self._images and text.strip():
                    self._images[image].last_line = text
            case StageReused():
                self._reused += 1
            case StageBuilt(image=image):
                self._built += 1
                self._between_stages(image)
            case StageFailed(image=image):
                self._images.pop(image, None)
            case Progress():
                self._progress(event, now)
            case _:
                pass

    def _between_stages(self, image: str) -> None:
        if image in self._images:
            at_work = self._images[image]
            at_work.stage, at_work.last_line = "", ""
            at_work.transfers.clear()

    def _progress(self, event: Progress, now: float) -> None:
        place = self._images[event.image].transfers if event.image in self._images else self._others
        key = (event.action, event.subject)
        if key not in place:
            place[key] = Transfer(event.action, event.subject, now)
        transfer = place[key]
        if event.action in self._moved:
            self._moved[event.action] += max(event.done - transfer.parts.get(event.part, (0, 0))[0], 0)
        transfer.told(event, now)
        if not transfer.moving and place is self._others:
            del place[key]

    def rows(self, now: float) -> list[Row]:
        """Images in the order they began, then what is moved for none of them."""
        rows = [self._row(name, image, now) for name, image in self._images.items()]
        others = [Row(image="", stage="", doing="", seconds=now - one.since, transfer=one) for one in self._others.values()]
        return rows + others

    def _row(self, name: str, image: _Image, now: float) -> Row:
        transfer = next((one for one in reversed(image.transfers.values()) if one.moving), None)
        since = image.stage_since if image.stage else image.since
        return Row(image=name or "~", stage=image.stage, doing=image.last_line, seconds=now - since, transfer=transfer)

    def transfers(self) -> list[Transfer]:
        """What moves now."""
        return [*(one for image in self._images.values() for one in image.transfers.values() if one.moving), *self._others.values()]

    def totals(self, now: float) -> Totals:
        network = [one for one in self.transfers() if one.action in self._moved]
        return Totals(
            done=len(self._done),
            waiting=len(self._expected - self._done - set(self._images)),
            built=self._built,
            reused=self._reused,
            pulled_bytes=self._moved["pull"],
            pushed_bytes=self._moved["push"],
            speed=sum(one.speed(now) for one in network),
            seconds=now - self._since,
        )
