"""The pages on which an account is connected: choose, enter, test, point its webhooks here, see the first one arrive.

What is typed into a secret field goes into the encrypted column and nowhere else: not back to the page, into no message
and no log.
"""

from django.contrib import messages
from django.contrib.admin.models import ADDITION, CHANGE, LogEntry
from django.contrib.auth.decorators import login_required
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.views.decorators.cache import never_cache
from django.views.decorators.debug import sensitive_post_parameters
from django.views.decorators.http import require_GET, require_http_methods, require_POST

from accounts.current import choose_merchant, current_merchant
from accounts.models import User
from accounts.selectors import may
from accounts.states import Role
from invoices.models import Connection
from invoices.services.parties import connection_check, connection_create, connection_rekey, connection_try
from providers.base import ProviderUnavailable
from recovery_site.common.errors import InvalidInput, RecoveryError
from recovery_site.console.connecting import ConnectForm, guide_of, offers, standing
from recovery_site.console.permissions import connection_for, require_managing
from webhooks.selectors import connection_endpoint
from webhooks.services import endpoint_ensure, endpoint_rotate

# While the first event is waited for, in seconds.
_POLL_SECONDS = 5


@login_required
@require_GET
def connections(request: HttpRequest) -> HttpResponse:
    """The merchant's accounts, and those that can be connected."""
    merchant = current_merchant(request)
    rows = Connection.objects.filter(merchant=merchant).select_related("gateway").order_by("name")
    context = {
        "merchant": merchant,
        "rows": rows,
        "offers": offers(),
        "may_manage": may(request.user, merchant, Role.MANAGER),
    }
    return render(request, "console/connections.html", context)


@login_required
@never_cache
@sensitive_post_parameters()
@require_http_methods(["GET", "POST"])
def connection_new(request: HttpRequest, provider: str) -> HttpResponse:
    """The form of one provider. Credentials are tested before they are kept; a test that failed can be overruled."""
    merchant = current_merchant(request)
    user = require_managing(request.user, merchant)
    try:
        guide = guide_of(provider)
    except InvalidInput as error:
        raise Http404(error.message) from error
    form = ConnectForm(guide, merchant, request.POST.dict())
    context = {"form": form, "guide": guide, "provider": provider, "merchant": merchant}
    if request.method == "GET":
        return render(request, "console/connect.html", context)
    try:
        config = form.config()
        answer = "" if "anyway" in request.POST else connection_try(merchant=merchant, provider=provider, config=config)
        connection = connection_create(
            merchant=merchant, provider=provider, config=config, name=request.POST.get("name", "").strip()
        )
    except RecoveryError as error:
        context |= {"error": error.message, "untested": isinstance(error, ProviderUnavailable)}
        return render(request, "console/connect.html", context, status=400)
    endpoint_ensure(connection)
    _note(user, connection, ADDITION, "Connected in the console.")
    messages.success(request, f"{connection} is connected. {answer}".strip())
    return redirect("console:connection", public_id=connection.public_id)


@login_required
@require_GET
def connection_page(request: HttpRequest, public_id: str) -> HttpResponse:
    """One account: its settings without its secrets, its webhooks, its first event."""
    connection = connection_for(request.user, public_id)
    choose_merchant(request, connection.merchant)
    return render(request, "console/connection.html", _context(request, connection))


def _context(request: HttpRequest, connection: Connection) -> dict[str, object]:
    return {
        "connection": connection,
        "standing": standing(connection),
        "may_manage": may(request.user, connection.merchant, Role.MANAGER),
        "poll_seconds": _POLL_SECONDS,
    }


@require_GET
def connection_live(request: HttpRequest, public_id: str) -> HttpResponse:
    """Whether the first event has arrived."""
    if not request.user.is_authenticated:
        return HttpResponse(status=204, headers={"HX-Refresh": "true"})
    connection = connection_for(request.user, public_id)
    return render(request, "console/_connection_events.html", _context(request, connection))


@login_required
@require_POST
def connection_test(request: HttpRequest, public_id: str) -> HttpResponse:
    """Ask the provider something harmless with the credentials that are kept."""
    connection = connection_for(request.user, public_id)
    require_managing(request.user, connection.merchant)
    try:
        messages.success(request, connection_check(connection))
    except RecoveryError as error:
        messages.error(request, error.message)
    return redirect("console:connection", public_id=connection.public_id)


@login_required
@never_cache
@sensitive_post_parameters()
@require_POST
def connection_credentials(request: HttpRequest, public_id: str) -> HttpResponse:
    """Replace the credentials; they are kept only if the provider accepts them."""
    connection = connection_for(request.user, public_id)
    user = require_managing(request.user, connection.merchant)
    names = [field.name for field in standing(connection).secrets]
    typed = {name: request.POST[name].strip() for name in names if request.POST.get(name, "").strip()}
    try:
        answer = connection_rekey(connection=connection, secrets=typed)
    except RecoveryError as error:
        messages.error(request, f"Nothing was replaced. {error.message}")
    else:
        _note(user, connection, CHANGE, "Credentials replaced in the console.")
        messages.success(request, f"The credentials are replaced. {answer}".strip())
    return redirect("console:connection", public_id=connection.public_id)


@login_required
@never_cache
@sensitive_post_parameters()
@require_POST
def connection_webhooks(request: HttpRequest, public_id: str) -> HttpResponse:
    """Make the address that webhooks go to, or take the secret that the provider signs them with."""
    connection = connection_for(request.user, public_id)
    user = require_managing(request.user, connection.merchant)
    secret = request.POST.get("secret", "").strip()
    try:
        if connection_endpoint(connection) is None or not secret:
            endpoint_ensure(connection)
        if secret:
            _take_secret(user, connection, secret)
            messages.success(request, "The secret is kept. Have the provider send an event now.")
    except RecoveryError as error:
        messages.error(request, error.message)
    return redirect("console:connection", public_id=connection.public_id)


def _take_secret(user: User, connection: Connection, secret: str) -> None:
    endpoint = connection_endpoint(connection)
    if endpoint is None:
        raise InvalidInput("This provider sends no webhooks that this service understands.")
    endpoint_rotate(endpoint_pk=endpoint.pk, secret=secret)
    _note(user, connection, CHANGE, "Webhook secret entered in the console.")


def _note(user: User, connection: Connection, flag: int, text: str) -> None:
    """A line in the admin's log of who did what."""
    LogEntry.objects.log_actions(
        user_id=user.pk,
        queryset=[connection],
        action_flag=flag,
        change_message=text,
        single_object=True,
    )
