"""What a connection to Chargebee is made of."""

from providers.guide import Guide, Setting, another_address, api_key, charge_through, timeout

GUIDE = Guide(
    title="Chargebee",
    modes=("collect", "charge", "observe"),
    settings=(
        Setting(
            name="site",
            label="Site",
            help="the name of the site, such as acme-test of acme-test.chargebee.com",
            required=True,
        ),
        api_key("a full-access API key of the site"),
        charge_through(),
        another_address("https://proxy.example/api/v2"),
        timeout(30.0, 120.0),
    ),
    events=(
        "payment_failed",
        "payment_succeeded",
        "payment_initiated",
        "payment_refunded",
        "refund_initiated",
        "transaction_updated",
        "invoice_generated",
        "invoice_updated",
        "invoice_deleted",
        "credit_note_created",
        "dunning_updated",
        "card_updated",
        "card_deleted",
        "card_expired",
        "card_expiry_reminder",
        "payment_source_added",
        "payment_source_updated",
        "payment_source_deleted",
        "payment_source_expired",
        "payment_source_expiring",
        "subscription_cancelled",
    ),
    where="Chargebee, Settings, Configure Chargebee, Webhooks: this address, API version 2, with Basic authentication.",
    signed_with="user:password, as entered for the webhook's Basic authentication.",
)
