"""Figures per local day that are kept beside the ledger (docs/analytics.md).

`sql` says what one day's rows are, `advance` keeps them, `reading` reads them exactly at any moment.
"""
