"""What an open case's invoice owes stands on the case, so that all of them are added up from one index."""

import pgtrigger.compiler
import pgtrigger.migrations
from django.db import migrations, models

# The invoice's services know nothing of cases (they stand below them), and a figure of money must not depend on every
# one of them remembering to tell: the database copies it. Both rows are locked by then, in the order of DESIGN section 6.
FOLLOW = """
CREATE FUNCTION retries_case_follow_invoice() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    UPDATE retries_case SET due_minor = GREATEST(0, NEW.amount_minor - NEW.paid_minor - NEW.credited_minor),
        due_currency = NEW.currency
    WHERE invoice_id = NEW.id AND status = 'OPEN';
    RETURN NULL;
END $$;
CREATE TRIGGER retries_case_follow_invoice
    AFTER UPDATE OF amount_minor, paid_minor, credited_minor, currency ON invoices_invoice
    FOR EACH ROW WHEN (
        (OLD.amount_minor, OLD.paid_minor, OLD.credited_minor, OLD.currency)
        IS DISTINCT FROM (NEW.amount_minor, NEW.paid_minor, NEW.credited_minor, NEW.currency)
    ) EXECUTE FUNCTION retries_case_follow_invoice();
"""
UNFOLLOW = """
DROP TRIGGER retries_case_follow_invoice ON invoices_invoice;
DROP FUNCTION retries_case_follow_invoice();
"""
FILL = """
UPDATE retries_case c SET due_minor = GREATEST(0, i.amount_minor - i.paid_minor - i.credited_minor),
    due_currency = i.currency
FROM invoices_invoice i WHERE i.id = c.invoice_id AND c.status = 'OPEN'
"""


class Migration(migrations.Migration):
    dependencies = [
        ("accounts", "0007_access_of_pages"),
        ("invoices", "0013_casework"),
        ("retries", "0010_job_failures"),
    ]

    operations = [
        migrations.RemoveIndex(
            model_name="case",
            name="case_by_step",
        ),
        migrations.AddField(
            model_name="case",
            name="due_currency",
            field=models.CharField(db_default="", editable=False, max_length=3),
        ),
        migrations.AddField(
            model_name="case",
            name="due_minor",
            field=models.BigIntegerField(db_default=0, editable=False),
        ),
        migrations.AddIndex(
            model_name="case",
            index=models.Index(
                condition=models.Q(("status", "OPEN")),
                fields=["merchant", "next_step", "id"],
                include=("first_category", "due_currency", "due_minor", "opened_at"),
                name="case_by_step",
            ),
        ),
        pgtrigger.migrations.AddTrigger(
            model_name="case",
            trigger=pgtrigger.compiler.Trigger(
                name="case_due",
                sql=pgtrigger.compiler.UpsertTriggerSql(
                    func="SELECT GREATEST(0, amount_minor - paid_minor - credited_minor), currency INTO NEW.due_minor, NEW.due_currency FROM invoices_invoice WHERE id = NEW.invoice_id; RETURN NEW;",
                    hash="c884f9f64bbf85822603ad55d9d96f6c5201565f",
                    operation="INSERT",
                    pgid="pgtrigger_case_due_ffd39",
                    table="retries_case",
                    when="BEFORE",
                ),
            ),
        ),
        migrations.RunSQL(FOLLOW, UNFOLLOW),
        migrations.RunSQL(FILL, migrations.RunSQL.noop),
    ]
