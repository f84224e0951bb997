"""What every admin page shares: one's own merchants only, no counting of big tables, read-only unless said so."""

import json
from collections.abc import Callable, Sequence
from functools import cached_property, lru_cache
from typing import Any

from django.contrib import admin, messages
from django.contrib.admin.helpers import ACTION_CHECKBOX_NAME
from django.core.paginator import Paginator
from django.db.models import Model, QuerySet
from django.http import HttpRequest
from django.template import Context, Template
from django.template.response import TemplateResponse
from django.utils.html import format_html
from django.utils.safestring import SafeString

from accounts.current import merchant_note
from accounts.models import Merchant
from accounts.selectors import may, merchants_for, merchants_with_role
from accounts.states import Role
from recovery_site.common.money import format_money
from recovery_site.common.scrubbing import scrub_text

# Lists page through at most this many rows; who needs row 2,001 narrows the filter instead.
LIST_LIMIT = 2_000
# Bulk actions work one row after the other, each in its own transaction.
ACTION_LIMIT = 500
_SUFFIXES = {(), ("exact",), ("id", "exact"), ("isnull",), ("isempty",), ("gte",), ("lt",), ("in",)}
# Foreign keys by which other pages link to a list.
_LINKED = frozenset({"invoice", "customer", "case", "card", "run", "id", "pk"})


def _parameter(entry: Any) -> str:
    """The name that an entry of `list_filter` has in the URL."""
    if isinstance(entry, str):
        return entry
    return str(getattr(entry, "parameter_name", "") or entry[0])


class BoundedPaginator(Paginator):
    """Counts no further than the limit, so that a list over millions of rows costs as much as one over thousands."""

    @cached_property
    def count(self) -> int:
        rows: QuerySet[Any] = self.object_list  # type: ignore[assignment]
        return len(rows.order_by().values_list("pk", flat=True)[:LIST_LIMIT])

    @property
    def capped(self) -> bool:
        """True if there may be more rows than the pages show."""
        return self.count >= LIST_LIMIT


def merchant_pks(request: HttpRequest) -> list[int]:
    """Primary keys of the person's merchants, read once a request.

    As values, not as a subquery: PostgreSQL then knows how many rows each has, and does not look for the few rows of a
    small merchant through the whole table (863 ms of a list, measured beside a merchant with 800,000 attempts).
    """
    kept: list[int] | None = getattr(request, "_merchant_pks", None)
    if kept is None:
        kept = list(merchants_for(request.user).order_by().values_list("pk", flat=True))
        request._merchant_pks = kept  # type: ignore[attr-defined]
    return kept


class MemberFilter(admin.RelatedFieldListFilter):
    """A foreign key filter that offers only rows of the person's own merchants."""

    def field_choices(self, field, request, model_admin):
        path = "pk__in" if field.related_model is Merchant else "merchant__in"
        limit = {path: merchants_for(request.user)}
        return field.get_choices(include_blank=False, limit_choices_to=limit, ordering=("pk",))


def values_filter(field: str, values: Sequence[str]) -> type[admin.SimpleListFilter]:
    """A filter that offers known values: asking a big table which ones it holds would read all of it."""

    class ValuesFilter(admin.SimpleListFilter):
        title = field.replace("_", " ")
        parameter_name = field

        def lookups(self, request, model_admin):
            return [(value, value.replace("_", " ").capitalize()) for value in values]

        def queryset(self, request, queryset):
            return queryset.filter(**{field: self.value()}) if self.value() in values else queryset

    return ValuesFilter


