"""Hyperswitch's objects: amounts as integers, those of disputes as text."""

from dataclasses import dataclass
from typing import ClassVar

from providers import reading


@dataclass(frozen=True, slots=True)
class Node(reading.Node):
    """One object of Hyperswitch's JSON."""

    OWNER: ClassVar[str] = "Hyperswitch"
    AS_TEXT: ClassVar[bool] = True
