"""State tables: one tuple of moves per model feeds @transition, the database trigger and the diagrams."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pgtrigger


@dataclass(frozen=True, slots=True)
class Move:
    """A named legal move from any of `sources` to `target`."""

    name: str
    sources: tuple[str, ...]
    target: str


def move_arguments(moves: Sequence[Move]) -> Mapping[str, dict[str, Any]]:
    """Per name the `source=` and `target=` that django-fsm's @transition takes."""
    return {move.name: {"source": list(move.sources), "target": move.target} for move in moves}


def state_triggers(prefix: str, moves: Sequence[Move], initial: str | Sequence[str]) -> list[pgtrigger.Trigger]:
    """The net under the row locks: no UPDATE leaves the table of moves, no INSERT starts past the initial state.

    django-fsm's `protected` stops neither `create(status=...)` nor `QuerySet.update()` (measured), hence both triggers.
    """
    pairs = sorted({(source, move.target) for move in moves for source in move.sources})
    allowed = (initial,) if isinstance(initial, str) else tuple(initial)
    listed = ", ".join(f"'{state}'" for state in allowed)
    return [
        pgtrigger.FSM(name=f"{prefix}_moves", field="status", transitions=pairs),
        pgtrigger.Trigger(
            name=f"{prefix}_initial",
            when=pgtrigger.Before,
            operation=pgtrigger.Insert,
            condition=pgtrigger.Condition(f"NEW.status NOT IN ({listed})"),
            func=f"RAISE EXCEPTION '{prefix}: a new row must start in {' or '.join(allowed)}';",
        ),
    ]


def mermaid(moves: Sequence[Move]) -> str:
    """The same table as a Mermaid state diagram, for the documentation."""
    lines = [f"    {source} --> {move.target}: {move.name}" for move in moves for source in move.sources]
    return "\n".join(["stateDiagram-v2", *lines])
