"""Stores as tenants, with products and purchases, and categories that all of them share."""

from django.db import models
from django_multitenant.fields import TenantForeignKey
from django_multitenant.models import TenantModel


class Category(models.Model):
    name = models.TextField()


class Store(TenantModel):
    name = models.TextField()

    class TenantMeta:
        tenant_field_name = "id"


class Product(TenantModel):
    store = models.ForeignKey(Store, on_delete=models.CASCADE)
    category = models.ForeignKey(Category, null=True, on_delete=models.SET_NULL)
    name = models.TextField()
    price = models.IntegerField(default=1)

    class Meta:
        unique_together = ["id", "store"]

    class TenantMeta:
        tenant_field_name = "store_id"


class Purchase(TenantModel):
    store = models.ForeignKey(Store, on_delete=models.CASCADE)
    product = TenantForeignKey(Product, on_delete=models.CASCADE)
    count = models.IntegerField()

    class Meta:
        unique_together = ["id", "store"]

    class TenantMeta:
        tenant_field_name = "store_id"
