"""All cards of many customers are locked in one round trip: one order for all of them, so that no two drains wait for each
other."""

from django.db import migrations

# Whoever moves a card into a budget group holds the locks of all its cards. So a group may have grown while this
# function waited for one of them, and only then: the locks are given back (the end of the inner block does that) and
# all are taken again, in order. In READ COMMITTED each statement of the function sees what is committed when it begins.
LOCK = """
CREATE FUNCTION tokens_cards_lock(of_customers bigint[], also bigint[]) RETURNS SETOF tokens_card LANGUAGE plpgsql AS $$
DECLARE
    mine bigint[] := ARRAY(SELECT id FROM tokens_card
        WHERE id = ANY(also || ARRAY(SELECT card_id FROM tokens_token WHERE customer_id = ANY(of_customers))));
    locked bigint[];
BEGIN
    LOOP
        BEGIN
            locked := ARRAY(
                SELECT id FROM tokens_card
                WHERE budget_group = ANY(ARRAY(SELECT budget_group FROM tokens_card WHERE id = ANY(mine)))
                ORDER BY id FOR NO KEY UPDATE
            );
            IF locked @> mine AND NOT EXISTS (
                SELECT FROM tokens_card WHERE id <> ALL(locked)
                    AND budget_group = ANY(ARRAY(SELECT budget_group FROM tokens_card WHERE id = ANY(locked)))
            ) THEN
                RETURN QUERY SELECT * FROM tokens_card WHERE id = ANY(locked) ORDER BY id;
                RETURN;
            END IF;
            RAISE EXCEPTION 'a group has grown';
        EXCEPTION WHEN raise_exception THEN
            NULL;
        END;
    END LOOP;
END $$;
"""


class Migration(migrations.Migration):
    dependencies = [
        ("tokens", "0012_fewer_indexes"),
    ]

    # The one of a single customer stays for workers that still run while this is applied.
    operations = [
        migrations.RunSQL(LOCK, "DROP FUNCTION tokens_cards_lock(bigint[], bigint[])"),
    ]
