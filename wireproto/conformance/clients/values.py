"""Sections 11 and 12: what a client writes and reads of values, by Mirror, with the bytes that judge servers."""

from typing import Any

from wireproto.conformance.callee import CLIENT_CASES, Trial, call
from wireproto.conformance.case import Deviation
from wireproto.conformance.servers.values import ACCEPTED, REFUSED, Row, column, in_bytes, mirror_payload, shown
from wireproto.conformance.service import MIRROR, SHORT, ShortResponse

# What the caller says, for the rows of section 11: JSON as docs/conformance.md has it.
_SAID: dict[str, Any] = {
    "11.01": True,
    "11.02": "-9223372036854775808",
    "11.03": "9223372036854775807",
    "11.04": -1,
    "11.05": "18446744073709551615",
    "11.06": 0.1,
    "11.07": "nan",
    "11.08": "inf",
    "11.09": "-inf",
    "11.10": "-0.0",
    "11.11": 5e-324,
    "11.12": 1.7976931348623157e308,
    "11.13": "a|b\\c\n\r,:()[]{}",
    "11.14": "\0zé☃😀",
    "11.15": "007cff0a",
    "11.16": "1970-01-01T00:00:00.000000Z",
    "11.17": "2024-02-29T12:34:56.789012Z",
    "11.18": "1969-12-31T23:59:59.999999Z",
    "11.19": "0001-01-01T00:00:00.000000Z",
    "11.20": "9999-12-31T23:59:59.999999Z",
    "11.21": 5,
    "11.22": {"name": "x", "count": 3},
    "11.23": {"name": "", "count": 0},
    "11.24": 0,
    "11.25": 0,
    "11.26": 255,
    "11.27": [3, -2, 1],
    "11.28": ["", "a,b", "|("],
    "11.29": [""],
    "11.30": [{"name": "a", "count": 1}, {"name": "", "count": 0}],
    "11.31": {"": 0, "k:,": -1},
    "11.32": {"-1": "x", "2": ""},
}


def _written(number: str, row: Row, said: Any) -> None:
    def run(trial: Trial) -> None:
        codec = trial.codec[1]
        due = mirror_payload(codec, trial.version, **{row.field: in_bytes(codec, column(codec, row.columns))})
        with trial.client(call("Mirror", **{row.field: said})) as callee:
            request = callee.request(MIRROR)
            if (found := callee.written(MIRROR, request)) != due:
                raise Deviation(f"{row.field} is {said!r}; the request means {shown(codec, found)}")
            callee.respond(request, due)
            callee.answered(**{row.field: said})

    CLIENT_CASES.add(number, row.text, run, over=row.over, only=row.only)


def _read(number: str, row: Row) -> None:
    """Another form of a value than the canonical one, which is read from a server."""
    (codec,) = row.only

    def run(trial: Trial) -> None:
        sent, canonical = row.columns[codec]
        with trial.client(call("Mirror"), call("Mirror")) as callee:
            for each in (sent, canonical):
                payload = mirror_payload(codec, trial.version, **{row.field: in_bytes(codec, each)})
                callee.respond(callee.request(MIRROR), payload)
            answers = [callee.result(step).get("response") for step in (0, 1)]
            if answers[0] is None or answers[0] != answers[1]:
                raise Deviation(f"{row.field} as {shown(codec, in_bytes(codec, sent))} was read as {callee.result(0)}")

    CLIENT_CASES.add(number, row.text, run, over=row.over, only=row.only)


def _refused(number: str, row: Row) -> None:
    def run(trial: Trial) -> None:
        codec = trial.codec[1]
        written = column(codec, row.columns)
        rows = written if isinstance(written, list) else [written]
        with trial.client(*[call("Mirror")] * len(rows), call("Short", text="hello")) as callee:
            for each in rows:
                payload = mirror_payload(codec, trial.version, **{row.field: in_bytes(codec, each)})
                callee.respond(callee.request(MIRROR), payload)
            callee.respond(callee.request(SHORT), ShortResponse(length=5))
            for step, each in enumerate(rows):
                if "error" not in callee.result(step):
                    response = callee.result(step).get("response")
                    read = response.get(row.field) if isinstance(response, dict) else response
                    raise Deviation(f"{row.field} as {shown(codec, in_bytes(codec, each))} was read as {read!r}")
            callee.answered(len(rows), length=5)

    CLIENT_CASES.add(number, row.text, run, over=row.over, only=row.only)


for _number, _row in ACCEPTED.items():
    if _number in _SAID:
        _written(_number, _row, _SAID[_number])
    elif isinstance(next(iter(_row.columns.values())), tuple):
        _read(_number, _row)
for _number, _row in REFUSED.items():
    _refused(_number, _row)
