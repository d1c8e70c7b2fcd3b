"""Passwords that are tried first, and so are not accepted."""

import timeit
from pathlib import Path

import pytest

import wireproto_chat
from chat_service.fakes import QUICK, Chat, FakeContext
from wireproto import Status
from wireproto_chat.opcodes import CREATE_ACCOUNT, CreateAccountRequest
from wireproto_chat.service.common_passwords import common_passwords, is_common
from wireproto_chat.service.passwords import Passwords

LONG = " ".join(str(number * number) for number in range(3, 50))


@pytest.mark.parametrize(
    "password",
    [
        "password1234",
        "PassWord!!2024",
        "2024-iloveyou",
        "passwordpassword",
        "monkeymonkeym",
        "123456789012",
        "098765432109",
        "aaaaaaaaaaaa",
        "abababababab",
        "xyzabcdefghi",
        "zyxwvutsrqponm",
        "1qaz2wsx3edc",
        "PASSWORD\u00a01234",
    ],
)
def test_a_password_that_is_tried_first_is_refused(chat: Chat, password: str) -> None:
    """What stands in the list, in any case, with digits and signs around it, repeated, or read off the keyboard."""
    request = CreateAccountRequest(username="ann", password=password)
    error = chat.refused(CREATE_ACCOUNT, request, FakeContext())
    assert (error.status, error.reason) == (Status.INVALID_ARGUMENT, "BAD_PASSWORD")
    assert "among the first that are tried" in error.message


@pytest.mark.parametrize(
    "password", ["correct horse battery", "kq8f-2mnz-19xt", "84#1!92-77love-88#31!", "a dog, a cat", "passphrases vary"]
)
def test_a_password_of_some_thought_is_taken(password: str) -> None:
    """Several words, random letters, and a common word in a lot of something else."""
    assert Passwords(hasher=QUICK).checked(password) == password


def test_the_list_has_ten_thousand_passwords() -> None:
    """The list is complete, in lower case, and comes with its licence."""
    words = common_passwords()
    assert len(words) == 10_000
    assert all(word == word.lower() for word in words)
    assert {"password", "123456", "qwerty"} <= words
    text = (Path(wireproto_chat.__file__).parent / "service" / "common_passwords.txt").read_text()
    assert "Permission is hereby granted" in text


def test_looking_a_password_up_takes_no_time() -> None:
    """The longest password that a pattern could be tried on again and again costs at most 50 times a plain one."""

    def cost(password: str) -> float:
        return min(timeit.repeat(lambda: is_common(password), number=20, repeat=5))

    plain = cost(LONG[:128])
    assert all(cost(hostile) < 50 * plain for hostile in ("a" * 127 + "b", "ab" * 63 + "c", "1" * 127 + "a", "!" * 128))
