"""The payer's pages. Thin: read the link, say what is, call the service, come back.

No cookie is set and none is read: the token in the address is all there is to prove, so a forged form of another site
can do nothing that its author could not do with the address itself.
"""

from collections.abc import Callable, Mapping
from functools import partial, wraps
from typing import Any, Concatenate, ParamSpec

from csp.decorators import csp_replace
from django.http import HttpRequest, HttpResponse, HttpResponseBase, HttpResponseRedirect
from django.shortcuts import render
from django.urls import reverse
from django.views.decorators.cache import never_cache
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.http import require_http_methods, require_POST, require_safe

from notifications.catalogue import LANGUAGES, Wording, language_of, wording
from notifications.hosted.state import Payer, View, payer_find
from notifications.links import link_token, unsubscribe_read
from notifications.models import Message
from notifications.selectors import settings_of, zone_for
from notifications.services.payers import page_opened, payer_chooses_card, payer_confirms, payer_pays
from notifications.services.suppressions import address_suppress
from notifications.services.writing import card_words, case_reason, described, sender_name
from notifications.states import LinkPurpose, SuppressionReason
from providers.payer import PayerPages, TrialCard, TrialForm
from recovery_site.common import clock
from recovery_site.common.errors import RecoveryError
from recovery_site.common.money import format_money_locally

Rest = ParamSpec("Rest")
PageView = Callable[Concatenate[HttpRequest, Rest], HttpResponse]
_STATUS = {View.INVALID: 404, View.EXPIRED: 410}
# Says that a payment is still under way: the page that waits may run our own script, which looks for it.
_WAITS = "X-Payment-Working"
_NOTICES = ("refused",)
# The sign of each page that only says something: an icon and its tone.
_SIGNS = {
    View.PAID: ("check", "success"),
    View.SAVED: ("check", "success"),
    View.WORKING: ("clock", "info"),
    View.LATER: ("clock", "info"),
    View.CLOSED: ("check", "neutral"),
    View.EXPIRED: ("clock", "warning"),
    View.INVALID: ("info", "warning"),
}


def payer_page(view: PageView[Rest]) -> Callable[Concatenate[HttpRequest, Rest], HttpResponseBase]:
    """Headers of a page that is a secret: nowhere stored, listed, framed or named to others, and without script unless
    it waits for a payment.

    Forms may lead to https addresses: to the provider's own page, by a redirect.
    """

    @wraps(view)
    def page(request: HttpRequest, /, *args: Rest.args, **kwargs: Rest.kwargs) -> HttpResponseBase:
        response = view(request, *args, **kwargs)
        scripts = ["'self'"] if _WAITS in response.headers else ["'none'"]
        policy = {"script-src": scripts, "connect-src": scripts, "form-action": ["'self'", "https:"]}
        response["Referrer-Policy"] = "no-referrer"
        response["X-Robots-Tag"] = "noindex, nofollow, noarchive"
        return csp_replace(policy)(lambda request: response)(request)

    return csrf_exempt(never_cache(page))


@payer_page
@require_safe
def page(request: HttpRequest, token: str) -> HttpResponse:
    """What is owed, and what can be done about it."""
    now = clock.now()
    payer = payer_find(token, now)
    if isinstance(payer, View):
        return _nothing(request, payer)
    prefetch = "prefetch" in request.headers.get("Sec-Purpose", request.headers.get("Purpose", ""))
    if request.method == "GET" and not prefetch:
        page_opened(link=payer.link, now=now)
    spoken = _spoken(request, payer)
    if payer.view not in (View.PAYABLE, View.CARD):
        return _told(request, payer.view, spoken, payer)
    return render(request, "hosted/page.html", _context(request, payer, spoken))


@payer_page
@require_POST
def pay(request: HttpRequest, token: str) -> HttpResponse:
    """Charge the payment method on file, now."""
    payer = payer_find(token, clock.now())
    if isinstance(payer, View):
        return _nothing(request, payer)
    return _act(request, payer, lambda: payer_pays(link=payer.link, now=clock.now()))


