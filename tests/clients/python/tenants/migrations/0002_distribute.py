"""The tables become distributed, as the library does it."""

from django.db import migrations
from django_multitenant.db import migrations as tenant_migrations


class Migration(migrations.Migration):
    dependencies = [("tenants", "0001_initial")]
    operations = [
        tenant_migrations.Distribute("Category", reference=True),
        tenant_migrations.Distribute("Store"),
        tenant_migrations.Distribute("Product"),
        tenant_migrations.Distribute("Purchase"),
    ]
