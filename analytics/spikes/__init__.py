"""Spike alerts: failure rates that rise above their own baseline."""
