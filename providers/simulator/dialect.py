"""The simulator reports in the generic language."""

from typing import ClassVar

from providers.generic.dialect import GenericDialect


class SimulatorDialect(GenericDialect):
    provider: ClassVar[str] = "simulator"
