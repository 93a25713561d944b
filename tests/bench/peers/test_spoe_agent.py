from __future__ import annotations

from typing import TYPE_CHECKING, cast

from bench.peers import spop
from bench.peers.spoe_agent import Answering

if TYPE_CHECKING:
    import asyncio

    from bench.peers.decision import Decision


class Judge:
    """A decision that allows one token."""

    def allows(self, method: str, path: str, authorization: str | None) -> bool:
        return (method, path, authorization) == ("GET", "/api/v1/x", "Bearer good")


class Wire:
    """What HAProxy reads of the agent."""

    def __init__(self) -> None:
        self.sent = b""
        self.closed = False

    def write(self, data: bytes) -> None:
        self.sent += data

    def close(self) -> None:
        self.closed = True


def question(token: str | None, stream: int) -> bytes:
    said = spop.text("judge") + b"\3"
    said += spop.text("method") + b"\x08" + spop.text("GET")
    said += spop.text("path") + b"\x08" + spop.text("/api/v1/x") + spop.text("token")
    said += b"\0" if token is None else b"\x08" + spop.text(token)
    return spop.frame(spop.NOTIFY, said, stream, 7)


def test_it_answers_what_has_come_and_only_the_allowed_get_the_key() -> None:
    wire, agent = Wire(), Answering(cast("Decision", Judge()), "the-key")
    agent.connection_made(cast("asyncio.Transport", wire))
    offer = spop.text("max-frame-size") + b"\3" + spop.number(16380)
    sent = spop.frame(spop.HAPROXY_HELLO, offer)
    sent += question("Bearer good", 1) + question("Bearer bad", 2) + question(None, 3)
    agent.data_received(sent[:-5])
    agent.data_received(sent[-5:])
    hello, *answers = spop.frames(wire.sent)[0]
    assert hello.kind == spop.AGENT_HELLO
    assert dict(spop.pairs(hello.payload)) == {
        "version": "2.0",
        "max-frame-size": 16380,
        "capabilities": "pipelining",
    }
    key = spop.setting("key", "Bearer the-key")
    assert [(one.kind, one.stream, one.own) for one in answers] == [
        (spop.ACK, stream, 7) for stream in (1, 2, 3)
    ]
    assert [one.payload for one in answers] == [key, b"", b""]
    assert not wire.closed
    agent.data_received(spop.frame(spop.HAPROXY_DISCONNECT, b""))
    assert spop.frames(wire.sent)[0][-1].kind == spop.AGENT_DISCONNECT
    assert wire.closed
