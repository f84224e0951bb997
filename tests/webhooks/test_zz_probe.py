import pytest
from itertools import permutations
from accounts.models import Merchant
from invoices.models import Event
from tests.webhooks.door import *
from tests.webhooks.renewal import *
@pytest.mark.django_db
@pytest.mark.parametrize("named", [True, False])
@pytest.mark.parametrize("shape", SHAPES)
def test_probe(shape, named):
    seen={}
    for i,order in enumerate(permutations(range(4))):
        d=door_open(Merchant.objects.create(name=f"m{i}"))
        r=Renewal(shape, named_method=named)
        evs=[r.charge_failed(code="processing_error"), r.intent_failed(code="processing_error"), r.invoice_failed(), r.past_due()]
        for k in order:
            d.deliver(evs[k]); d.drain(moment(10))
        l=ledger(d.merchant)
        al=tuple(sorted(Event.objects.filter(merchant=d.merchant,kind__startswith='alert').values_list('kind',flat=True)))
        key=repr((l,al, [x[1:] for x in d.inbox() if x[1]!='PROCESSED']))
        seen.setdefault(key,[]).append(order)
        assert not chain_faults(d.merchant); assert not broken_promises(d.merchant, moment(10))
    for k,v in seen.items(): print(shape,named,len(v),v[:8],'\n    ',k)
