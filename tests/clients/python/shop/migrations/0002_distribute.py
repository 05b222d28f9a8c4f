"""Distributes the tables that 0001 has created."""

import target
from django.db import migrations

KEYS = [
    ("shop_customer", "id"),
    ("shop_product", "sku"),
    ("shop_order", "customer_id"),
    ("shop_line", "customer_id"),
    ("shop_setting", "name"),
]


class Migration(migrations.Migration):
    dependencies = [("shop", "0001_initial")]
    operations = [migrations.RunSQL([sql for table, key in KEYS for sql in target.distribution_of(table, key)])]
