"""The inbound door of the web process: as webhooks/views.py answers, but asynchronous and in groups.

A client that sends slowly holds a socket here and no thread, and what waits together is stored together.
"""
