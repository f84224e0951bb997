"""Line icons, drawn for this product on a 24 unit grid. Decorative: hidden from assistive technology."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from django.utils.safestring import SafeString, mark_safe

_PATHS = {
    "chart": '<path d="M4 19h16"/><path d="M7 15v-4M12 15V6M17 15v-7"/>',
    "invoice": '<path d="M6 3h12v18l-3-2-3 2-3-2-3 2z"/><path d="M9 8h6M9 12h6"/>',
    "inbox": '<path d="M4 13l2.5-8h11L20 13v6H4z"/><path d="M4 13h5l1 2.5h4l1-2.5h5"/>',
    "bell": '<path d="M6 16V11a6 6 0 0 1 12 0v5l1.5 2h-15z"/><path d="M10 21h4"/>',
    "mail": '<path d="M4 6h16v12H4z"/><path d="M4.5 6.5L12 13l7.5-6.5"/>',
    "settings": (
        '<circle cx="12" cy="12" r="3"/><path d="M12 3v3M12 18v3M3 12h3M18 12h3'
        'M5.6 5.6l2.1 2.1M16.3 16.3l2.1 2.1M18.4 5.6l-2.1 2.1M7.7 16.3l-2.1 2.1"/>'
    ),
    "info": '<circle cx="12" cy="12" r="9"/><path d="M12 11v5.5M12 7.5v.5"/>',
    "chevron": '<path d="M8 10l4 4 4-4"/>',
    "theme": '<circle cx="12" cy="12" r="8"/><path d="M12 4a8 8 0 0 1 0 16z" fill="currentColor"/>',
    "logout": '<path d="M14 5H6v14h8"/><path d="M11 12h9M17 9l3 3-3 3"/>',
    "plug": '<path d="M9 3v5M15 3v5"/><path d="M6 8h12v3a6 6 0 0 1-12 0z"/><path d="M12 17v4"/>',
    "key": '<circle cx="8" cy="15" r="4"/><path d="M11 12l8-8M16 7l3 3"/>',
    "download": '<path d="M12 4v11M8 11l4 4 4-4M5 20h14"/>',
    "search": '<circle cx="11" cy="11" r="6"/><path d="M15.5 15.5L20 20"/>',
    "check": '<path d="M5 12.5l4.5 4.5L19 7"/>',
    "clock": '<circle cx="12" cy="12" r="8"/><path d="M12 8v4.5l3 2"/>',
    "close": '<path d="M6 6l12 12M18 6L6 18"/>',
    "pause": '<path d="M9 6v12M15 6v12"/>',
    "play": '<path d="M8 5.5l10 6.5-10 6.5z"/>',
    "print": '<path d="M7 9V4h10v5M7 17H4V9h16v8h-3"/><path d="M7 14h10v6H7z"/>',
}


def _icon(paths: str) -> SafeString:
    return mark_safe(  # noqa: S308 - constants of this file
        '<svg viewBox="0 0 24 24" width="18" height="18" fill="none" stroke="currentColor" stroke-width="1.8"'
        f' stroke-linecap="round" stroke-linejoin="round" aria-hidden="true" focusable="false">{paths}</svg>'
    )


ICONS: Final[Mapping[str, SafeString]] = MappingProxyType({name: _icon(paths) for name, paths in _PATHS.items()})
