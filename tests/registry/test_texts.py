from __future__ import annotations

import json

import pytest

from layerwright.registry.texts import scrubbed, shown, told


@pytest.mark.parametrize(
    ("said", "text"),
    [
        ({"errors": [{"code": "DENIED", "message": "no", "detail": "quota of 5 GiB used up"}]}, "DENIED: no (quota of 5 GiB used up)"),
        ({"errors": [{"code": "X", "detail": {"Tag": "1"}}]}, 'X ({"Tag":"1"})'),
        ({"errors": [{"code": "X", "message": "no b", "detail": "no b"}]}, "X: no b"),
        ({"errors": [{"code": "X", "detail": "d" * 500}]}, "X"),
        ({"errors": [{"detail": "only this"}]}, "only this"),
        ({"errors": [{"code": "A"}, "b", {}]}, "A; b"),
        ({"error": "invalid_grant", "error_description": "expired"}, "invalid_grant: expired"),
        ({"detail": "as some say it"}, "as some say it"),
        ({"errors": []}, ""),
        ([], ""),
        ("text", ""),
    ],
)
def test_what_a_body_says(said: object, text: str) -> None:
    assert told(json.dumps(said).encode()) == text


def test_a_page_says_nothing() -> None:
    assert told(b"<html>") == ""


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        ("wrong password hunter2!", "wrong password ***!"),
        ("see https://ann:hunter2@r.example/x", "see https://***@r.example/x"),
        ("from https://s3.example/b?X-Signature=abc&y=z now", "from https://s3.example/b?*** now"),
        ("Authorization: Bearer abcdefghijklmnop.qrs-t_u", "Authorization: Bearer ***"),
        ("Authorization: Basic YW5uOmh1bnRlcjI6YWJj", "Authorization: Basic ***"),
        ("basic authentication is off, bearer tokens only", "basic authentication is off, bearer tokens only"),
    ],
)
def test_secrets_are_taken_out(text: str, clean: str) -> None:
    assert scrubbed(text, ["hunter2"]) == clean


def test_a_secret_is_not_cut_in_two() -> None:
    text = shown("x" * 495 + "hunter2", ["hunter2"])
    assert "hunt" not in text
    assert shown("a\x1b[31m\nb" + "c" * 600).startswith("a [31m b")
    assert len(shown("c" * 600)) < 510
