"""A new column, filled from the rows that are there, and an index."""

from django.db import migrations, models
from django.db.models import F


def fill(apps, _):
    apps.get_model("tenants", "Product").objects.update(price=F("id") * 0 + 7)


class Migration(migrations.Migration):
    dependencies = [("tenants", "0002_distribute")]
    operations = [
        migrations.AddField("Product", "price", models.IntegerField(default=1)),
        migrations.RunPython(fill, migrations.RunPython.noop),
        migrations.AddIndex("Product", models.Index(fields=["price"], name="price_index")),
    ]
