"""What a connection to the simulator is made of."""

from providers.guide import Guide, Setting, timeout

GUIDE = Guide(
    title="Simulator",
    modes=("charge", "observe"),
    settings=(
        Setting(name="ledger", label="File of its ledger", help="the path of a file; default: in the data directory"),
        timeout(5.0, 60.0),
    ),
)
