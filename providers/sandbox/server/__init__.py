"""A payment provider on this machine, with scripted and random faults; docs/sandbox_psp.md describes it."""

from providers.sandbox.server.service import SandboxServer, serve

__all__ = ["SandboxServer", "serve"]
