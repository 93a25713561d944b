"""Keep the policy in force: read its documents, watch them, and never lose the last good one."""

from __future__ import annotations

import asyncio
import logging
import os
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from watchfiles import awatch

from broker.errors import ConfigurationError, PolicyError, Problem
from broker.policy.loader import load_policy
from broker.policy.source import MOST_CHARACTERS, Document

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from broker.policy.engine import Policy

_LOG: Final = logging.getLogger(__name__)

SUFFIXES: Final = (".yaml", ".yml")
TEST_SUFFIXES: Final = (".test.yaml", ".test.yml")

_MOST_FILES: Final = 10_000
_POLL: Final = 2.0
"""Seconds between looks where the system reports no changes (network and container mounts)."""

_SETTLE: Final = 0.1
"""Seconds for which files must not change before they are read: editors write in steps."""


class UnreadablePolicy(PolicyError):
    """Policy documents that the system does not let us read: that may pass by itself."""


def policy_files(directory: Path, suffixes: tuple[str, ...] = SUFFIXES) -> tuple[Path, ...]:
    """Return the policy documents below a directory, sorted; or its files of other `suffixes`.

    Hidden files and folders are passed over, and so are tests (`*.test.yaml`) unless their
    suffix is asked for.

    Raises:
        PolicyError: when there is no such directory, or it holds too many files.
        UnreadablePolicy: when it, or a folder in it, cannot be read.
    """
    if not directory.is_dir():
        raise _refusal(directory, "is no directory; policy documents are read from one")
    try:
        found = sorted(_walk(directory, suffixes))
    except OSError as error:
        place = str(error.filename or directory)
        raise UnreadablePolicy((_unreadable(place, error),)) from None
    if len(found) > _MOST_FILES:
        raise _refusal(directory, f"holds more than {_MOST_FILES} policy documents")
    return tuple(found)


def _walk(directory: Path, suffixes: tuple[str, ...]) -> Iterator[Path]:
    # By itself os.walk passes over what it cannot read: then there would seem to be fewer rules.
    for folder, folders, files in os.walk(directory, onerror=_raise):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in files:
            wanted = name.endswith(suffixes) and not name.startswith(".")
            if wanted and (name.endswith(TEST_SUFFIXES) == (suffixes == TEST_SUFFIXES)):
                yield Path(folder, name)


def _raise(error: OSError) -> None:
    raise error


def _unreadable(place: str, error: OSError) -> Problem:
    return Problem(place, 1, 1, f"cannot be read: {error.strerror}")


def read_policies(directory: Path, suffixes: tuple[str, ...] = SUFFIXES) -> tuple[Document, ...]:
    """Return all policy documents below a directory, or its files of other `suffixes`.

    Raises:
        PolicyError: with every file that anyone could have written, or that is no text.
        UnreadablePolicy: if there are files that cannot be read, with these, too.
    """
    documents: list[Document] = []
    problems: list[Problem] = []
    kind = PolicyError
    for path in policy_files(directory, suffixes):
        try:
            documents.append(Document(str(path), _read(path)))
        except PolicyError as error:
            problems.extend(error.problems)
        except OSError as error:
            problems.append(_unreadable(str(path), error))
            kind = UnreadablePolicy
    if problems:
        raise kind(tuple(problems))
    return tuple(documents)


def _read(path: Path) -> str:
    # Without O_NONBLOCK a named pipe would keep the broker waiting for a writer.
    with os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise _refusal(path, "is no regular file")
        if status.st_mode & stat.S_IWOTH:
            raise _refusal(path, f"can be written by anyone; run: chmod o-w {path}")
        data = file.read(MOST_CHARACTERS + 1)
    if len(data) > MOST_CHARACTERS:
        raise _refusal(path, f"has more than {MOST_CHARACTERS} bytes; split it")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        column = error.start - data.rfind(b"\n", 0, error.start)
        raise PolicyError((Problem(str(path), line, column, "is not UTF-8"),)) from None


def _refusal(path: Path, message: str) -> PolicyError:
    return PolicyError((Problem(str(path), 1, 1, message),))


@dataclass(frozen=True, slots=True)
class Reload:
    """What came of reading the documents again.

    `policy` is the one in force now and `previous` the version before; with `problems` the
    new documents were refused and nothing changed.
    """

    policy: Policy
    previous: str
    problems: tuple[Problem, ...] = ()


@dataclass(frozen=True, slots=True)
class _Loaded:
    policy: Policy
    documents: tuple[Document, ...]