class TenantAdmin(admin.ModelAdmin):
    """Rows of the person's merchants, to look at. A subclass that lets people change rows says which role may."""

    merchant_path = "merchant"
    change_role: Role | None = None
    show_full_result_count = False
    paginator = BoundedPaginator
    # Counts beside filters are a COUNT(*) each.
    show_facets = admin.ShowFacets.NEVER
    list_per_page = 50
    list_max_show_all = 0
    sortable_by = ()
    # Exact matches only, each by its own index; those of `search_in_connections` have one that begins with it.
    search_exact: Sequence[str] = ()
    search_in_connections: Sequence[str] = ()

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        rows = super().get_queryset(request)
        if request.user.is_superuser:
            return rows
        return rows.filter(**{f"{self.merchant_path}__in": merchant_pks(request)})

    def get_object(self, request: HttpRequest, object_id: str, from_field: str | None = None) -> Any:
        found = super().get_object(request, object_id, from_field)
        if found is not None:
            merchant_note(request, self.merchant_of(found))
        return found

    # --- who may ----------------------------------------------------------------------------------

    def has_module_permission(self, request: HttpRequest) -> bool:
        return merchants_for(request.user).exists()

    def has_view_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        if obj is None:
            return self.has_module_permission(request)
        return may(request.user, self.merchant_of(obj), Role.VIEWER)

    def has_change_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        if self.change_role is None:
            return False
        if obj is None:
            return merchants_with_role(request.user, self.change_role).exists()
        return may(request.user, self.merchant_of(obj), self.change_role)

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False

    def has_act_permission(self, request: HttpRequest) -> bool:
        """For actions: support and above."""
        return merchants_with_role(request.user, Role.SUPPORT).exists()

    def has_manage_permission(self, request: HttpRequest) -> bool:
        """For actions: managers and owners."""
        return merchants_with_role(request.user, Role.MANAGER).exists()

    def merchant_of(self, obj: Any) -> Merchant:
        for name in self.merchant_path.split("__"):
            obj = getattr(obj, name)
        return obj

    # --- what may be asked ------------------------------------------------------------------------

    def lookup_allowed(self, lookup: str, value: str, request: HttpRequest | None = None) -> bool:
        """Only the filters on the page and links by key: a filter on a hash or a secret would reveal it bit by bit."""
        name, *suffix = lookup.split("__")
        filters = self.get_list_filter(request) if request else self.list_filter
        offered = _LINKED | {_parameter(entry) for entry in filters}
        return name in offered and tuple(suffix) in _SUFFIXES

    def get_search_fields(self, request: HttpRequest) -> tuple[str, ...]:
        return (*self.search_exact, *self.search_in_connections)

    def get_search_results(self, request, queryset, search_term):
        term = search_term.strip()
        if not term:
            return queryset, False
        if "\x00" in term or len(term) > 300:
            return queryset.none(), False
        rows = self.get_queryset(request).order_by()
        mine = merchants_for(request.user)
        found: set[int] = set()
        for field in self.search_exact:
            found.update(rows.filter(**{field: term}).values_list("pk", flat=True)[:LIST_LIMIT])
        for field in self.search_in_connections:
            scoped = rows.filter(connection__merchant__in=mine, **{field: term})
            found.update(scoped.values_list("pk", flat=True)[:LIST_LIMIT])
        return queryset.filter(pk__in=found), False

    def formfield_for_foreignkey(self, db_field, request, **kwargs):
        related = db_field.remote_field.model
        if "queryset" not in kwargs and not request.user.is_superuser:
            mine = merchants_for(request.user)
            if related is Merchant:
                kwargs["queryset"] = mine
            elif any(field.name == "merchant" for field in related._meta.get_fields()):
                kwargs["queryset"] = related._default_manager.filter(merchant__in=mine)
        return super().formfield_for_foreignkey(db_field, request, **kwargs)

    def get_actions(self, request: HttpRequest) -> dict[str, Any]:
        actions = super().get_actions(request)
        actions.pop("delete_selected", None)
        return actions

    # --- actions that ask first -------------------------------------------------------------------

    def confirm(
        self,
        request: HttpRequest,
        selected: Sequence[Any],
        *,
        action: str,
        title: str,
        button: str,
        describe: Callable[[Any], str],
        danger: bool = False,
    ) -> TemplateResponse | None:
        """The page that lists what will happen and asks for the reason; None once it was given.

        `describe` says per row what will happen to it.
        """
        reason = reason_of(request)
        if "confirmed" in request.POST and 0 < len(reason) <= 180:
            return None
        context = {
            **self.admin_site.each_context(request),
            "title": title,
            "opts": self.model._meta,
            "button": button,
            "danger": danger,
            "action": action,
            "rows": [(row, describe(row)) for row in selected],
            "checkbox_name": ACTION_CHECKBOX_NAME,
            "missing": "confirmed" in request.POST,
            "reason": reason,
        }
        return TemplateResponse(request, "admin/confirm_action.html", context)

    def few(self, request: HttpRequest, queryset: QuerySet[Any], at_least: Role) -> list[Any] | None:
        """The selected rows at whose merchants the person has the role, or None with a message if they are too many."""
        path = f"{self.merchant_path}__in" if self.merchant_path else "pk__in"
        allowed = queryset.filter(**{path: merchants_with_role(request.user, at_least)})
        rows = list(allowed[: ACTION_LIMIT + 1])
        if len(rows) > ACTION_LIMIT:
            self.message_user(request, f"Select at most {ACTION_LIMIT} rows at a time.", messages.ERROR)
            return None
        if not rows:
            self.message_user(request, "Your role does not allow this for any of the selected rows.", messages.ERROR)
            return None
        return rows


@lru_cache(maxsize=512)
def badge(kind: str, state: str) -> SafeString:
    """A state as the product's pages show it: their template library owns the words and tones."""
    return Template("{% load ui %}{% badge kind state %}").render(Context({"kind": kind, "state": state}))


@lru_cache(maxsize=64)
def category_badge(category: str) -> SafeString | str:
    """A decline category as the product's pages show it; a dash where there is none."""
    if not category:
        return "-"
    return Template("{% load ui %}{% category_badge category %}").render(Context({"category": category}))


def money(minor: int | None, currency: str) -> str:
    return "-" if minor is None else format_money(minor, currency)


def clipped(text: str) -> SafeString | str:
    """A long text in a list: one line, the whole of it on hovering and on the row's own page."""
    return format_html('<span class="clip" title="{0}">{0}</span>', text) if text else "-"


def pretty(value: object) -> SafeString:
    """JSON for reading."""
    text = json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False, default=str)
    return format_html('<pre class="json" tabindex="0">{}</pre>', text)


def column(description: str, *, order: str | None = None) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """A list column with its heading."""
    return admin.display(description=description, ordering=order)


def reason_of(request: HttpRequest) -> str:
    """Why, without card numbers and secrets: it is kept for good."""
    return scrub_text(request.POST.get("reason", "").strip())


def report(model_admin: admin.ModelAdmin, request: HttpRequest, done: int, refused: Sequence[str]) -> None:
    """Messages after a bulk action: how many went through, and the first refusals in their own words."""
    if done:
        rows = "one of the selected rows" if done == 1 else f"{done} of the selected rows"
        model_admin.message_user(request, f"Done for {rows}.", messages.SUCCESS)
    for text in refused[:20]:
        model_admin.message_user(request, text, messages.WARNING)
    if len(refused) > 20:
        model_admin.message_user(request, f"… and {len(refused) - 20} more were refused.", messages.WARNING)
