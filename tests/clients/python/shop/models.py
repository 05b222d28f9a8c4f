"""A shop: customers, what they order, and countries, which stay on the coordinator."""

from django.contrib.postgres.fields import ArrayField, DecimalRangeField
from django.db import models


class Country(models.Model):
    """A local table."""

    code = models.CharField(max_length=2, primary_key=True)
    name = models.TextField()


class Customer(models.Model):
    """Distributed by its primary key."""

    class Status(models.TextChoices):
        ACTIVE = "a"
        BLOCKED = "b"

    name = models.CharField(max_length=100)
    status = models.CharField(max_length=1, choices=Status, default=Status.ACTIVE)
    country = models.ForeignKey(Country, models.PROTECT, null=True, db_constraint=False)
    joined = models.DateTimeField()
    credit = models.DecimalField(max_digits=12, decimal_places=2, default=0)
    tags = ArrayField(models.CharField(max_length=20), default=list)
    profile = models.JSONField(default=dict)
    token = models.UUIDField(null=True)
    picture = models.BinaryField(null=True)
    born = models.DateField(null=True)
    bids = DecimalRangeField(null=True)
    shouted = models.GeneratedField(
        expression=models.functions.Upper("name"), output_field=models.TextField(), db_persist=True
    )

    class Meta:
        indexes = [models.Index(fields=["name"])]
        constraints = [models.CheckConstraint(condition=models.Q(credit__gte=0), name="credit_is_not_negative")]


class Product(models.Model):
    """Distributed by its primary key, which the application chooses."""

    sku = models.CharField(max_length=20, primary_key=True)
    title = models.TextField()
    price = models.DecimalField(max_digits=10, decimal_places=2)


class Order(models.Model):
    """Distributed by the customer, so it lies beside them; several shards may have to be asked for an id."""

    customer = models.ForeignKey(Customer, models.CASCADE, related_name="orders", db_constraint=False)
    placed = models.DateTimeField()
    note = models.TextField(blank=True)
    products = models.ManyToManyField(Product, through="Line")


class Line(models.Model):
    """One position of an order."""

    pk = models.CompositePrimaryKey("customer_id", "order_id", "number")
    customer = models.ForeignKey(Customer, models.CASCADE, db_constraint=False)
    order = models.ForeignKey(Order, models.CASCADE, related_name="lines", db_constraint=False)
    number = models.IntegerField()
    product = models.ForeignKey(Product, models.PROTECT, db_constraint=False)
    quantity = models.IntegerField(default=1)


class Setting(models.Model):
    """A unique key that is the distribution column: what upserts need."""

    name = models.CharField(max_length=50, primary_key=True)
    value = models.JSONField(null=True)
    changes = models.IntegerField(default=0)
