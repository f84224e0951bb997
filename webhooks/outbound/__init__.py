"""Webhooks out: what is told to a merchant's own systems, to whom, and what became of it."""
