"""What the path of a rule means, segment by segment and as plainly as can be."""

from __future__ import annotations


def is_like(pattern: str, segment: str) -> bool:
    """Tell whether one segment is like another that may hold one `*`."""
    before, star, after = pattern.partition("*")
    if not star:
        return pattern == segment
    enough = len(segment) > len(before) + len(after)
    return enough and segment.startswith(before) and segment.endswith(after)


def is_meant(pattern: list[str], path: list[str]) -> bool:
    """Tell whether the segments of a path are those of a rule, which may hold `**`."""
    if not pattern:
        return not path
    first, *rest = pattern
    if first == "**":
        taken = range(len(path) + 1)
        if not rest:
            return all(path[:-1])
        return any(all(path[:count]) and is_meant(rest, path[count:]) for count in taken)
    return bool(path) and is_like(first, path[0]) and is_meant(rest, path[1:])
