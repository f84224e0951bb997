"""Recurly: its webhook dialect, its API client and its error codes (docs/providers/recurly.md)."""
