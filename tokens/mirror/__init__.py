"""The customer's tokens, budget and slot in Redis: fast, rebuilt at will, and never the one who says yes."""

from tokens.mirror.client import mirror_counters as mirror_counters
from tokens.mirror.selection import Answer as Answer
from tokens.mirror.selection import RankedToken as RankedToken
from tokens.mirror.selection import Selection as Selection
from tokens.mirror.selection import selection_read as selection_read
from tokens.mirror.selection import tokens_select as tokens_select
from tokens.mirror.slots import SlotHolder as SlotHolder
from tokens.mirror.slots import SlotKeeper as SlotKeeper
from tokens.mirror.slots import slot_keeper as slot_keeper
from tokens.mirror.slots import slot_keeper_register as slot_keeper_register
from tokens.mirror.writing import MirrorUnavailable as MirrorUnavailable
from tokens.mirror.writing import mirror_after_commit as mirror_after_commit
from tokens.mirror.writing import mirror_customer as mirror_customer
from tokens.mirror.writing import mirror_rebuild as mirror_rebuild
from tokens.mirror.writing import mirrored_together as mirrored_together
from tokens.mirror.writing import slot_entry_keep as slot_entry_keep
from tokens.mirror.writing import slot_entry_refute as slot_entry_refute