@payer_page
@require_POST
def method(request: HttpRequest, token: str) -> HttpResponse:
    """Another payment method: off to the provider's page, or what the test form says."""
    payer = payer_find(token, clock.now())
    if isinstance(payer, View):
        return _nothing(request, payer)
    if isinstance(payer.form, PayerPages):
        return _away(request, payer, partial(payer.form.method_page, customer=_customer(payer)))
    card = request.POST.get("card", "")
    if card not in set(TrialCard):
        return _back(request, payer, "refused")
    return _act(request, payer, lambda: payer_chooses_card(link=payer.link, card=TrialCard(card), now=clock.now()))


@payer_page
@require_http_methods(["GET", "HEAD", "POST"])
def confirm(request: HttpRequest, token: str) -> HttpResponse:
    """The bank's question: on the provider's page, or the test bank's on ours."""
    payer = payer_find(token, clock.now())
    if isinstance(payer, View):
        return _nothing(request, payer)
    if payer.view is not View.PAYABLE or not payer.must_confirm or payer.token is None:
        return _back(request, payer)
    if isinstance(payer.form, PayerPages):
        invoice = payer.invoice.provider_invoice_id or ""
        return _away(request, payer, partial(payer.form.confirm_page, customer=_customer(payer), invoice=invoice))
    if request.method != "POST" or "answer" not in request.POST:
        return render(request, "hosted/bank.html", _context(request, payer, _spoken(request, payer)))
    if request.POST["answer"] != "yes":
        return _back(request, payer)
    method_on_file = payer.token
    return _act(request, payer, lambda: payer_confirms(link=payer.link, token=method_on_file, now=clock.now()))


@payer_page
@require_http_methods(["GET", "HEAD", "POST"])
def unsubscribe(request: HttpRequest, token: str) -> HttpResponse:
    """One click by the mail client (a POST, RFC 8058), or by a person who is asked once."""
    public_id = unsubscribe_read(token)
    message = (
        Message.objects.select_related("customer__merchant").filter(public_id=public_id).first() if public_id else None
    )
    if message is None:
        return _nothing(request, View.INVALID)
    spoken = wording(_chosen(request) or message.locale or "en")
    words = _words(spoken, merchant=sender_name(message.customer, settings_of(message.merchant_id)))
    context = {"t": words, "language": spoken.language, "languages": _languages(request)}
    if request.method != "POST":
        return render(request, "hosted/unsubscribe.html", context)
    address_suppress(
        merchant_pk=message.merchant_id,
        address=message.address,
        reason=SuppressionReason.OPT_OUT,
        now=clock.now(),
        message=message,
    )
    told = {"title": words["unsubscribed_title"], "text": words["unsubscribed_text"]}
    return render(request, "hosted/told.html", {**context, **told, "sign": "check", "tone": "success"})


# --- answers ------------------------------------------------------------------------------------------------------


def _nothing(request: HttpRequest, view: View) -> HttpResponse:
    """A kind page that tells nothing but that: no name, no amount, the same for every such link."""
    spoken = wording(_chosen(request) or _browser(request))
    return render(request, "hosted/told.html", _telling(request, view, spoken), status=_STATUS[view])


def _telling(request: HttpRequest, view: View, spoken: Wording) -> dict[str, Any]:
    """What every page that only says something shows: a sign, a title, a sentence."""
    words = _words(spoken)
    sign, tone = _SIGNS[view]
    return {
        "t": words,
        "title": words[f"{view}_title"],
        "text": words[f"{view}_text"],
        "sign": sign,
        "tone": tone,
        "language": spoken.language,
        "languages": _languages(request),
    }


def _told(request: HttpRequest, view: View, spoken: Wording, payer: Payer) -> HttpResponse:
    waits = view is View.WORKING
    context = {
        **_telling(request, view, spoken),
        "merchant": sender_name(payer.link.customer, settings_of(payer.link.merchant_id)),
        "waits": waits,
        "again": _page_address(request, payer) if view in (View.WORKING, View.LATER) else "",
    }
    response = render(request, "hosted/told.html", context)
    if waits:
        response[_WAITS] = "1"
    return response


def _act(request: HttpRequest, payer: Payer, act: Callable[[], object]) -> HttpResponse:
    """Do it if the page still offers it, and come back to the page, which says what came of it."""
    if payer.view not in (View.PAYABLE, View.CARD):
        return _back(request, payer)
    try:
        act()
    except RecoveryError:
        # Whatever the ledger's reason is, it is written for staff; the payer hears that it is not possible now.
        return _back(request, payer, "refused")
    return _back(request, payer)


