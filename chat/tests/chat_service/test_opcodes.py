"""The opcode table: numbers that clients in the field rely on, and secrets that must not show."""

import pytest

from wireproto.schema import Message
from wireproto_chat import opcodes
from wireproto_chat.opcodes import CHAT, ChangePasswordRequest, CreateAccountRequest, LogInRequest, LogInResponse


def test_the_opcodes_of_version_1() -> None:
    """Opcodes 0 to 13 are these methods, in this order. What their messages hold is in the lock."""
    assert {opcode: method.name for opcode, method in CHAT.at(1).items()} == {
        0: "LogIn",
        1: "CreateAccount",
        2: "WildCard",
        3: "SendMessage",
        4: "LogOut",
        5: "DeleteAccount",
        6: "ReceiveMessages",
        7: "PopUndelivered",
        8: "Acknowledge",
        9: "ListConversation",
        10: "DeleteMessage",
        11: "Broadcast",
        12: "ChangePassword",
        13: "WhoAmI",
    }


def test_all_but_two_methods_require_an_account() -> None:
    """Only LogIn and CreateAccount may be called by anybody."""
    assert {method.name for method in CHAT.methods if method.requires is None} == {"LogIn", "CreateAccount"}
    assert {method.requires for method in CHAT.methods} == {None, "account"}


@pytest.mark.parametrize(
    "message",
    [
        LogInRequest(username="ann", password="s3cret-canary", token="s3cret-canary"),
        LogInResponse(token="s3cret-canary", undelivered=3),
        CreateAccountRequest(username="ann", password="s3cret-canary"),
        ChangePasswordRequest(password="s3cret-canary", new_password="s3cret-canary"),
    ],
    ids=lambda message: type(message).__name__,
)
def test_a_message_does_not_show_its_secrets(message: Message) -> None:
    """repr, str, format and the hook that rich prints by leave passwords and tokens out."""
    shown = [repr(message), str(message), f"{message}", repr(list(message.__rich_repr__()))]
    assert not [text for text in shown if "canary" in text]
    assert type(message).__name__ in repr(message)


def test_every_message_with_a_secret_hides_it() -> None:
    """No message class with a field called password, new_password or token uses the plain repr."""
    secret = {"password", "new_password", "token"}
    seen = 0
    for name in opcodes.__all__:
        thing = getattr(opcodes, name)
        if isinstance(thing, type) and issubclass(thing, Message) and secret & set(thing.__struct_fields__):
            values = {field: "canary" if field in secret else "" for field in thing.__struct_fields__}
            assert "canary" not in repr(thing(**values))
            seen += 1
    assert seen == 4
