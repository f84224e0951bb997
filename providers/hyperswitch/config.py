"""What a connection to Hyperswitch is made of."""

from providers.guide import Guide, Kind, Setting, api_key, timeout

API = "https://api.hyperswitch.io"

GUIDE = Guide(
    title="Hyperswitch",
    modes=("charge", "observe"),
    settings=(
        api_key("a secret key of the merchant account, from Developers, API keys"),
        Setting(
            name="base_url",
            label="Address of the API",
            help=f"{API}, https://sandbox.hyperswitch.io or your own server",
            kind=Kind.URL,
            default=API,
        ),
        Setting(name="profile_id", label="Profile", help="the business profile that charges, pro_..."),
        timeout(30.0, 30.0),
    ),
    events=(
        *("payment_" + name for name in "succeeded failed processing authorized captured".split()),
        "action_required",
        "refund_succeeded",
        "refund_failed",
        *("dispute_" + name for name in "opened expired accepted cancelled challenged won lost".split()),
        "mandate_revoked",
    ),
    where="Hyperswitch's control centre, Developers, Payment settings: this address as the webhook URL.",
    signed_with="The profile's payment response hash key.",
)
