from __future__ import annotations

import asyncio
import errno
import logging
import os
import resource
import shutil
from typing import TYPE_CHECKING, Any

import pytest
from watchfiles._rust_notify import WatchfilesRustInternalError

from broker import reload
from broker.errors import ConfigurationError, PolicyError, Problem
from broker.policy.loader import load_policy
from broker.policy.source import MOST_CHARACTERS, Document
from broker.reload import TEST_SUFFIXES, PolicyStore, Reload, policy_files, read_policies
from tests.fakes.policies import SMALL, changed

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable
    from pathlib import Path

    from broker.policy.engine import Policy

OTHER = changed("10m", "11m")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A directory with the small policy in it."""
    directory = tmp_path / "policies"
    directory.mkdir()
    (directory / "small.yaml").write_text(SMALL)
    return directory


class TestReading:
    def test_finds_documents_in_every_folder_sorted(self, folder: Path) -> None:
        (folder / "b").mkdir()
        (folder / "b" / "more.yml").write_text("{}")
        (folder / "a.yaml").write_text("{}")
        names = [os.path.relpath(one.name, folder) for one in read_policies(folder)]
        assert names == ["a.yaml", "b/more.yml", "small.yaml"]

    def test_r6_without_descriptors_there_seem_to_be_no_fewer_documents(self, folder: Path) -> None:
        """A folder that cannot be opened is an error, and no empty policy."""
        store = PolicyStore(folder)
        good = store.current
        before = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (3, before[1]))
        try:
            result = store.reload()
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, before)
        assert "cannot be read: Too many open files" in str(result.problems[0])
        assert store.current is good
        assert store.reload().problems == ()

    @pytest.mark.parametrize(
        "name",
        ["notes.md", "small.yaml~", ".small.yaml.swp", ".#small.yaml", "#small.yaml#", "4913",
         "small.test.yaml", "small.test.yml", ".hidden/x.yaml", "..2024_01/x.yaml", "x.json"],
    )  # fmt: skip
    def test_passes_over_what_is_no_document(self, folder: Path, name: str) -> None:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text("not: [yaml")
        assert [path.name for path in policy_files(folder)] == ["small.yaml"]

    def test_finds_tests_when_asked_for(self, folder: Path) -> None:
        (folder / "small.test.yaml").write_text("tests: []")
        assert [path.name for path in policy_files(folder, TEST_SUFFIXES)] == ["small.test.yaml"]

    def test_follows_links_to_files_as_mounted_volumes_have_them(self, folder: Path) -> None:
        data = folder / "..data"
        data.mkdir()
        (folder / "small.yaml").rename(data / "small.yaml")
        (folder / "small.yaml").symlink_to("..data/small.yaml")
        assert [document.text for document in read_policies(folder)] == [SMALL]

    def test_takes_a_byte_order_mark(self, folder: Path) -> None:
        (folder / "small.yaml").write_bytes(b"\xef\xbb\xbf" + SMALL.encode())
        assert read_policies(folder)[0].text == SMALL

    def refusal(self, folder: Path) -> list[str]:
        with pytest.raises(PolicyError) as refusal:
            read_policies(folder)
        return [str(problem).replace(str(folder.parent), "") for problem in refusal.value.problems]

    def test_no_directory_is_a_mistake(self, tmp_path: Path) -> None:
        assert self.refusal(tmp_path / "gone") == [
            "/gone:1:1: is no directory; policy documents are read from one"
        ]

    def test_tells_every_file_that_cannot_be_read(self, folder: Path) -> None:
        (folder / "binary.yaml").write_bytes(b"a: 1\nb: \xff\n")
        (folder / "dangling.yaml").symlink_to("nowhere")
        (folder / "large.yaml").write_bytes(b"#" * (MOST_CHARACTERS + 1))
        os.mkfifo(folder / "pipe.yaml")
        (folder / "shared.yaml").write_text("{}")
        (folder / "shared.yaml").chmod(0o666)
        assert [line.replace("/policies/", "") for line in self.refusal(folder)] == [
            "binary.yaml:2:4: is not UTF-8",
            "dangling.yaml:1:1: cannot be read: No such file or directory",
            f"large.yaml:1:1: has more than {MOST_CHARACTERS} bytes; split it",
            "pipe.yaml:1:1: is no regular file",
            "shared.yaml:1:1: can be written by anyone; run: chmod o-w shared.yaml",
        ]


class TestReload:
    def test_a_broker_does_not_start_without_its_policy(self, folder: Path) -> None:
        (folder / "small.yaml").write_text("agents: [")
        with pytest.raises(PolicyError, match="not YAML"):
            PolicyStore(folder)

    def test_new_documents_are_a_new_policy(self, folder: Path) -> None:
        store = PolicyStore(folder)
        first = store.current
        (folder / "small.yaml").write_text(OTHER)
        result = store.reload()
        assert result == Reload(store.current, first.version)
        assert store.current.version != first.version
        assert first.scopes["stripe.refund"].max_ttl == 600

    def test_a_bad_policy_keeps_the_last_good_one_and_says_so(self, folder: Path) -> None:
        store = PolicyStore(folder)
        good = store.current
        (folder / "small.yaml").write_text(SMALL.replace("max_ttl", "max_tll"))
        result = store.reload()
        assert store.current is good
        assert result.policy is good
        assert store.problems == result.problems
        assert "did you mean 'max_ttl'?" in str(result.problems[0])
        (folder / "small.yaml").write_text(OTHER)
        assert store.reload().problems == ()
        assert store.problems == ()

    def test_a_directory_that_is_gone_keeps_the_last_good_one(self, folder: Path) -> None:
        store = PolicyStore(folder)
        shutil.rmtree(folder)
        assert "is no directory" in str(store.reload().problems[0])
        assert "coder" in store.current.agents

    def test_a_directory_that_is_empty_denies_all(self, folder: Path) -> None:
        store = PolicyStore(folder)
        (folder / "small.yaml").unlink()
        assert store.reload().problems == ()
        assert not store.current.agents

    def test_changes_and_refusals_are_told_and_nothing_else(self, folder: Path) -> None:
        store = PolicyStore(folder)
        told: list[Reload] = []
        store.subscribe(told.append)
        store.reload()
        assert told == []
        (folder / "small.yaml").write_text(OTHER)
        store.reload()
        (folder / "small.yaml").write_text("agents: [")
        store.reload()
        (folder / "small.yaml").write_text(OTHER)
        store.reload()
        assert [bool(one.problems) for one in told] == [False, True, False]

    @pytest.mark.parametrize(
        ("error", "message"),
        [
            (ConfigurationError("no such store"), "no such store"),
            (RuntimeError("sk_live_1"), "cannot be loaded because of a defect (RuntimeError)"),
        ],
    )
    def test_whatever_goes_wrong_keeps_the_last_good_one(
        self, folder: Path, error: Exception, message: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        failing = False

        def load(documents: Iterable[Document]) -> Policy:
            if failing:
                raise error
            return load_policy(documents)

        store = PolicyStore(folder, load)
        failing = True
        with caplog.at_level(logging.CRITICAL):
            assert [one.message for one in store.reload().problems] == [message]
        assert "coder" in store.current.agents

    def test_a_subscriber_that_fails_keeps_nothing_from_the_others(
        self, folder: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        def fail(_: Reload) -> None:
            raise RuntimeError("full")

        store = PolicyStore(folder)
        told: list[Reload] = []
        store.subscribe(fail)
        store.subscribe(told.append)
        (folder / "small.yaml").write_text(OTHER)
        store.reload()
        assert len(told) == 1
        assert "a subscriber to policy changes failed" in caplog.text


@pytest.fixture
async def watched(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[tuple[PolicyStore, list[Reload]]]:
    """A store that watches the directory, and what it told."""
    monkeypatch.setattr(reload, "_POLL", 0.3)
    store = PolicyStore(folder)
    told: list[Reload] = []
    store.subscribe(told.append)
    watching = asyncio.create_task(store.watch())
    await asyncio.sleep(0.2)
    yield store, told
    watching.cancel()
    with pytest.raises(asyncio.CancelledError):
        await watching


async def until(condition: Callable[[], Any]) -> None:
    """Wait until something is so; give up after a time that no machine needs."""
    async with asyncio.timeout(30):
        while not condition():  # noqa: ASYNC110 - a file system sets no event
            await asyncio.sleep(0.05)


Watched = tuple[PolicyStore, "list[Reload]"]


class TestWatch:
    async def test_notices_a_file_that_is_written(self, folder: Path, watched: Watched) -> None:
        store, told = watched
        (folder / "small.yaml").write_text(OTHER)
        await until(lambda: told)
        assert store.current.scopes["stripe.refund"].max_ttl == 660

    async def test_notices_a_file_that_is_replaced(self, folder: Path, watched: Watched) -> None:
        store, _ = watched
        (folder / ".small.yaml.tmp").write_text(OTHER)
        (folder / ".small.yaml.tmp").rename(folder / "small.yaml")
        await until(lambda: store.current.scopes["stripe.refund"].max_ttl == 660)

    async def test_notices_new_files_in_new_folders(self, folder: Path, watched: Watched) -> None:
        store, _ = watched
        (folder / "team").mkdir()
        (folder / "team" / "more.yaml").write_text(
            "scopes: {stripe.events: {service: stripe, allow: [GET /v1/events]}}"
        )
        await until(lambda: "stripe.events" in store.current.scopes)

    async def test_refuses_and_recovers(self, folder: Path, watched: Watched) -> None:
        store, _ = watched
        good = store.current
        (folder / "small.yaml").write_text(SMALL[:400])
        await until(lambda: store.problems)
        assert store.current is good
        (folder / "small.yaml").write_text(OTHER)
        await until(lambda: not store.problems)
        assert store.current.scopes["stripe.refund"].max_ttl == 660

    async def test_survives_a_directory_that_goes_and_comes_back(
        self, folder: Path, watched: Watched
    ) -> None:
        store, _ = watched
        aside = folder.with_name("aside")
        shutil.move(folder, aside)
        await until(lambda: store.problems)
        assert "coder" in store.current.agents
        (aside / "small.yaml").write_text(OTHER)
        shutil.move(aside, folder)
        await until(lambda: not store.problems)
        assert store.current.scopes["stripe.refund"].max_ttl == 660

    async def test_a_watcher_that_fails_is_done_without(
        self, folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def fail(*_: object, **__: object) -> AsyncIterator[object]:
            raise WatchfilesRustInternalError("error in underlying watcher: it has lost its way")

        monkeypatch.setattr(reload, "_POLL", 0.1)
        monkeypatch.setattr(reload, "awatch", fail)
        store = PolicyStore(folder)
        watching = asyncio.create_task(store.watch())
        (folder / "small.yaml").write_text(OTHER)
        await until(lambda: store.current.scopes["stripe.refund"].max_ttl == 660)
        watching.cancel()

    async def test_what_cannot_be_read_now_is_tried_again_unasked(
        self, folder: Path, watched: Watched, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        store, told = watched
        good, read = store.current, reload._read

        def fail(path: Path) -> str:
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE), str(path))

        monkeypatch.setattr(reload, "_read", fail)
        (folder / "small.yaml").write_text(OTHER)
        await until(lambda: store.problems)
        assert "cannot be read: Too many open files" in str(store.problems[0])
        await asyncio.sleep(1)
        assert store.current is good
        assert len(told) == 1, "one complaint, however often it is tried"
        monkeypatch.setattr(reload, "_read", read)
        await until(lambda: not store.problems)
        assert store.current.scopes["stripe.refund"].max_ttl == 660

    async def test_never_adopts_what_is_half_written(
        self, folder: Path, watched: Watched, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        # Cut before its deny rule, the document would load and allow more than it should.
        monkeypatch.setattr(reload, "_SETTLE", 1.0)
        _, told = watched
        text = OTHER
        cut = text.index('    deny: ["* /v1/refunds')
        cut_text = text[:cut] + "agents:" + text.split("agents:")[1]
        assert load_policy([Document("cut", cut_text)]).scopes["stripe.refund"].deny == ()
        with (folder / "small.yaml").open("w") as file:
            file.write(cut_text)
            file.flush()
            await asyncio.sleep(0.3)
            file.seek(0)
            file.truncate()
            file.write(text)
        await until(lambda: told)
        assert all(one.policy.scopes["stripe.refund"].deny for one in told)


class TestBeside:
    """Documents that are kept elsewhere make one policy with those of the directory."""

    def beside(self, rule: str) -> tuple[Document, ...]:
        body = f'{{"scopes": {{"stripe.more": {{"service": "stripe", "allow": ["{rule}"]}}}}}}'
        return (Document("api:scopes/stripe.more", body),)

    def test_they_are_there_from_the_beginning(self, folder: Path) -> None:
        store = PolicyStore(folder, beside=self.beside("GET /x"))
        assert "stripe.more" in store.current.scopes
        assert store.documents[-1].name == "api:scopes/stripe.more"
        assert len(store.documents) == 2

    async def test_they_are_in_force_once_they_are_put_beside(self, folder: Path) -> None:
        store = PolicyStore(folder)
        told: list[Reload] = []
        store.subscribe(told.append)
        await store.put_beside(self.beside("GET /x"))
        assert store.current.scopes["stripe.more"].allow == ("GET /x",)
        await store.put_beside(self.beside("GET /y"))
        assert store.current.scopes["stripe.more"].allow == ("GET /y",)
        await store.put_beside(())
        assert "stripe.more" not in store.current.scopes
        assert len(told) == 3

    async def test_bad_ones_keep_the_last_good_policy_until_they_are_mended(
        self, folder: Path
    ) -> None:
        store = PolicyStore(folder, beside=self.beside("GET /x"))
        await store.put_beside(self.beside("GOT /x"))
        assert store.current.scopes["stripe.more"].allow == ("GET /x",)
        assert store.documents[-1:] == self.beside("GET /x")
        assert str(store.problems[0]).startswith("api:scopes/stripe.more:1:")
        await store.put_beside(self.beside("GET /y"))
        assert store.problems == ()
        assert store.current.scopes["stripe.more"].allow == ("GET /y",)

    async def test_they_stay_when_files_change(self, folder: Path) -> None:
        store = PolicyStore(folder, beside=self.beside("GET /x"))
        (folder / "other.yaml").write_text("scopes: {}")
        store.reload()
        assert "stripe.more" in store.current.scopes

    async def test_what_cannot_be_known_is_told_once_and_stays_while_files_change(
        self, folder: Path
    ) -> None:
        store = PolicyStore(folder, beside=self.beside("GET /x"))
        told: list[Reload] = []
        store.subscribe(told.append)
        doubts: tuple[Problem, ...] = (Problem("api", 1, 1, "version 2 is not what was stored"),)
        for _ in range(3):
            store.doubt(doubts)
        assert [one.problems for one in told] == [doubts]
        (folder / "other.yaml").write_text("scopes: {}")
        assert not store.reload().problems
        assert store.problems == doubts
        assert store.current.scopes["stripe.more"].allow == ("GET /x",)
        (folder / "other.yaml").write_text("scopes: 1")
        assert len(store.reload().problems) == 1
        assert store.problems[1:] == doubts
        store.doubt(())
        assert len(store.problems) == 1

    async def test_a_name_in_both_is_refused_naming_both(self, folder: Path) -> None:
        store = PolicyStore(folder)
        scopes = Document("api:scopes/stripe.refund", '{"scopes": {"stripe.refund": {}}}')
        await store.put_beside((scopes,))
        told = " ".join(map(str, store.problems))
        assert "api:scopes/stripe.refund:1:" in told
        assert str(folder / "small.yaml") in told
