"""Cards, payment methods and payers, out of any of the shapes in which Stripe names them."""

from collections.abc import Mapping

from providers.base import CardFacts, CustomerFacts, MethodFacts
from providers.stripe.reading import Node
from recovery_site.common.text import storable

# Stripe's payment method types in this house's words; any other type keeps its own name.
_KINDS = {
    "card_present": "card",
    "interac_present": "card",
    "us_bank_account": "ach",
    "ach_debit": "ach",
    "bank_account": "ach",
    "sepa_debit": "sepa",
    "bacs_debit": "bacs",
    "au_becs_debit": "becs",
    "nz_bank_account": "nz_becs",
    "acss_debit": "acss",
}
_CARD_TYPES = ("card", "card_present", "interac_present")
# Old card objects spell brands for people ("American Express"), newer ones for machines ("amex").
_NETWORKS = {
    "american_express": "amex",
    "diners_club": "diners",
    "eftpos_australia": "eftpos_au",
    "union_pay": "unionpay",
    "unknown": "",
}
_CARD_KEYS = ("brand", "country", "exp_month", "exp_year", "fingerprint", "funding", "last4")


def method_kind(stripe_type: str) -> str:
    """`us_bank_account` -> `ach`; an empty string if Stripe named no type."""
    return _KINDS.get(stripe_type, stripe_type)


def customer(node: Node, name: str = "customer") -> CustomerFacts | None:
    """The payer an object points to, with what an expanded customer tells; None if there is none."""
    customer_id = node.identifier(name)
    if not customer_id:
        return None
    return expanded_customer(node.node(name)) or CustomerFacts(id=customer_id)


def expanded_customer(node: Node) -> CustomerFacts | None:
    customer_id = node.identifier("id")
    if not customer_id:
        return None
    locales = node.values.get("preferred_locales")
    locale = locales[0] if isinstance(locales, list) and locales and isinstance(locales[0], str) else ""
    return CustomerFacts(
        id=customer_id,
        email=node.text("email", 254),
        name=node.text("name", 200),
        country=country(node.node("address")),
        locale=storable(locale)[:16],
    )


def invoice_customer(invoice: Node) -> CustomerFacts | None:
    """An invoice carries a copy of the payer's address of that day."""
    known = customer(invoice)
    if known is None:
        return None
    return CustomerFacts(
        id=known.id,
        email=invoice.text("customer_email", 254) or known.email,
        name=invoice.text("customer_name", 200) or known.name,
        country=country(invoice.node("customer_address")) or known.country,
        locale=known.locale,
    )


def country(address: Node) -> str:
    """Upper-case ISO 3166 alpha-2; anything else that stands there is no country."""
    code = address.text("country").upper()
    return code if len(code) == 2 and code.isalpha() else ""


def card(node: Node) -> CardFacts | None:
    """A card object or `payment_method_details.card`; None if it is empty.

    The brand, not the network a single charge was routed over, is what stays the same for a co-badged card.
    """
    if not node:
        return None
    return CardFacts(
        fingerprint=node.identifier("fingerprint"),
        network=_network(node),
        last4=node.text("last4", 4),
        exp_month=node.month("exp_month"),
        exp_year=node.year("exp_year"),
        funding=node.text("funding", 20).lower(),
        country=country(node),
        bin=node.text("iin", 8),
        issuer=node.text("issuer", 100),
    )


def _network(node: Node) -> str:
    networks = node.node("networks")
    available = networks.values.get("available")
    first = available[0] if isinstance(available, list) and available and isinstance(available[0], str) else ""
    names = [node.text(name, 40) for name in ("brand", "display_brand", "network")]
    for name in (*names, networks.text("preferred", 40), first[:40]):
        network = name.lower().replace(" ", "_")
        if found := _NETWORKS.get(network, network):
            return found
    return ""


