"""The canonical encoding: injective, reversible, the same everywhere."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from layerwright.stages.key import ContentDocument, KeyDocument, Previous, canonical, content_digest, decode, encode, encode_content, stage_digest, text_of

raw_texts = st.binary(max_size=20).map(text_of)
values = st.recursive(
    st.none() | st.booleans() | st.integers() | raw_texts,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(raw_texts, inner, max_size=4),
    max_leaves=12,
)
documents = st.builds(
    KeyDocument,
    stage=st.text(max_size=10),
    platform=st.sampled_from(["linux/amd64", "linux/arm/v7"]),
    previous=st.none() | st.builds(Previous, stage=st.text(max_size=8), chain=st.text(max_size=8)),
    inputs=st.dictionaries(raw_texts, values, max_size=5),
)


@given(documents)
def test_decode_gives_back_what_was_encoded(document: KeyDocument) -> None:
    assert decode(encode(document)) == document


@given(documents, documents)
def test_two_documents_are_encoded_alike_only_if_they_are_equal(one: KeyDocument, other: KeyDocument) -> None:
    # True == 1 in Python, but not in JSON: what decides is the encoded text of the values.
    same_values = canonical(dict(one.inputs)) == canonical(dict(other.inputs))
    same = (one.stage, one.platform, one.previous, same_values) == (other.stage, other.platform, other.previous, True)
    assert (encode(one) == encode(other)) == same


def test_names_are_kept_apart_from_values() -> None:
    assert canonical(["ab", "c"]) != canonical(["a", "bc"])
    assert canonical({"a": "b"}) != canonical({"a": None, "b": None})


def test_bytes_that_are_not_utf8_are_escaped_and_read_back() -> None:
    document = KeyDocument(stage="install", platform="linux/amd64", previous=None, inputs={"files": {text_of(b"a\xff\\udcff"): "x"}})
    encoded = encode(document)
    assert encoded.decode("utf-8")
    assert decode(encoded) == document


def test_order_of_names_does_not_matter_and_order_of_lists_does() -> None:
    assert canonical({"a": 1, "b": 2}) == canonical({"b": 2, "a": 1})
    assert canonical([1, 2]) != canonical([2, 1])


def test_a_float_or_a_name_that_is_not_text_is_refused() -> None:
    with pytest.raises(TypeError):
        canonical({"a": [1.0]})  # type: ignore[dict-item]
    with pytest.raises(TypeError):
        canonical({1: "a"})  # type: ignore[dict-item]


def test_the_digest_is_sha3_224_of_the_document() -> None:
    document = KeyDocument(stage="from", platform="linux/amd64", previous=None, inputs={"base": {"reference": "alpine:3"}})
    expected = b'{"inputs":{"base":{"reference":"alpine:3"}},"platform":"linux/amd64","previous":null,"schema":1,"stage":"from"}'
    assert encode(document) == expected
    assert stage_digest(document) == hashlib.sha3_224(expected).hexdigest()
    assert len(stage_digest(document)) == 56


def test_previous_stage_and_its_chain_are_inputs() -> None:
    def digest(stage: str, chain: str) -> str:
        return stage_digest(KeyDocument(stage="install", platform="linux/amd64", previous=Previous(stage=stage, chain=chain), inputs={}))

    assert len({digest("a", "x"), digest("b", "x"), digest("a", "y")}) == 3


def test_an_images_content_digest_is_no_stages_digest() -> None:
    content = ContentDocument(platform="linux/amd64", stages=[("from", {})])
    assert b'"image":true' in encode_content(content)
    assert content_digest(content) != content_digest(ContentDocument(platform="linux/arm64", stages=[("from", {})]))
