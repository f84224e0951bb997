"""Cards and tokens: learned from events, stopped by networks, revived by updates. All under the customer's lock."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

import structlog
from django.conf import settings
from django.db import DEFAULT_DB_ALIAS, transaction
from django.db.models.functions import Now
from django.db.transaction import TransactionManagementError

from accounts.models import Merchant
from invoices.models import Customer
from providers.base import CardFacts, MethodFacts
from recovery_site.common.compiled import Compiled, Param
from recovery_site.common.db import for_no_key_update, prepared_cursor
from recovery_site.common.errors import InvalidInput
from recovery_site.common.in_step import ask, own
from recovery_site.common.rows import row_insert, row_save, turned
from tokens.mirror import mirror_after_commit
from tokens.models import Card, RetryLimit, Token
from tokens.networks import normalise_network
from tokens.rules import RuleError, RuleOverride, load_rules
from tokens.selectors import card_expires_at
from tokens.states import TokenStatus

log = structlog.get_logger()
# A provider's clock and ours agree to this much.
_CLOCKS_DIFFER = timedelta(minutes=1)
# The fingerprint of a card that no event has described yet starts with this.
_UNDESCRIBED = "token:"


@dataclass(frozen=True, slots=True)
class MethodKeys:
    """Primary keys of a token and of the card its latest description names (not always the token's yet)."""

    token_pk: int
    card_pk: int


def method_ensure(
    *,
    customer: Customer,
    method: MethodFacts,
    now: datetime,
    told_at: datetime | None = None,
    payment_id: str = "",
) -> MethodKeys:
    """The token and its card, created if new. Locks no existing row, so that `cards_lock` can take all in order.

    A token without a fingerprint gets a card of its own. Raises InvalidInput for an impossible token.
    """
    if not method.token or len(method.token) > 200:
        raise InvalidInput("A payment method's token must have 1 to 200 characters.")
    known = _KNOWN.first(connection=customer.connection_id, token=method.token)
    if known is not None and (method.card is None or not method.card.fingerprint):
        return MethodKeys(known.pk, known.card_id)
    card_pk = _card_ensure(customer, method)
    if known is not None:
        return MethodKeys(known.pk, card_pk)
    token = Token(
        merchant_id=customer.merchant_id,
        connection_id=customer.connection_id,
        customer=customer,
        card_id=card_pk,
        provider_token=method.token,
        added_by_payment_id=payment_id,
        first_seen_at=now,
        described_at=told_at if method.card is not None else None,
    )
    if not row_insert(token, unless_there=True):
        (token,) = _KNOWN.all(connection=customer.connection_id, token=method.token)
    return MethodKeys(token.pk, card_pk)


_KNOWN = Compiled(
    lambda: Token.objects.filter(connection=Param("connection"), provider_token=Param("token")).order_by("pk")[:1]
)


def _fingerprint(method: MethodFacts) -> str:
    if method.card is not None and method.card.fingerprint:
        return method.card.fingerprint[:200]
    return f"{_UNDESCRIBED}{method.token}"[:200]


def _card_ensure(customer: Customer, method: MethodFacts) -> int:
    fingerprint = _fingerprint(method)
    facts = method.card or CardFacts()
    kind = method.kind[:20] or "card"  # a bare token tells no rail
    known = _CARD.first(connection=customer.connection_id, fingerprint=fingerprint)
    if known is not None:
        return known
    card = Card(
        merchant_id=customer.merchant_id,
        connection_id=customer.connection_id,
        fingerprint=fingerprint,
        kind=kind,
        network=normalise_network(facts.network if kind == "card" else kind),
        **_details(facts),
    )
    if row_insert(card, unless_there=True):
        return card.pk
    (pk,) = _CARD.all(connection=customer.connection_id, fingerprint=fingerprint)
    return pk


_CARD = Compiled(
    lambda: Card.objects.filter(connection=Param("connection"), fingerprint=Param("fingerprint")).values_list(
        "pk", flat=True
    )
)


def _details(facts: CardFacts) -> dict[str, object]:
    return {
        "last4": facts.last4[-4:],
        "exp_month": facts.exp_month,
        "exp_year": facts.exp_year,
        "funding": facts.funding[:20],
        "country": facts.country[:2].upper(),
        "bin": facts.bin[:8],
        "issuer": facts.issuer[:100],
    }


def cards_lock(customer: Customer, *, also: Sequence[int] = ()) -> list[Card]:
    """Lock every card of the customer (and those in `also`) and all that share a budget group, by primary key.

    The second lock of every money operation; returns the locked rows. Whoever takes it is about to change what Redis
    mirrors, so the customer is mirrored once the transaction has committed (step 5 of the charge protocol).
    """
    mirror_after_commit(customer.pk)
    return _groups_lock(customer.pk, also)


_CARD_FIELDS = [field.attname for field in Card._meta.concrete_fields]
_CARDS_LOCK = f"SELECT {', '.join(_CARD_FIELDS)} FROM tokens_cards_lock(%s, %s)"  # noqa: S608  (names of columns)
_GROUPS = """
SELECT token.customer_id, card.id, card.budget_group FROM tokens_token token
JOIN tokens_card card ON card.id = token.card_id WHERE token.customer_id = ANY(%s::bigint[])
UNION ALL
SELECT NULL, id, budget_group FROM tokens_card WHERE id = ANY(%s::bigint[])
"""


def _groups_lock(customer_pk: int | None, also: Sequence[int]) -> list[Card]:
    """The customer's cards, those in `also` and all of their groups, locked by the database's own function."""
    if transaction.get_autocommit():
        raise TransactionManagementError("Cards are locked inside of a transaction only.")
    cards: list[Card] = ask("cards", _groups_lock_many, (customer_pk, also))
    own((Card, card.pk) for card in cards)
    return cards


def _groups_lock_many(many: Sequence[tuple[int | None, Sequence[int]]]) -> list[list[Card]]:
    """For many customers at once, all in one order: whose cards share a group gets the same cards."""
    customers = [customer for customer, _ in many if customer is not None]
    named = [pk for _, also in many for pk in also]
    with prepared_cursor() as cursor:
        cursor.execute(_CARDS_LOCK, [customers, named])
        locked = cursor.fetchall()
        if len(many) == 1:
            return [[Card.from_db(DEFAULT_DB_ALIAS, _CARD_FIELDS, row) for row in locked]]
        cursor.execute(_GROUPS, [customers, named])
        places = cursor.fetchall()
    group = _CARD_FIELDS.index("budget_group")
    found = []
    for customer_pk, also in many:
        groups = {
            theirs for owner, card, theirs in places if card in also or (owner is not None and owner == customer_pk)
        }
        found.append([Card.from_db(DEFAULT_DB_ALIAS, _CARD_FIELDS, row) for row in locked if row[group] in groups])
    return found


# What is told of a token again and again.
_APPLIED = ("card_id", "status", "decline_code", "declined_at", "is_default", "described_at")
_LOCKED = Compiled(lambda: for_no_key_update(Token.objects.filter(pk=Param("pk"))))


def method_apply(
    *,
    customer: Customer,
    cards: Sequence[Card],
    keys: MethodKeys,
    method: MethodFacts,
    now: datetime,
    told_at: datetime | None = None,
) -> bool:
    """Take over what the provider says about a token and its card, both locked. True if a dead token lives again.

    A new card or a new expiry revives the token unless the network's stop outlives it (MAC 03/21, R0, R1, R3); a token
    whose card had expired is as dead as a declined one. A card that replaces another under the same token joins the
    old one's budget group: counted together, nothing copied. The first description of a card that had none so far is
    no new card. Another customer's token is left as it is. What was told (`told_at`) before the last description, and
    comes late, is about a card of then: it joins the group, and the token stays with the card of now. Nor does anything
    revive what was refused after it was told.
    """
    (token,) = _LOCKED.all(pk=keys.token_pk)
    if token.customer_id != customer.pk:
        return False
    before = [getattr(token, name) for name in _APPLIED]
    by_pk = {card.pk: card for card in cards}
    old, new = by_pk[token.card_id], by_pk[keys.card_pk]
    changed = new.pk != old.pk
    if told_at is not None and method.card is not None:
        if token.described_at is not None and told_at < token.described_at:
            if changed:
                _join_group(old, new, cards)
            return False
        token.described_at = told_at
    dead = token.status == TokenStatus.DECLINED or _expired(old, now)
    if changed:
        _join_group(new, old, cards)
        token.card = new
    fresh = _card_describe(new, method.card) if method.card is not None else False
    renewed = (changed and not old.fingerprint.startswith(_UNDESCRIBED)) or fresh or method.updated
    dead = (dead or new.stopped_at is not None) and token.status != TokenStatus.REMOVED
    refused = [at for at in (token.declined_at, old.stopped_at, new.stopped_at) if at is not None]
    news = told_at is None or told_at + _CLOCKS_DIFFER >= max(refused, default=told_at)
    revived = dead and renewed and news and _revivable(old, new) and not _expired(new, now)
    if revived:
        token.status, token.decline_code, token.declined_at = TokenStatus.LIVE, "", None
        new.stopped_at, new.stop_code = None, ""
        row_save(new, "stopped_at", "stop_code")
    if method.is_default and not token.is_default:
        Token.objects.filter(customer=customer, is_default=True).update(is_default=False)
        token.is_default = True
    if before != [getattr(token, name) for name in _APPLIED]:
        row_save(token, *_APPLIED)
    return revived


def _expired(card: Card, now: datetime) -> bool:
    expires_at = card_expires_at(card)
    return expires_at is not None and expires_at <= now


def _revivable(old: Card, new: Card) -> bool:
    return all(card.stopped_at is None or card.stop_revivable for card in (old, new))


def _join_group(new: Card, old: Card, cards: Sequence[Card]) -> None:
    """Both groups become one: what a network asked of any card of it for good, or to wait for, it asked of them all."""
    group = [card for card in cards if card.budget_group in (new.budget_group, old.budget_group)]
    stop = next((card for card in group if card.stopped_at is not None and not card.stop_revivable), None)
    wait_until = max((card.wait_until for card in group if card.wait_until is not None), default=None)
    for card in group:
        card.budget_group, card.wait_until = old.budget_group, wait_until
        if stop is not None and (card.stopped_at is None or card.stop_revivable):
            card.stopped_at, card.stop_code, card.stop_revivable = stop.stopped_at, stop.stop_code, False
        row_save(card, "budget_group", "wait_until", "stopped_at", "stop_code", "stop_revivable")


def _card_describe(card: Card, facts: CardFacts) -> bool:
    """Fill in and correct a card's details; True if its expiry moved to a later month.

    It never moves to an earlier one: tokens of one card may have been made in different years, and the old month told
    again and again would make the true one look new each time.
    """
    before = (card.exp_year or 0, card.exp_month or 0)
    values = {key: value for key, value in _details(facts).items() if value}
    if (facts.exp_year or 0, facts.exp_month or 0) < before:
        values = {key: value for key, value in values.items() if key not in ("exp_month", "exp_year")}
    if facts.network:
        values["network"] = normalise_network(facts.network)
    changed = [key for key, value in values.items() if getattr(card, key) != value]
    for key in changed:
        setattr(card, key, values[key])
    if changed:
        row_save(card, *changed)
    return before != (0, 0) and (card.exp_year or 0, card.exp_month or 0) > before


def token_decline(*, token_pk: int, code: str, now: datetime, card_pk: int | None = None) -> None:
    """A hard decline: this token is not charged again until the card behind it changes. `card_pk` is the card that was
    refused: a token that has another one by now stays alive. So does one that has paid since, should the decline of
    `now` be told late. A later decline of a dead token moves its date on."""
    refused = Token.objects.filter(pk=token_pk).exclude(status=TokenStatus.REMOVED).exclude(last_success_at__gt=now)
    if card_pk is not None:
        refused = refused.filter(card_id=card_pk)
    refused.exclude(status=TokenStatus.DECLINED, declined_at__gte=now).update(
        status=TokenStatus.DECLINED, decline_code=code[:100], declined_at=now
    )


def token_hold(*, token_pk: int, code: str, now: datetime) -> None:
    """Our set-up at the provider cannot charge this token: it waits until somebody has repaired that."""
    live = Token.objects.filter(pk=token_pk, status=TokenStatus.LIVE)
    live.update(status=TokenStatus.HELD, decline_code=code[:100], declined_at=now)


def token_release(*, token_pk: int) -> None:
    """The set-up is repaired: the token may be charged again."""
    held = Token.objects.filter(pk=token_pk, status=TokenStatus.HELD)
    held.update(status=TokenStatus.LIVE, decline_code="", declined_at=None)


_SUCCEED = """
UPDATE tokens_token token SET last_success_at = GREATEST(token.last_success_at, alive.at),
    status = CASE WHEN alive.proven THEN 'live' ELSE token.status END,
    decline_code = CASE WHEN alive.proven THEN '' ELSE token.decline_code END,
    declined_at = CASE WHEN alive.proven THEN NULL ELSE token.declined_at END
FROM (
    SELECT known.id, told.at,
        known.status <> 'removed' AND NOT (known.status = 'declined' AND known.declined_at > told.at) IS TRUE AS proven
    FROM tokens_token known JOIN (
        SELECT token, max(at) AS at FROM unnest(%(tokens)s::bigint[], %(times)s::timestamptz[]) each(token, at)
        GROUP BY token
    ) told ON told.token = known.id
    ORDER BY known.id FOR NO KEY UPDATE OF known
) alive
WHERE token.id = alive.id
"""


def token_succeed(*, token_pk: int, at: datetime) -> None:
    """A success of `at` proves the token alive, unless it was refused for good after that and the success is told late.

    What was counted before stays counted.
    """
    ask("token succeeds", _succeed, (token_pk, at), writes=True)


def _succeed(many: Sequence[tuple[int, datetime]]) -> Sequence[None]:
    tokens, times = turned(many)
    with prepared_cursor() as cursor:
        cursor.execute(_SUCCEED, {"tokens": tokens, "times": times})
    return [None] * len(many)


def token_remove(*, token_pk: int) -> None:
    """The provider forgot the token; it can never be charged again."""
    Token.objects.filter(pk=token_pk).update(status=TokenStatus.REMOVED, is_default=False)


def cards_stop(*, cards: Sequence[Card], code: str, revivable: bool, now: datetime) -> None:
    """The network said never again: every (locked) card of this budget group is refused from now on.

    A stop that no new expiry lifts stays one, whatever milder word comes after it.
    """
    for card in cards:
        if card.stopped_at is not None and not card.stop_revivable:
            continue
        card.stopped_at, card.stop_code, card.stop_revivable = now, code[:40], revivable
        row_save(card, "stopped_at", "stop_code", "stop_revivable")


def cards_wait(*, cards: Sequence[Card], until: datetime) -> None:
    """The network said not before `until`, for the (locked) cards of one group; a later word never shortens it."""
    for card in cards:
        card.wait_until = max(until, card.wait_until or until)
        row_save(card, "wait_until")


@transaction.atomic
def cards_link(*, card: Card, other: Card, actor: str, reason: str) -> None:
    """One account under two names (another connection, another fingerprint): from now on both cards and all of their
    groups are locked, counted, stopped and made to wait together. Nothing takes that back.

    Locks the cards, as every charge with one of them does. Raises InvalidInput for cards of two merchants.
    """
    if card.merchant_id != other.merchant_id:
        raise InvalidInput("The cards belong to two merchants, whose tries the networks count apart.")
    cards = _groups_lock(None, (card.pk, other.pk))
    by_pk = {one.pk: one for one in cards}
    _join_group(by_pk[other.pk], by_pk[card.pk], cards)
    for customer_pk in set(Token.objects.filter(card__in=(card.pk, other.pk)).values_list("customer_id", flat=True)):
        mirror_after_commit(customer_pk)
    log.info("cards_link", card=card.public_id, other=other.public_id, actor=actor, reason=reason[:300])


def retry_limit_check(*, network: str, name: str, limit: int, now: datetime) -> None:
    """Raises InvalidInput for a limit looser than the network's rule in force, or for a rule that is none."""
    try:
        load_rules().check_override(RuleOverride(network, name, limit), now, visa_limit=settings.VISA_RETRY_LIMIT)
    except RuleError as error:
        raise InvalidInput(str(error)) from error


@transaction.atomic
def retry_limit_set(
    *, merchant: Merchant, network: str, name: str, limit: int | None, actor: str, now: datetime
) -> None:
    """Set (or with None lift) a merchant's own limit for a rule of a network (`*`: of all), from now on.

    Raises InvalidInput for a limit looser than the network's rule or for a rule that is none.
    """
    own = RetryLimit.objects.filter(merchant=merchant, network=network, name=name)
    if limit is None:
        own.delete()
    else:
        retry_limit_check(network=network, name=name, limit=limit, now=now)
        RetryLimit.objects.update_or_create(
            merchant=merchant,
            network=network,
            name=name,
            defaults={"limit": limit, "changed_by": actor[:100], "changed_at": Now()},
        )
    log.info("retry_limit_set", merchant=merchant.public_id, network=network, rule=name, limit=limit, actor=actor)


def token_name_at_gateway(*, token_pk: int, gateway_token: str, gateway_customer_id: str) -> None:
    """Keep what the gateway calls a biller's payment method. Takes no lock: the charge that uses it comes later."""
    Token.objects.filter(pk=token_pk).update(
        gateway_token=gateway_token[:200], gateway_customer_id=gateway_customer_id[:200]
    )