def payment_method(node: Node, previous: Node, *, automatic: bool) -> MethodFacts:
    """A PaymentMethod, or one of the older card, bank account and source objects.

    It counts as updated if the account updater said so or if what identifies or dates the card has changed.
    """
    kind, details = _kind_and_card(node)
    before = _card_before(details, previous)
    return MethodFacts(
        token=node.identifier("id"),
        kind=kind,
        card=card(details) if kind == "card" else None,
        updated=automatic or before is not None,
        previous=before,
    )


def charge_method(charge: Node) -> MethodFacts | None:
    """The method a charge used; None if the charge names no token."""
    details = charge.node("payment_method_details")
    source = charge.node("source")
    token = charge.identifier("payment_method") or charge.identifier("source")
    if not token:
        return None
    stripe_type = details.code("type")
    if not stripe_type:
        kind, face = _kind_and_card(source)
        return MethodFacts(token=token, kind=kind, card=card(face) if kind == "card" else None)
    face = details.node(stripe_type) if stripe_type in _CARD_TYPES else Node({}, details.path)
    return MethodFacts(token=token, kind=method_kind(stripe_type), card=card(face))


def named_method(node: Node, name: str, allowed_types: object = None) -> MethodFacts | None:
    """A method by id or expanded. A bare id tells its kind only by its prefix or by what was allowed."""
    token = node.identifier(name)
    if not token:
        return None
    expanded = node.node(name)
    if expanded:
        kind, face = _kind_and_card(expanded)
        return MethodFacts(token=token, kind=kind, card=card(face) if kind == "card" else None)
    if token.startswith("card_"):
        return MethodFacts(token=token, kind="card")
    if token.startswith("ba_"):
        return MethodFacts(token=token, kind="ach")
    only = allowed_types[0] if isinstance(allowed_types, list) and len(allowed_types) == 1 else ""
    return MethodFacts(token=token, kind=method_kind(only) if isinstance(only, str) else "")


def described(method: MethodFacts | None) -> MethodFacts | None:
    """The method if more is told of it than its token."""
    return method if method is not None and (method.kind or method.card) else None


def invoice_method(invoice: Node) -> MethodFacts | None:
    """What Stripe charges for an invoice: its own method, else the subscription's, else the payer's default, the last
    two only where they are expanded."""
    payer = invoice.node("customer")
    parent = invoice.node("parent").node("subscription_details").node("subscription")
    holders = (
        (invoice, "default_payment_method"),
        (invoice, "default_source"),
        (invoice.node("subscription") or parent, "default_payment_method"),
        (payer.node("invoice_settings"), "default_payment_method"),
        (payer, "default_source"),
    )
    types = invoice.node("payment_settings").values.get("payment_method_types")
    return next((method for holder, name in holders if (method := named_method(holder, name, types))), None)


def default_source(payer: Node) -> MethodFacts | None:
    """The payer's default of the older kind, described where it stands in the list of the payer's sources."""
    method = named_method(payer, "default_source")
    if method is None or method.card is not None:
        return method
    for source in payer.nodes("sources"):
        if source.identifier("id") == method.token:
            kind, face = _kind_and_card(source)
            return MethodFacts(token=method.token, kind=kind, card=card(face) if kind == "card" else None)
    return method


def _kind_and_card(node: Node) -> tuple[str, Node]:
    """Kind and card details of a PaymentMethod, a Source or an old card or bank account object."""
    if node.text("object") == "card":
        return "card", node
    if node.text("object") == "bank_account":
        return "ach", Node({}, node.path)
    stripe_type = node.code("type") or ("card" if node.node("card") else "")
    return method_kind(stripe_type), node.node("card")


def _card_before(details: Node, previous: Node) -> CardFacts | None:
    """The card as it was, from the few keys that changed; None if none of those that matter did."""
    changed = _changed_card_keys(previous)
    if not details or not changed:
        return None
    return card(Node({**details.values, **changed}, previous.path))


def _changed_card_keys(previous: Node) -> Mapping[str, object]:
    values = previous.node("card").values or previous.values
    return {key: values[key] for key in _CARD_KEYS if key in values}
