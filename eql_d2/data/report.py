"""One report of all that is wrong with an annotation file."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from eql_d2.files import terminal_text

EXAMPLES = 5


@dataclass
class Problem:
    """One kind of problem: how often it was met, and where first."""

    count: int = 0
    examples: list[str] = field(default_factory=list)

    def add(self, example: str) -> None:
        """Count one more."""
        self.count += 1
        if len(self.examples) < EXAMPLES:
            self.examples.append(terminal_text(example))


class ProblemReport:
    """Collects problems by kind. Fatal ones stop; the others were dropped and are only told."""

    def __init__(self) -> None:
        self.fatal: dict[str, Problem] = {}
        self.dropped: dict[str, Problem] = {}

    def stop(self, kind: str, example: str = "") -> None:
        """Note a problem with which the file cannot be used."""
        self.fatal.setdefault(kind, Problem()).add(example)

    def drop(self, kind: str, example: str = "") -> None:
        """Note something that was left out."""
        self.dropped.setdefault(kind, Problem()).add(example)

    @property
    def num_dropped(self) -> int:
        """How many things were left out, of all kinds."""
        return sum(p.count for p in self.dropped.values())

    def lines(self, problems: dict[str, Problem]) -> list[str]:
        """Return one line for each kind of problem."""
        return [f"{p.count:,} x {kind}{_first(p)}" for kind, p in problems.items()]

    def message(self, heading: str) -> str:
        """Return the heading, the fatal problems, and what would have been dropped besides."""
        text = [heading, *_numbered(self.lines(self.fatal))]
        if self.dropped:
            text.append("Besides, these would have been left out:")
            text += _numbered(self.lines(self.dropped))
        return "\n".join(text)


def _first(problem: Problem) -> str:
    examples = [e for e in problem.examples if e]
    if not examples:
        return ""
    more = ", ..." if problem.count > len(examples) else ""
    return f": {', '.join(examples)}{more}"


def _numbered(lines: Iterable[str]) -> list[str]:
    return [f"  {i}. {line}" for i, line in enumerate(lines, 1)]
