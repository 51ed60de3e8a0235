"""The HTTP example's reading and answering of requests."""

import pytest

from examples.http_server import PAGE, Refused, answer_request, build_answer, parse_request

GET = b"GET / HTTP/1.1\r\nHost: a\r\n"


def refusal(head: bytes) -> int:
    """The status with which a head is refused."""
    with pytest.raises(Refused) as caught:
        parse_request(head + b"\r\n")
    return caught.value.status


@pytest.mark.parametrize(
    ("head", "status"),
    [
        pytest.param(b"GET /\r\n", 400, id="HTTP/0.9"),
        pytest.param(b"\x16\x03\x01\x02\x00\r\n", 400, id="a TLS hello"),
        pytest.param(b"GET  / HTTP/1.1\r\nHost: a\r\n", 400, id="two spaces"),
        pytest.param(b"GET / HTTP/2.0\r\nHost: a\r\n", 505, id="HTTP/2.0"),
        pytest.param(b"GET / HTTP/1.1\r\n", 400, id="no Host"),
        pytest.param(GET + b"Host: b\r\n", 400, id="two Hosts"),
        pytest.param(GET + b"no colon\r\n", 400, id="no colon"),
        pytest.param(GET + b"Name : value\r\n", 400, id="space before the colon"),
        pytest.param(GET + b" folded: line\r\n", 400, id="a folded line"),
        pytest.param(GET + b"Content-Length: -1\r\n", 400, id="negative length"),
        pytest.param(GET + b"Content-Length: 1\r\nContent-Length: 2\r\n", 400, id="two lengths"),
        pytest.param(GET + b"Content-Length: " + b"9" * 5000 + b"\r\n", 400, id="endless length"),
        pytest.param(GET + b"Content-Length: 65537\r\n", 413, id="too much"),
        pytest.param(GET + b"Transfer-Encoding: chunked\r\n", 501, id="chunked"),
    ],
)
def test_refused(head: bytes, status: int) -> None:
    assert refusal(head) == status


@pytest.mark.parametrize(
    ("head", "persistent"),
    [
        pytest.param(GET, True, id="1.1"),
        pytest.param(GET + b"Connection: close\r\n", False, id="1.1, close"),
        pytest.param(b"GET / HTTP/1.0\r\n", False, id="1.0"),
        pytest.param(b"GET / HTTP/1.0\r\nConnection: Keep-Alive\r\n", True, id="1.0, keep-alive"),
        pytest.param(b"\r\n" + GET, True, id="an empty line before, RFC 9112 2.2"),
    ],
)
def test_persistence(head: bytes, persistent: bool) -> None:
    request = parse_request(head + b"\r\n")
    assert request.persistent is persistent
    answer = answer_request(request)
    assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
    assert (b"\r\nConnection: close\r\n" in answer) is not persistent
    assert answer.endswith(b"\r\n\r\n" + PAGE)


@pytest.mark.parametrize(
    ("line", "status", "body"),
    [
        (b"HEAD /", b"200", b""),
        (b"GET /?q=1", b"200", PAGE),
        (b"GET /none", b"404", b"No such page.\n"),
        (b"PUT /", b"405", b"GET or HEAD.\n"),
    ],
)
def test_answers(line: bytes, status: bytes, body: bytes) -> None:
    head, _, found = answer_request(parse_request(line + b" HTTP/1.1\r\nHost: a\r\n\r\n")).partition(
        b"\r\n\r\n"
    )
    assert head.split(b" ")[1] == status
    assert found == body
    assert b"Content-Length: " in head


def test_length_is_of_the_body() -> None:
    assert b"\r\nContent-Length: 5\r\n" in build_answer(200, b"12345", persistent=True)
    assert build_answer(200, b"12345", persistent=True, with_body=False).endswith(b"\r\n\r\n")
