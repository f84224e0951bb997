"""The charge protocol of DESIGN section 6: claim, write down the intent, send, write down the result.

`drain.retries_drain` is the entrance; nothing is re-exported here, because refunds share the parts of this package.
"""
