"""The fault table as data: what goes wrong, with which requests, and what layerwright does about it. The page docs/registry-faults.md is compared with it.

`python -m tests.registry.fault_rows` prints the table as the page has it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from email.utils import formatdate

from tests.support import faults
from tests.support.faulty_proxy import Exchange, Fault

TOKEN, TAG, DIGEST, CONFIG, LAYER = "token", "manifest by tag", "manifest by digest", "config", "layer"
LOOK, START, SEND, CHUNK, NAME = "look for blob", "start upload", "send blob", "send chunk", "push manifest"

BLOBS = (CONFIG, LAYER)
MANIFESTS = (TAG, DIGEST)
READS = (*MANIFESTS, *BLOBS)
WRITES = (START, SEND, CHUNK, NAME)
PULL = (TOKEN, *READS)
PUSH = (LOOK, *WRITES)
ALL = (*PULL, *PUSH)
NAMES = {READS: "manifests, blobs", WRITES: "all of a push but looking for a blob", PUSH: "all of a push", ALL: "all", BLOBS: "blobs", MANIFESTS: "manifests"}
LATER = formatdate(4_000_000_000, usegmt=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """`faults`: for the first requests of a kind, one after the other. `once` and `always` are what the error says then, "" if all goes well;
    "…" stands for anything."""

    fault: str
    requests: tuple[str, ...]
    faults: tuple[Fault, ...]
    does: str
    once: str = ""
    always: str = ""
    is_slow: bool = False  # noticed by waiting

    @property
    def name(self) -> str:
        return f"{self.fault}: {self.asked}"

    @property
    def asked(self) -> str:
        return NAMES.get(self.requests) or ", ".join(self.requests)


def _soon(exchange: Exchange) -> None:
    faults.status(503, "UNAVAILABLE: come back", Retry_After="0")(exchange)


AGAIN = "tried again"
BROKE = "the connection to … broke"
ANEW = "asked for anew from where it stopped"

ROWS: Sequence[Row] = (
    Row(fault="connection reset", requests=ALL, faults=(faults.reset,), does=AGAIN, always=BROKE),
    Row(fault="connection closed without an answer", requests=(TOKEN, TAG, LAYER, *PUSH), faults=(faults.close,), does=AGAIN, always=BROKE),
    Row(fault="silence", requests=ALL, faults=(faults.silence,), does=AGAIN, always="it said nothing for", is_slow=True),
    Row(fault="what we send is not read", requests=(SEND, CHUNK, NAME), faults=(faults.deaf,), does=AGAIN, always="it said nothing for", is_slow=True),
    Row(
        fault="headers that never end, letter by letter",
        requests=(TAG, LAYER, START, NAME),
        faults=(faults.slow_headers,),
        does=AGAIN,
        always="it said nothing for",
        is_slow=True,
    ),
    Row(fault="headers that never end, fast", requests=(TAG, LAYER, START, NAME), faults=(faults.endless_headers,), does=AGAIN, always=BROKE),
    Row(fault="bytes that are not HTTP", requests=ALL, faults=(faults.garbage,), does=AGAIN, always=BROKE),
    Row(fault="header lines that are none", requests=(TAG, LAYER, LOOK, START, NAME), faults=(faults.garbage_headers,), does=AGAIN, always=BROKE),
    Row(fault="408, 500, 502, 503, 504", requests=ALL, faults=(faults.status(503, "UNAVAILABLE: we are moving"),), does=AGAIN, always="answers 503"),
    Row(fault="429", requests=ALL, faults=(faults.status(429, "TOOMANYREQUESTS: slow down"),), does=AGAIN, always="answers 429"),
    Row(fault="Retry-After: a few seconds", requests=(TAG, LAYER, START, NAME), faults=(_soon,), does="tried again then", always="answers 503"),
    Row(
        fault="Retry-After: an hour, or a date far away",
        requests=(TAG, LAYER, START, NAME),
        faults=(faults.status(429, "TOOMANYREQUESTS: slow down", Retry_After=LATER),),
        does="an error at once that says when to come back",
        once="the registry asks to come back in",
        always="the registry asks to come back in",
    ),
    Row(
        fault="401 in the middle",
        requests=(*READS, LOOK, START, SEND, NAME),
        faults=(faults.expired_token,),
        does="a new token, and tried again",
        always="answers 401",
    ),
    Row(
        fault="401, 403",
        requests=(TOKEN, TAG, LAYER, START, NAME),
        faults=(faults.status(403, "DENIED: not for you"),),
        does="an error at once",
        once="DENIED: not for you",
        always="DENIED: not for you",
    ),
    Row(
        fault="404",
        requests=(TAG,),
        faults=(faults.status(404, "MANIFEST_UNKNOWN: no such tag"),),
        does="an error at once",
        once="no such tag",
        always="no such tag",
    ),
    Row(
        fault="404",
        requests=(DIGEST, *BLOBS),
        faults=(faults.status(404, "UNKNOWN: not seen"),),
        does="asked twice more: something names it",
        always="UNKNOWN: not seen",
    ),
    Row(
        fault="404 for the upload (BLOB_UPLOAD_UNKNOWN)",
        requests=(SEND,),
        faults=(faults.status(404, "BLOB_UPLOAD_UNKNOWN: lost"),),
        does="a new upload",
        always="BLOB_UPLOAD_UNKNOWN: lost",
    ),
    Row(fault="405", requests=(LOOK,), faults=(faults.status(405),), does="asked with GET"),
    Row(fault="404, 405, 501, any refusal", requests=(CHUNK,), faults=(faults.status(405, "UNSUPPORTED: no chunks"),), does="sent whole"),
    Row(fault="404 for the upload (BLOB_UPLOAD_UNKNOWN)", requests=(CHUNK,), faults=(faults.status(404, "BLOB_UPLOAD_UNKNOWN: lost"),), does="sent whole"),
    Row(fault="413", requests=(SEND,), faults=(faults.status(413),), does="a large blob is sent in chunks", always="answers 413"),
    Row(fault="416", requests=(CHUNK,), faults=(faults.status(416),), does="asked how far it has come, else sent whole"),
    Row(
        fault="400 (MANIFEST_BLOB_UNKNOWN)",
        requests=(NAME,),
        faults=(faults.status(400, "MANIFEST_BLOB_UNKNOWN: not seen"),),
        does="tried twice more",
        always="MANIFEST_BLOB_UNKNOWN",
    ),
    Row(
        fault="409, or a refusal that says the name is not moved (immutable)",
        requests=(NAME,),
        faults=(faults.status(412, "PRECONDITION: configured as immutable"),),
        does="looked for: an error at once, unless it is this very manifest",
        once="configured as immutable",
        always="configured as immutable",
    ),
    Row(fault="cut in the middle", requests=READS, faults=(faults.cut,), does=f"{ANEW}; manifests whole", always=BROKE),
    Row(fault="shorter than its Content-Length", requests=READS, faults=(faults.short,), does=f"{ANEW}; manifests whole", always=BROKE),
    Row(fault="the last HTTP chunk is missing", requests=READS, faults=(faults.short_chunks,), does=f"{ANEW}; manifests whole", always=BROKE),
    Row(fault="an end too early, without any length", requests=BLOBS, faults=(faults.short_without_length,), does=ANEW, always="ended too early"),
    Row(fault="an end too early, without any length", requests=MANIFESTS, faults=(faults.short_without_length,), does=AGAIN, always="which is no manifest"),
    Row(
        fault="a stop in the middle",
        requests=READS,
        faults=(faults.stall,),
        does=f"{ANEW}; manifests whole",
        always="in the middle of its answer",
        is_slow=True,
    ),
    Row(fault="a byte now and then", requests=READS, faults=(faults.trickle,), does=f"{ANEW}; manifests whole", always="too slow", is_slow=True),
    Row(fault="wrong bytes", requests=READS, faults=(faults.wrong_bytes,), does="fetched once more", always="came damaged"),
    Row(fault="too many bytes", requests=BLOBS, faults=(faults.too_many,), does="fetched once more", always="more than the"),
    Row(fault="no Range, all of the blob", requests=BLOBS, faults=(faults.cut, faults.no_range), does="what is here is passed over"),
    Row(fault="another Range than asked for", requests=BLOBS, faults=(faults.cut, faults.wrong_range, faults.no_range), does="read from the start"),
    Row(fault="416", requests=BLOBS, faults=(faults.cut, faults.status(416), faults.no_range), does="read from the start"),
    Row(fault="compressed on the way (Content-Encoding)", requests=READS, faults=(faults.packed,), does="decompressed"),
    Row(fault="another media type", requests=READS, faults=(faults.wrong_type,), does="the content counts"),
    Row(
        fault="a Docker-Content-Digest that lies",
        requests=(TAG,),
        faults=(faults.lying_digest,),
        does="fetched once more",
        always="the registry announced sha256:0000",
    ),
    Row(fault="a Docker-Content-Digest that lies", requests=(DIGEST, *BLOBS), faults=(faults.lying_digest,), does="the content counts"),
    Row(
        fault="a Docker-Content-Digest that lies",
        requests=(NAME,),
        faults=(faults.lying_digest,),
        does="pushed once more",
        always="the registry keeps the manifest as",
    ),
    Row(fault="a web page, with 200", requests=MANIFESTS, faults=(faults.html_page,), does="asked twice more", always='a web page "Please log in"'),
    Row(fault="a web page, with 200", requests=BLOBS, faults=(faults.html_page,), does="fetched once more", always="came damaged"),
    Row(fault="a web page, with 200", requests=(TOKEN,), faults=(faults.html_page,), does="asked once more", always="gave no token"),
    Row(fault="a web page, with 200", requests=(LOOK,), faults=(faults.html_page,), does="as if it said nothing: uploaded"),
    Row(fault="a web page, with 200", requests=(START, SEND), faults=(faults.html_page,), does="tried twice more", always="answers 200"),
    Row(
        fault="a web page, with 200",
        requests=(NAME,),
        faults=(faults.html_page,),
        does="looked for, and pushed twice more",
        always="the manifest was not kept",
    ),
    Row(fault="nothing, with 200", requests=MANIFESTS, faults=(faults.empty,), does="asked twice more", always="with nothing, which is no manifest"),
    Row(fault="nothing, with 200", requests=BLOBS, faults=(faults.empty,), does="fetched once more", always="its size is 0 bytes"),
    Row(fault="a redirect to another address", requests=(*READS, *WRITES), faults=(faults.redirect(307),), does="followed, without the login"),
    Row(fault="a redirect (301, 302)", requests=(LAYER, *WRITES), faults=(faults.redirect(302),), does="followed, the method stays"),
    Row(
        fault="a redirect to something else (303)",
        requests=(START, SEND, NAME),
        faults=(faults.redirect(303),),
        does="an error at once",
        once="answers 303",
        always="answers 303",
    ),
    Row(
        fault="redirects in a circle",
        requests=(*READS, START, SEND, NAME),
        faults=(faults.redirect_loop(307),),
        does="an error after 5",
        always="redirects without end",
    ),
    Row(
        fault="a redirect to no address",
        requests=(TAG, LAYER, START),
        faults=(faults.redirect_to_nowhere,),
        does="an error at once",
        once="an address that is none",
        always="an address that is none",
    ),
    Row(
        fault="a storage that refuses (an address that expired)",
        requests=BLOBS,
        faults=(faults.expired_storage(403),),
        does="asked for a new address",
        always="answers 403 Forbidden: AccessDenied: Request has expired",
    ),
    Row(fault="the answer is lost, what was asked is done", requests=(SEND,), faults=(faults.lost,), does="looked for first: not sent twice"),
    Row(fault="the answer is lost, what was asked is done", requests=(START,), faults=(faults.lost,), does="another upload is started", always=BROKE),
    Row(fault="the answer is lost, what was asked is done", requests=(CHUNK,), faults=(faults.lost,), does="asked how far it has come, else sent whole"),
    Row(fault="the answer is lost, what was asked is done", requests=(NAME,), faults=(faults.lost,), does="pushed again, which changes nothing", always=BROKE),
)


def table() -> str:
    """The rows as Markdown."""
    lines = ["| what comes | at | layerwright | and if it stays so, the error says |", "| --- | --- | --- | --- |"]
    lines += [f"| {row.fault} | {row.asked} | {row.does} | {row.always or '—'} |" for row in ROWS]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    print(table(), end="")
