"""The three addresses of OAuth: consent by a person, tokens for programs, and their end."""

from datetime import timedelta
from typing import Any
from urllib.parse import urlsplit

from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse, JsonResponse
from oauth2_provider.views.base import AuthorizationView, RevokeTokenView, TokenView

from accounts.limits import spend
from accounts.models import OAuthApplication
from accounts.scopes import Scope
from accounts.selectors import scopes_of

# Checking a secret costs time on purpose; nobody needs more tokens than this.
_PER_MINUTE = 60


class Authorize(AuthorizationView):
    """A member of the application's merchant is asked whether it may act for them, as far as their role goes."""

    template_name = "oauth/authorize.html"

    def validate_authorization_request(self, request: HttpRequest) -> tuple[list[str], dict[str, Any]]:
        scopes, credentials = super().validate_authorization_request(request)
        return self._allowed(credentials, scopes), credentials

    def create_authorization_response(
        self, request: HttpRequest, scopes: str, credentials: dict[str, Any], allow: bool
    ) -> Any:
        kept = " ".join(self._allowed(credentials, scopes.split()))
        return super().create_authorization_response(request, kept, credentials, allow)

    def _allowed(self, credentials: dict[str, Any], scopes: list[str]) -> list[str]:
        application = OAuthApplication.objects.select_related("merchant").get(client_id=credentials["client_id"])
        kept = [scope for scope in scopes if scope in scopes_of(self.request.user, application.merchant)]
        if not kept:
            raise PermissionDenied("Your account may do nothing of what this application asks for at its merchant.")
        return kept

    def get_context_data(self, **kwargs: Any) -> dict[str, Any]:
        context: dict[str, Any] = super().get_context_data(**kwargs)
        return {**context, "wanted": [Scope(scope).label for scope in context.get("scopes", ())]}

    def render_to_response(self, context: dict[str, Any], **response_kwargs: Any) -> HttpResponse:
        response: HttpResponse = super().render_to_response(context, **response_kwargs)
        response["Cache-Control"] = "no-store"
        if "redirect_uri" in context:
            # Browsers ask the policy again when the answer to a form leads elsewhere: to the application, here.
            parts = urlsplit(context["redirect_uri"])
            response._csp_update = {"form-action": [f"{parts.scheme}://{parts.netloc}"]}  # type: ignore[attr-defined]
        return response


def _limited(request: HttpRequest) -> JsonResponse | None:
    """As OAuth says it; None while there is room."""
    spent = spend("oauth:token", limit=_PER_MINUTE * 10, window=timedelta(minutes=1))
    if spent.allowed:
        name = str(request.POST.get("client_id", "")) or request.headers.get("Authorization", "")[:60]
        spent = spend(f"oauth:{name[:60]}", limit=_PER_MINUTE, window=timedelta(minutes=1))
    if spent.allowed:
        return None
    body = {"error": "temporarily_unavailable", "error_description": "Too many requests; see Retry-After."}
    return JsonResponse(body, status=429, headers={"Retry-After": str(spent.reset_seconds)})


class Token(TokenView):
    """Tokens for client credentials, for a code with its verifier, and for a refresh token."""

    def post(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
        return _limited(request) or super().post(request, *args, **kwargs)


class Revoke(RevokeTokenView):
    """Ends a token; with an access token its refresh token ends, too."""

    def post(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
        return _limited(request) or super().post(request, *args, **kwargs)