def _away(request: HttpRequest, payer: Payer, address: Callable[..., str]) -> HttpResponse:
    """To the provider's own page, which leads back here; where it has none, to the merchant's own address."""
    back = request.build_absolute_uri(_page_address(request, payer))
    try:
        target = address(return_url=back) or settings_of(payer.link.merchant_id).method_url
    except RecoveryError:
        target = ""
    return HttpResponseRedirect(target, status=303) if target else _back(request, payer, "refused")


def _customer(payer: Payer) -> str:
    return payer.link.customer.connector_customer_id


def _back(request: HttpRequest, payer: Payer, notice: str = "") -> HttpResponse:
    return HttpResponseRedirect(_page_address(request, payer, notice), status=303)


def _page_address(request: HttpRequest, payer: Payer, notice: str = "") -> str:
    """The payer's page in the language that was chosen."""
    query = {name: value for name, value in (("lang", _chosen(request)), ("notice", notice)) if value}
    return reverse("hosted:page", args=[link_token(payer.link.public_id)], query=query)


# --- words --------------------------------------------------------------------------------------------------------


def _chosen(request: HttpRequest) -> str:
    """The language asked for in the address, if it is one of ours."""
    return language_of(request.GET.get("lang", ""))


def _browser(request: HttpRequest) -> str:
    """The browser's first language that is shipped."""
    wanted = request.headers.get("Accept-Language", "").split(",")
    return next((found for part in wanted[:10] if (found := language_of(part.partition(";")[0].strip()))), "en")


def _spoken(request: HttpRequest, payer: Payer) -> Wording:
    own, default = payer.link.customer.locale, settings_of(payer.link.merchant_id).default_locale
    chosen = _chosen(request)
    if chosen:
        return wording(own if language_of(own) == chosen else chosen)
    return wording(next((locale for locale in (own, default) if language_of(locale)), "en"))


def _languages(request: HttpRequest) -> list[tuple[str, str, str]]:
    """Code, own name and address of every language, for the links at the foot."""
    return [(code, wording(code).say("words", "language"), f"?lang={code}") for code in LANGUAGES]


def _words(spoken: Wording, **values: str) -> Mapping[str, str]:
    """All sentences of the pages, filled; what has no value here is not shown either."""
    known = {"merchant": "", "amount": "", "card": "", "contact": "", **values}
    return {key: text.format_map(known) for key, text in spoken.sentences["page"].items()}


def _context(request: HttpRequest, payer: Payer, spoken: Wording) -> dict[str, Any]:
    link, invoice = payer.link, payer.invoice
    settings, zone, now = settings_of(link.merchant_id), zone_for(link.customer), clock.now()
    card = payer.token.card if payer.token else None
    amount = format_money_locally(invoice.due_minor, invoice.currency, spoken.locale)
    merchant = sender_name(link.customer, settings)
    words = _words(spoken, merchant=merchant, amount=amount, card=card_words(card, spoken), contact=settings.contact)
    token = link_token(link.public_id)
    only_card = payer.view is View.CARD or (link.purpose == LinkPurpose.CARD and not invoice.due_minor)
    return {
        "t": words,
        "language": spoken.language,
        "languages": _languages(request),
        "query": f"?lang={_chosen(request)}" if _chosen(request) else "",
        "urls": {name: reverse(f"hosted:{name}", args=[token]) for name in ("page", "pay", "method", "confirm")},
        "merchant": merchant,
        "contact": settings.contact,
        "amount": amount,
        "description": described(invoice, spoken),
        "number": invoice.number,
        "due_since": spoken.date(invoice.due_at, zone) if invoice.due_at else "",
        "reason": spoken.say("reasons", case_reason(payer.case, card, now)) if payer.case and not only_card else "",
        "card": card_words(card, spoken) if card else "",
        "card_usable": payer.may_pay,
        "only_card": only_card,
        "may_pay": payer.may_pay and not payer.must_confirm,
        "must_confirm": payer.must_confirm,
        "declined": payer.declined,
        "notice": request.GET.get("notice") in _NOTICES,
        "trial": isinstance(payer.form, TrialForm),
        "pages": isinstance(payer.form, PayerPages),
        "method_url": settings.method_url,
        "cards": [(card.value, words[f"test_{card.value}"]) for card in TrialCard],
    }
