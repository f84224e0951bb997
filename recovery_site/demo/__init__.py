"""The demo behind `make run`: two invented merchants, 90 days of history, and traffic on an accelerated clock.

Everything goes in through the front door: signed webhooks, the inbox, the retry engine, reconciliation. No row of the
ledger is written around the services, and the clock is the only thing that is not as it would be elsewhere.
"""
