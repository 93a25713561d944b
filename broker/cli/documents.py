"""Change policy documents for people: add what they asked for, keep all else as they wrote it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import yaml

from broker.errors import ConfigurationError
from broker.files import create_private, private_directory, replace_private
from broker.policy.document import is_name
from broker.policy.loader import load_policy
from broker.policy.source import Document
from broker.reload import read_policies

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from broker.policy.engine import Policy

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
    """The policy documents of one directory, with changes that are written together or not."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._texts = {document.name: document.text for document in read_policies(directory)}
        self._changed: dict[str, str] = {}

    def add(self, name: str, text: str) -> Path:
        """Add a document; `name` is its path below the directory. Return its whole path.

        Raises:
            ConfigurationError: there is such a document already.
        """
        path = self._directory / name
        if name in self._texts or path.exists():
            raise ConfigurationError(f"{path}: is there already, and it is not overwritten")
        self._texts[name] = self._changed[name] = text
        return path

    def grant(self, agent: str, scopes: Sequence[str]) -> Path:
        """Add scopes to an agent; a new agent is a local one. Return the changed file."""
        for name, text in self._texts.items():
            listed = _scopes_of(text, agent)
            if listed is not None:
                missing = [scope for scope in scopes if scope not in _values(listed)]
                if missing:
                    self._texts[name] = self._changed[name] = _insert(text, listed, missing)
                return self._directory / name
        lines = "\n".join(f"      - {scope}" for scope in scopes)
        return self.add(f"agents/{agent}.yaml", _AGENT.format(agent=agent, scopes=lines))

    def check(self) -> Policy:
        """Return the policy that the documents would make; raise `PolicyError` if none."""
        return load_policy(Document(name, text) for name, text in self._texts.items())

    def write(self) -> tuple[Path, ...]:
        """Check all documents, then write those that changed; return where.

        Raises:
            PolicyError: the documents make no policy; nothing is written.
        """
        self.check()
        existing = {document.name for document in read_policies(self._directory)}
        for name, text in self._changed.items():
            path = self._directory / name
            private_directory(path.parent)
            (replace_private if name in existing else create_private)(path, text.encode())
        return tuple(self._directory / name for name in self._changed)


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


def _values(sequence: yaml.SequenceNode) -> set[Any]:
    return {item.value for item in sequence.value}


def _insert(text: str, sequence: yaml.SequenceNode, scopes: Sequence[str]) -> str:
    last = sequence.value[-1].end_mark.index
    if sequence.flow_style:
        return text[:last] + "".join(f", {scope}" for scope in scopes) + text[last:]
    indent = " " * sequence.start_mark.column
    end = text.find("\n", last)
    end = len(text) if end == -1 else end
    return text[:end] + "".join(f"\n{indent}- {scope}" for scope in scopes) + text[end:]
