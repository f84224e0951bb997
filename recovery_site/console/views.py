"""The pages of the staff console. Thin: find what the person may see, call a service, show a page."""

import re
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from functools import wraps
from typing import Any

from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.shortcuts import redirect, render
from django.urls import reverse
from django.views.decorators.http import require_GET

from accounts.current import choose_merchant, current_merchant
from analytics.views import cursor_of
from invoices.models import Invoice
from invoices.services.casework import NOTE_LENGTH, assignable, invoice_assign, note_add
from invoices.services.reviews import review_take
from invoices.states import InvoiceStatus
from recovery_site.common import clock
from recovery_site.common.address import address_check
from recovery_site.common.errors import InvalidInput, RecoveryError
from recovery_site.console.actions import ACTIONS, act, staff_stamp
from recovery_site.console.answers import answered
from recovery_site.console.forms import REASON_LENGTH, ReasonForm, RefundForm, RetryForm
from recovery_site.console.permissions import invoice_for, may_act, require_acting, review_for
from recovery_site.console.queue import Filter, invoice_questions, queue_page
from recovery_site.console.story import invoice_story
from recovery_site.console.story.types import InvoiceStory
from recovery_site.console.work import work_page, work_tabs
from retries.services.answers import review_answer

# How often the page asks for news, in seconds: while something is expected, and when all is quiet.
_POLL_OPEN, _POLL_CLOSED = 5, 30
View = Callable[..., HttpResponse]


@login_required
@require_GET
def invoice_page(request: HttpRequest, public_id: str) -> HttpResponse:
    """One invoice's whole story on one page."""
    invoice = invoice_for(request.user, public_id)
    choose_merchant(request, invoice.merchant)
    return _page(request, invoice)


def _page(
    request: HttpRequest,
    invoice: Invoice,
    *,
    form: ReasonForm | None = None,
    asked: str = "",
    note: str = "",
    status: int = 200,
) -> HttpResponse:
    """The case page; with `form` the question `asked` stands open with what was typed and what is wrong with it."""
    story = invoice_story(invoice, now=clock.now())
    if form is not None and asked not in story.actions:
        # The ledger moved on and the question has no place on the page any more: what is wrong still has to be said.
        for errors in form.errors.values():
            messages.error(request, " ".join(map(str, errors)))
    context = {
        **_context(request, invoice, story, form, asked),
        "members": list(assignable(invoice.merchant_id)),
        "note_length": NOTE_LENGTH,
        "note_text": note,
    }
    return render(request, "console/invoice.html", context, status=status)


def _context(
    request: HttpRequest, invoice: Invoice, story: InvoiceStory, form: ReasonForm | None = None, asked: str = ""
) -> Mapping[str, Any]:
    acting = may_act(request.user, invoice.merchant)
    questions = invoice_questions(invoice, user_pk=request.user.pk, now=story.now)
    return {
        "story": story,
        "questions": questions,
        "questions_key": _key(f"{one.public_id}{one.owner}" for one in questions),
        "invoice": story.invoice,
        "assignee": invoice.assignee,
        "may_act": acting,
        "actions": [ACTIONS[name] for name in ACTIONS if name in story.actions] if acting else [],
        "form": form,
        "asked": asked,
        "reason_length": REASON_LENGTH,
        "poll_seconds": _POLL_OPEN if _expects_news(story) else _POLL_CLOSED,
        "actions_key": _key(story.actions),
    }


def _expects_news(story: InvoiceStory) -> bool:
    return story.next_step.step != "none" or story.invoice.status == InvoiceStatus.REFUNDING


def _key(parts: Iterable[str]) -> str:
    """Stands for a part of the page, so that the page can say which version of it is on the screen."""
    return "-".join(sorted(parts))


@require_GET
def invoice_live(request: HttpRequest, public_id: str) -> HttpResponse:
    """The parts of the page that change by themselves.

    The query says what is on the screen: `seq` the newest event, `actions` and `questions` the keys of those parts.
    A part is sent again only if it differs, so that nobody loses a half-written reason to news about something else.
    """
    if not request.user.is_authenticated:
        return HttpResponse(status=204, headers={"HX-Refresh": "true"})
    invoice = invoice_for(request.user, public_id)
    context = dict(_context(request, invoice, invoice_story(invoice, now=clock.now())))
    context |= {
        "changed": request.GET.get("seq") != str(context["invoice"].last_seq),
        "moved": request.GET.get("actions") != context["actions_key"],
        "asked_anew": request.GET.get("questions") != context["questions_key"],
    }
    return render(request, "console/invoice_live.html", context)


def posted_from(page: str) -> Callable[[View], View]:
    """As require_POST, but whoever comes by the address alone, as after signing in again, lands on the form's page."""

    def decorate(view: View) -> View:
        @wraps(view)
        def only(request: HttpRequest, public_id: str, **known: str) -> HttpResponse:
            if request.method == "POST":
                return view(request, public_id, **known)
            return redirect(page, public_id=public_id) if page == "console:invoice" else redirect(page)

        return only

    return decorate


@login_required
@posted_from("console:invoice")
def invoice_act(request: HttpRequest, public_id: str, action: str) -> HttpResponse:
    """Retry, pause, resume, refund, cancel or write off, with a reason; then back to the page with what happened."""
    invoice = invoice_for(request.user, public_id)
    user = require_acting(request.user, invoice.merchant)
    now = clock.now()
    form = _form(action, request, invoice, now)
    if not form.is_valid():
        return _page(request, invoice, form=form, asked=action, status=400)
    try:
        done = act(action, invoice, user=user, now=now, **form.chosen)
    except RecoveryError as error:
        form.add_error(None, error.message)
        return _page(request, invoice, form=form, asked=action, status=error.http_status)
    messages.success(request, done)
    return redirect("console:invoice", public_id=invoice.public_id)


