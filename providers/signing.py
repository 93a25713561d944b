"""The contract between the gateway and a provider whose credential signs requests.

Such a credential does not travel: each request carries a signature that it made instead. The
gateway says what a request will be, byte for byte, and the signer what to add. This module is
on the gateway's hot path: it imports the standard library only.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol


class Unsignable(Exception):
    """Say to the agent why its request cannot be signed, in words that hold no secret."""


class Outgoing(NamedTuple):
    """A request as the upstream is to get it, but for its signature; all of it raw bytes.

    `path` begins with the service's base path; `query` is None without a question mark.
    `fields` are the header fields that go on, their names in lower case, without those that
    frame the message. `said` are those of the agent's that the signer reads; they do not go on.
    `length` is the body's in bytes, 0 if there is none and None if nobody knows yet; `digest`
    its SHA-256 in lower-case hex, once all of it is at hand.
    """

    method: bytes
    path: bytes
    query: bytes | None
    host: bytes
    fields: tuple[tuple[bytes, bytes], ...] = ()
    said: tuple[tuple[bytes, bytes], ...] = ()
    length: int | None = 0
    digest: bytes | None = None


class BodyCoder(Protocol):
    """Turn the body that an agent sends into the one that was signed, while it passes.

    Both methods raise `Unsignable` for a body that is not what its head says.
    """

    @property
    def length(self) -> int:
        """How many bytes the result has in all."""
        ...

    def add(self, content: bytes) -> bytes:
        """Return what can be sent on now."""
        ...

    def end(self) -> bytes:
        """Return what is left, once the agent's body is complete."""
        ...


class Signature(NamedTuple):
    """What makes an outgoing request a signed one.

    `headers` are written after the other fields, `query` after the other parameters; `body`
    says what becomes of the body, if it is not sent as it is.
    """

    headers: tuple[tuple[bytes, bytes], ...] = ()
    query: bytes = b""
    body: BodyCoder | None = None


class Signer(Protocol):
    """Sign requests one by one, in microseconds and without I/O.

    The agent's own fields and query parameters of the names in `fields` and `parameters` are
    removed from every request; of the fields, the signer is told those in `reads`.
    """

    @property
    def fields(self) -> frozenset[bytes]:
        """The header fields that the signer writes itself, in lower case."""
        ...

    @property
    def parameters(self) -> frozenset[bytes]:
        """The query parameters that the signer writes itself."""
        ...

    @property
    def reads(self) -> frozenset[bytes]:
        """Those of `fields` in which it is told what the agent wrote."""
        ...

    def wants_body(self, request: Outgoing, most: int) -> bool:
        """Tell whether `sign` needs the whole body at hand, of which at most `most` bytes can be.

        Raises `Unsignable`.
        """
        ...

    def sign(self, request: Outgoing) -> Signature:
        """Return the signature; raise `Unsignable` where it could not be exact."""
        ...
