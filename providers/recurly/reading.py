"""Recurly's classic XML: everything is text, numbers and truth values too."""

from dataclasses import dataclass
from typing import ClassVar

from providers import reading


@dataclass(frozen=True, slots=True)
class Node(reading.Node):
    """One object of Recurly's XML or JSON."""

    OWNER: ClassVar[str] = "Recurly"
    AS_TEXT: ClassVar[bool] = True