@login_required
@posted_from("console:invoice")
def invoice_note(request: HttpRequest, public_id: str) -> HttpResponse:
    """Keep a note; it cannot be changed or taken back."""
    invoice = invoice_for(request.user, public_id)
    user = require_acting(request.user, invoice.merchant)
    text = request.POST.get("text", "")
    try:
        note_add(invoice_pk=invoice.pk, text=text, stamp=staff_stamp(user, "note", clock.now()))
    except InvalidInput as error:
        messages.error(request, error.message)
        return _page(request, invoice, note=text, status=400)
    messages.success(request, "The note is kept.")
    return redirect("console:invoice", public_id=invoice.public_id)


@login_required
@posted_from("console:invoice")
def invoice_assignment(request: HttpRequest, public_id: str) -> HttpResponse:
    """Say who looks after an invoice: a member of its merchant, or nobody."""
    invoice = invoice_for(request.user, public_id)
    user = require_acting(request.user, invoice.merchant)
    chosen = request.POST.get("assignee", "")
    try:
        if chosen and not re.fullmatch(r"[0-9]{1,18}", chosen):
            raise InvalidInput("Choose a member of this merchant.")
        invoice_assign(
            invoice_pk=invoice.pk,
            user_pk=int(chosen) if chosen else None,
            stamp=staff_stamp(user, "assignment", clock.now()),
        )
    except InvalidInput as error:
        messages.error(request, error.message)
    else:
        messages.success(request, "The assignment is kept.")
    return redirect("console:invoice", public_id=invoice.public_id)


def _form(action: str, request: HttpRequest, invoice: Invoice, now: datetime) -> ReasonForm:
    """The question's form; what can be chosen in it comes from the invoice as it is now."""
    if action == "retry":
        return RetryForm(request.POST, tokens=invoice_story(invoice, now=now).tokens, now=now)
    if action == "refund":
        return RefundForm(request.POST, refundable=invoice_story(invoice, now=now).refundable)
    return ReasonForm(request.POST)


@login_required
@require_GET
def work(request: HttpRequest) -> HttpResponse:
    """Every work queue with its count, and the rows of one of them."""
    merchant, now = current_merchant(request), clock.now()
    tabs = work_tabs(merchant, now)
    listed = {tab.queue.key: tab for tab in tabs if tab.queue.model}
    busiest = next((tab for tab in listed.values() if tab.count), listed["customer"])
    chosen = listed.get(request.GET.get("queue", ""), busiest).queue
    after = cursor_of(request.GET.get("after", ""))
    address_check(request, queue=chosen.key, after=after)
    context = {
        "merchant": merchant,
        "tabs": tabs,
        "page": work_page(chosen, merchant, after=after, now=now),
        "after": after,
        "bulk": may_act(request.user, merchant) and request.user.is_staff,
        "bulk_url": reverse(f"admin:{chosen.model}_changelist"),
    }
    return render(request, "console/work.html", context)


@login_required
@require_GET
def queue(request: HttpRequest) -> HttpResponse:
    """What only a person can decide, oldest first."""
    merchant = current_merchant(request)
    wanted = Filter.read(request.GET)
    address_check(request, show=wanted.show, kind=wanted.kind, after=wanted.after and request.GET["after"])
    page = queue_page(merchant=merchant, user_pk=request.user.pk, wanted=wanted, now=clock.now())
    context = {
        "page": page,
        "tabs": work_tabs(merchant, page.now),
        "wanted": wanted,
        "merchant": merchant,
        "may_act": may_act(request.user, merchant),
        "reason_length": REASON_LENGTH,
    }
    return render(request, "console/queue.html", context)


@login_required
@posted_from("console:queue")
def queue_take(request: HttpRequest, public_id: str) -> HttpResponse:
    """Take a question, or release it with `release`."""
    item = review_for(request.user, public_id)
    user = require_acting(request.user, item.merchant)
    release = "release" in request.POST
    try:
        review_take(item_pk=item.pk, user_pk=None if release else user.pk, now=clock.now())
    except RecoveryError as error:
        messages.error(request, error.message)
    else:
        messages.success(request, "You released the question." if release else "The question is yours.")
    return _back(request)


@login_required
@posted_from("console:queue")
def queue_answer(request: HttpRequest, public_id: str) -> HttpResponse:
    """Answer a question with a note; the answer takes effect at once."""
    item = review_for(request.user, public_id)
    user = require_acting(request.user, item.merchant)
    form = ReasonForm(request.POST)
    if not form.is_valid():
        messages.error(request, "Nothing was answered: say in the note how you know.")
        return _back(request)
    note, choice = form.cleaned_data["reason"], request.POST.get("choice", "")
    try:
        review_answer(item_pk=item.pk, answer=choice, stamp=staff_stamp(user, note, clock.now()), note=note)
    except RecoveryError as error:
        messages.error(request, error.message)
    else:
        messages.success(request, answered(item, choice))
    return _back(request)


def _back(request: HttpRequest) -> HttpResponseRedirect:
    """To the invoice's page if the form was there, else to the queue."""
    public_id = request.POST.get("invoice", "")
    if public_id:
        return redirect("console:invoice", public_id=invoice_for(request.user, public_id).public_id)
    return HttpResponseRedirect(reverse("console:queue"))
