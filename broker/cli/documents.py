"""Change policy documents for people: add what they asked for, keep all else as they wrote it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

import yaml

from broker.app.backends import reference_check
from broker.app.policies import kept_documents
from broker.errors import ConfigurationError
from broker.files import create_private, private_directory, replace_private
from broker.policy.document import is_name
from broker.policy.loader import load_policy
from broker.policy.source import Document
from broker.reload import read_policies

if TYPE_CHECKING:
    from collections.abc import Sequence

    from broker.policy.engine import Policy
    from broker.settings import Settings

_AGENT: Final = """\
agents:
  {agent}:
    trust:
      - source: local
        claims: {{sub: {agent}}}
    scopes:
{scopes}
"""


class Documents:
    """A broker's policy documents, with changes that are written together or not at all."""

    def __init__(self, settings: Settings) -> None:
        self._directory = settings.policies
        self._check_reference = reference_check(settings)
        self._texts = {Path(each.name): each.text for each in read_policies(settings.policies)}
        self._there = frozenset(self._texts)
        self._kept = kept_documents(settings)
        self._changed: list[Path] = []

    def add(self, name: str, text: str) -> Path:
        """Add a document; `name` is its path below the directory. Return its whole path.

        Raises:
            ConfigurationError: something is there already.
        """
        path = self._directory / name
        if path in self._texts or path.exists():
            raise ConfigurationError(f"{path}: is there already, and it is not overwritten")
        self._change(path, text)
        return path

    def grant(self, agent: str, scopes: Sequence[str]) -> Path:
        """Add scopes to an agent; a new agent is a local one. Return its document's path."""
        for path, text in self._texts.items():
            listed = _scopes_of(text, agent)
            if listed is not None:
                held = {item.value for item in listed.value}
                missing = [scope for scope in scopes if scope not in held]
                if missing:
                    self._change(path, _insert(text, listed, missing))
                return path
        lines = "\n".join(f"      - {scope}" for scope in scopes)
        return self.add(f"agents/{agent}.yaml", _AGENT.format(agent=agent, scopes=lines))

    def check(self) -> Policy:
        """Return the policy that the documents make; raise `PolicyError` if they make none."""
        documents = tuple(Document(str(path), text) for path, text in self._texts.items())
        return load_policy(documents + self._kept, check_reference=self._check_reference)

    def write(self) -> tuple[Path, ...]:
        """Check all documents, then write those that changed; return where.

        Raises:
            PolicyError: the documents make no policy; nothing is written.
        """
        self.check()
        for path in self._changed:
            private_directory(path.parent)
            write = replace_private if path in self._there else create_private
            write(path, self._texts[path].encode())
        return tuple(self._changed)

    def _change(self, path: Path, text: str) -> None:
        self._texts[path] = text
        if path not in self._changed:
            self._changed.append(path)


def require_name(kind: str, name: str) -> None:
    """Raise `ConfigurationError` unless `name` may name a service, scope or agent."""
    if not is_name(name):
        raise ConfigurationError(
            f"{name!r} cannot be the name of {kind}: use up to 64 lower-case letters, digits, "
            "'.', '_' and '-', with a letter or digit at both ends"
        )


def _scopes_of(text: str, agent: str) -> yaml.SequenceNode | None:
    root = yaml.compose(text, Loader=yaml.SafeLoader)
    for key in ("agents", agent, "scopes"):
        if not isinstance(root, yaml.MappingNode):
            return None
        root = next((value for name, value in root.value if name.value == key), None)
    return root if isinstance(root, yaml.SequenceNode) else None


def _insert(text: str, sequence: yaml.SequenceNode, scopes: Sequence[str]) -> str:
    last = sequence.value[-1].end_mark.index
    if sequence.flow_style:
        return text[:last] + "".join(f", {scope}" for scope in scopes) + text[last:]
    indent = " " * sequence.start_mark.column
    end = text.find("\n", last)
    end = len(text) if end == -1 else end
    return text[:end] + "".join(f"\n{indent}- {scope}" for scope in scopes) + text[end:]