class PolicyStore:
    """The policy in force, made of the documents in a directory and those put beside them.

    `load` turns documents into a policy; `beside` are documents that are kept elsewhere. Building
    a store reads all at once, and raises `PolicyError` if they do not load: a broker never
    starts without its policy.
    """

    def __init__(
        self,
        directory: Path,
        load: Callable[[Iterable[Document]], Policy] = load_policy,
        beside: tuple[Document, ...] = (),
    ) -> None:
        self._directory: Final = directory
        self._load: Final = load
        self._subscribers: Final[list[Callable[[Reload], None]]] = []
        self._looking: Final = asyncio.Lock()
        self._beside = beside
        self._seen = self._state()
        self.documents: tuple[Document, ...] = read_policies(directory) + beside
        """The documents of which the policy in force was made."""
        self.current: Policy = load(self.documents)
        """The policy in force: an immutable snapshot, replaced as a whole."""
        self._problems: tuple[Problem, ...] = ()
        self._doubts: tuple[Problem, ...] = ()

    @property
    def problems(self) -> tuple[Problem, ...]:
        """Why what the policy should be made of now is not in force, if it is not."""
        return self._problems + self._doubts

    def subscribe(self, callback: Callable[[Reload], None]) -> None:
        """Call `callback` after each reload that changed the policy or was refused.

        It is called on the thread that reloads: the event loop's, when `watch` does.
        """
        self._subscribers.append(callback)

    def reload(self) -> Reload:
        """Read the documents now, for SIGHUP; the last good policy stays if they are bad."""
        seen = self._state()
        return self._adopt(self._attempt(), seen)

    async def put_beside(self, documents: tuple[Document, ...]) -> None:
        """Have these documents beside those of the directory, in place of those until now.

        Once this returns the policy that they make is in force, or its problems are known.
        """
        self._beside = documents
        await self._look()

    def doubt(self, problems: tuple[Problem, ...]) -> None:
        """Say why it is not known which documents are kept elsewhere, or with none that it is.

        Those that were put beside the directory's last stay in force.
        """
        news = problems != self._doubts
        self._doubts = problems
        if problems and news:
            self._tell(Reload(self.current, self.current.version, problems))

    async def watch(self) -> None:
        """Reload whenever the documents have changed and stopped changing; runs until cancelled.

        Files replaced by renaming, a directory that goes and comes back, and file systems
        that report no changes are all noticed, the last of these within a few seconds.
        """
        while True:
            try:
                async for _ in awatch(
                    self._directory,
                    watch_filter=None,
                    step=int(_SETTLE * 1000),
                    rust_timeout=int(_POLL * 1000),
                    yield_on_timeout=True,
                    recursive=True,
                ):
                    await self._look()
                    if not self._directory.is_dir():
                        break
            except (OSError, RuntimeError) as error:  # the latter from within watchfiles
                _LOG.debug("policy directory cannot be watched: %s", error)
            await self._look()
            await asyncio.sleep(_POLL)

    async def _look(self) -> None:
        async with self._looking:
            seen = self._state()
            while seen != self._seen:
                await asyncio.sleep(_SETTLE)
                before, seen = seen, self._state()
                if seen != before:
                    continue
                outcome = await asyncio.to_thread(self._attempt)
                if self._state() == seen:
                    self._adopt(outcome, seen)
                if isinstance(outcome, UnreadablePolicy):
                    return  # and tried again at the next look, though nothing may have changed

    def _state(self) -> object:
        return _fingerprint(self._directory), self._beside

    def _attempt(self) -> _Loaded | PolicyError:
        try:
            documents = read_policies(self._directory) + self._beside
            return _Loaded(self._load(documents), documents)
        except PolicyError as error:
            return error
        except ConfigurationError as error:
            return _refusal(self._directory, str(error))
        except Exception as error:  # noqa: BLE001 - a defect must not cost the last good policy
            _LOG.exception("the policy could not be loaded")
            message = f"cannot be loaded because of a defect ({type(error).__name__})"
            return _refusal(self._directory, message)

    def _adopt(self, outcome: _Loaded | PolicyError, seen: object) -> Reload:
        again = isinstance(outcome, UnreadablePolicy)
        self._seen = None if again else seen
        previous, refused_before = self.current.version, self._problems
        if isinstance(outcome, PolicyError):
            self._problems = outcome.problems
        else:
            self.current, self.documents, self._problems = outcome.policy, outcome.documents, ()
        result = Reload(self.current, previous, self._problems)
        news = self.current.version != previous or self._problems != refused_before
        if news or (self._problems and not again):
            self._tell(result)
        return result

    def _tell(self, result: Reload) -> None:
        for callback in self._subscribers:
            try:
                callback(result)
            except Exception:  # noqa: BLE001 - one subscriber's defect is not the others'
                _LOG.exception("a subscriber to policy changes failed")


def _fingerprint(directory: Path) -> object:
    try:
        return tuple(
            (str(path), status.st_mtime_ns, status.st_size, status.st_ino, status.st_mode)
            for path in policy_files(directory)
            for status in (path.stat(),)
        )
    except (OSError, PolicyError):
        return None
