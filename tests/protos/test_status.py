"""A failed call as google.rpc.Status, there and back, and what others write."""

import pytest
from google.protobuf.duration_pb2 import Duration
from google.rpc.error_details_pb2 import ErrorInfo, RetryInfo
from google.rpc.status_pb2 import Status as RpcStatus
from hypothesis import given
from hypothesis import strategies as st

from tests.wire.peers import plain
from wireproto.errors import CallError
from wireproto.protos.status import DOMAIN, MAX_MESSAGE, from_rpc_status, to_rpc_status
from wireproto.status import Retry, Status

ERRORS = st.builds(
    CallError,
    st.sampled_from([status for status in Status if status is not Status.OK]),
    st.just("") | st.from_regex(r"[A-Z][A-Z0-9_]{0,40}", fullmatch=True),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=200),
    retry=st.sampled_from(Retry),
    retry_after_ms=st.integers(0, 2**32 - 1),
)


@given(ERRORS)
def test_an_error_survives_the_way(error: CallError) -> None:
    """Status, reason, message, retry advice and pause come back as they were, also through bytes."""
    received = RpcStatus.FromString(to_rpc_status(error).SerializeToString())
    assert plain(from_rpc_status(received)) == plain(error)


def test_stock_clients_find_what_they_look_for() -> None:
    """The details are an ErrorInfo of our domain and, when there is a pause, a RetryInfo."""
    made = to_rpc_status(CallError(Status.ABORTED, "BUSY", "later", retry=Retry.NOT_PROCESSED, retry_after_ms=1500))
    info, advice = ErrorInfo(), RetryInfo()
    assert made.details[0].Unpack(info)
    assert made.details[1].Unpack(advice)
    assert (info.reason, info.domain, info.metadata["retry"]) == ("BUSY", DOMAIN, "NOT_PROCESSED")
    assert advice.retry_delay.ToMilliseconds() == 1500
    assert len(to_rpc_status(CallError(Status.ABORTED)).details) == 1


@pytest.mark.parametrize("text", ["x" * 5000, "\U0001f600" * 2000, "\ud800"])
def test_any_message_can_be_sent(text: str) -> None:
    """A long message is cut between characters, and a lone surrogate is written out."""
    message = to_rpc_status(CallError(Status.INTERNAL, "", text)).message
    assert 0 < len(message.encode()) <= MAX_MESSAGE


def test_what_others_write_is_read_as_far_as_it_goes() -> None:
    """Another domain's reason, a bare RetryInfo, broken details and unknown codes make an error, never an exception."""
    foreign = RpcStatus(code=8, message="quota")
    foreign.details.add().Pack(ErrorInfo(reason="RATE_LIMIT", domain="example.org", metadata={"retry": "NEVER"}))
    foreign.details.add().Pack(RetryInfo(retry_delay=Duration(seconds=2)))
    assert plain(from_rpc_status(foreign)) == plain(
        CallError(Status.RESOURCE_EXHAUSTED, "RATE_LIMIT", "quota", retry_after_ms=2000)
    )
    assert from_rpc_status(RpcStatus(code=99)).status is Status.UNKNOWN
    odd = RpcStatus(code=5)
    odd.details.add().Pack(
        ErrorInfo(reason="GONE", domain=DOMAIN, metadata={"retry": "PERHAPS", "retry_after_ms": "\u0663"})
    )
    strange = RpcStatus(code=5, message="a text")
    strange.details.add().Pack(ErrorInfo(reason="rate-limit", domain="example.org"))
    assert plain(from_rpc_status(strange)) == plain(CallError(Status.NOT_FOUND, "", "a text [reason: rate-limit]"))
    for name in ("example.Unknown", "google.rpc.ErrorInfo", "google.rpc.RetryInfo"):
        odd.details.add(type_url=f"type.googleapis.com/{name}", value=b"\xff")
    assert plain(from_rpc_status(odd)) == plain(CallError(Status.NOT_FOUND, "GONE"))
