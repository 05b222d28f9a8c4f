"""The tables as they were first."""

import django.db.models.deletion
import django_multitenant.fields
import django_multitenant.mixins
from django.db import migrations, models

ID = ("id", models.BigAutoField(primary_key=True))
CASCADE = django.db.models.deletion.CASCADE
BASES = (django_multitenant.mixins.TenantModelMixin, models.Model)


class Migration(migrations.Migration):
    initial = True
    operations = [
        migrations.CreateModel("Category", [ID, ("name", models.TextField())]),
        migrations.CreateModel("Store", [ID, ("name", models.TextField())], bases=BASES),
        migrations.CreateModel(
            "Product",
            [
                ID,
                ("store", models.ForeignKey("tenants.store", CASCADE)),
                ("category", models.ForeignKey("tenants.category", django.db.models.deletion.SET_NULL, null=True)),
                ("name", models.TextField()),
            ],
            {"unique_together": {("id", "store")}},
            BASES,
        ),
        migrations.CreateModel(
            "Purchase",
            [
                ID,
                ("store", models.ForeignKey("tenants.store", CASCADE)),
                ("product", django_multitenant.fields.TenantForeignKey("tenants.product", CASCADE)),
                ("count", models.IntegerField()),
            ],
            {"unique_together": {("id", "store")}},
            BASES,
        ),
    ]
