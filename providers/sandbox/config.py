"""What a connection to the sandbox is made of (docs/sandbox_psp.md)."""

from providers.guide import Guide, Kind, Setting, timeout

GUIDE = Guide(
    title="Sandbox",
    modes=("charge", "observe"),
    settings=(
        Setting(
            name="base_url",
            label="Address of the sandbox",
            help="its address, such as http://127.0.0.1:8100",
            kind=Kind.URL,
            required=True,
        ),
        Setting(name="api_key", label="Key", help="anything: the sandbox asks for none", kind=Kind.SECRET),
        timeout(10.0, 120.0),
    ),
    events=("charge.succeeded", "charge.declined", "charge.pending", "refund.succeeded", "refund.failed"),
    where="PUT /webhook of the sandbox with this address and the secret; it sends all its events.",
    signed_with="The secret that was given to the sandbox with PUT /webhook, whsec_...",
)
