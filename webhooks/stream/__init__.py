"""The live stream: a merchant's public events as they happen, to programs and dashboards, by server-sent events."""
