from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from layerwright.build.custom_tags import check_custom_tags, custom_tags
from layerwright.build.slugs import TAG, murmur3, slug, tag_slug
from layerwright.errors import UsageError

CONTENT, OTHER = "a" * 56, "b" * 56


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "0"),
        ("test", "ba6bd213"),
        ("Hello, world!", "c0363e43"),
        ("The quick brown fox jumps over the lazy dog", "2e4ff723"),
        ("branch/one/!@#4.4-3", "4fe08955"),
        ("My_branch", "8ebf2d1d"),
        ("helo/ehlo", "b6f6ab1f"),
    ],
)
def test_the_hash_is_murmur3(text: str, said: str) -> None:
    assert murmur3(text.encode()) == said


@pytest.mark.parametrize(
    ("text", "made"),
    [
        ("backend", "backend"),
        ("branch/one/!@#4.4-3", "branch-one-4-4-3-4fe08955"),
        ("My_branch", "my-branch-8ebf2d1d"),
        ("Größe", f"große-{murmur3('Größe'.encode())}".replace("ß", "")),
        ("щи", f"shi-{murmur3('щи'.encode())}"),
        ("!!", murmur3(b"!!")),
        ("", "0"),
    ],
)
def test_a_slug_is_what_is_left_of_a_text_and_a_hash(text: str, made: str) -> None:
    assert slug(text) == made


def test_what_may_be_a_tag_stays() -> None:
    assert tag_slug("16.04") == "16.04"
    assert tag_slug("helo/ehlo") == "helo-ehlo-b6f6ab1f"


@given(text=st.text(max_size=300))
def test_every_text_has_a_slug_that_is_a_tag(text: str) -> None:
    assert re.fullmatch(r"[a-z0-9][a-z0-9-]*", slug(text))
    assert len(slug(text)) <= 128
    assert TAG.match(tag_slug(text))
    assert slug(slug(text)) == slug(text)


def test_placeholders_are_filled_in_for_each_image() -> None:
    formats = ["%image_slug%-main", "v1-%image%", "%image_content_based_tag%-x", "%image_slug%-main"]
    assert custom_tags(formats, [("api", CONTENT), ("web", OTHER)]) == {
        "api": ["api-main", "v1-api", f"{CONTENT}-x"],
        "web": ["web-main", "v1-web", f"{OTHER}-x"],
    }


def test_one_image_needs_no_placeholder() -> None:
    assert custom_tags(["latest"], [("", CONTENT)]) == {"": ["latest"]}
    assert custom_tags([], [("api", CONTENT)]) == {"api": []}


@pytest.mark.parametrize(
    ("given", "images", "said"),
    [
        ("latest", ("api", "web"), "'latest' would be the tag of several images"),
        ("%imag%", ("api",), "%imag%, which is no placeholder"),
        ("%image%", ("team/api",), "'team/api' for image 'team/api', which is not a tag"),
        ("%image%-x", ("",), "'-x' for image '~', which is not a tag"),
        ("a b", ("api",), "which is not a tag"),
        ("x" * 129, ("api",), "which is not a tag"),
        ("%image_content_based_tag%", ("api",), "a name that stages and images have"),
        ("stage-%image_content_based_tag%", ("api",), "a name that stages and images have"),
        ("%image_content_based_tag%-x", ("api", "web"), "is the tag"),
    ],
)
def test_what_cannot_be_is_told_before_anything_is_built(given: str, images: tuple[str, ...], said: str) -> None:
    with pytest.raises(UsageError, match=re.escape(said)) as raised:
        check_custom_tags([given], images)
    assert raised.value.where == "--add-custom-tag"
    assert raised.value.mend


@given(
    formats=st.lists(st.sampled_from(["%image%", "%image_slug%", "%image_safe_slug%-1", "x", "%image_content_based_tag%.y"]), max_size=3),
    names=st.sets(st.text(max_size=20), max_size=4),
)
def test_tags_are_valid_and_everybody_s_own_or_an_error_says_why(formats: list[str], names: set[str]) -> None:
    images = [(name, murmur3(name.encode()).zfill(56)) for name in sorted(names)]
    try:
        made = custom_tags(formats, images)
    except UsageError:
        return
    tags = [tag for name in made for tag in made[name]]
    assert all(TAG.match(tag) for tag in tags)
    assert len(set(tags)) == len(tags)
