"""django-multitenant: migrations forwards and backwards with rows, and models of the current tenant."""

import os

os.environ["DJANGO_SETTINGS_MODULE"] = "tenants_settings"

import django

django.setup()

import target
from django.core.management import call_command
from django.db import IntegrityError, connection, transaction
from django.db.models import Count, Sum
from django_multitenant.utils import set_current_tenant, unset_current_tenant
from tenants.models import Category, Product, Purchase, Store

# What plain PostgreSQL has none of.
NAMES = """
CREATE FUNCTION create_distributed_table(regclass, text) RETURNS void LANGUAGE sql AS 'SELECT';
CREATE FUNCTION create_reference_table(regclass) RETURNS void LANGUAGE sql AS 'SELECT';
CREATE FUNCTION undistribute_table(regclass) RETURNS void LANGUAGE sql AS 'SELECT';
"""


def show(title, value):
    """One line of the transcript."""
    print(f"{title}: {value}")


def migrate(name):
    """To this migration, from wherever."""
    call_command("migrate", "tenants", name, verbosity=0)


def ask(sql):
    """The rows of a query."""
    with connection.cursor() as cursor:
        cursor.execute(sql)
        return cursor.fetchall()


def distributed():
    """How many tables are distributed, as far as they can be."""
    if not target.IS_DISTRIBUTED:
        return None
    return ask("SELECT count(*) FROM pgs_distribution_metadata.partition")[0][0]


def fill():
    """Rows of three tenants."""
    toys = Category.objects.create(name="toys")
    for name in "abc":
        store = Store.objects.create(name=name)
        set_current_tenant(store)
        for number in range(5):
            product = Product.objects.create(store=store, category=toys, name=f"{name}{number}")
            Purchase.objects.bulk_create([Purchase(store=store, product=product, count=n) for n in range(4)])
        unset_current_tenant()


def look(title):
    """Each tenant's rows, and all of them."""
    for store in Store.objects.order_by("name"):
        set_current_tenant(store)
        show(f"{title}: {store.name} has", (Product.objects.count(), Purchase.objects.aggregate(Sum("count"))))
        found = Product.objects.filter(category__name="toys").order_by("name")
        show("products", list(found.values_list("name", "price", "store__name")))
        joined = Purchase.objects.select_related("product").filter(product__name__endswith="3").order_by("id")
        show("purchases", [(one.product.name, one.count) for one in joined])
        show("prefetched", [len(one.purchase_set.all()) for one in found.prefetch_related("purchase_set")])
        show("counted", list(found.annotate(n=Count("purchase")).values_list("name", "n")))
        unset_current_tenant()
    show("all", (Product.objects.count(), Purchase.objects.aggregate(Sum("count")), Store.objects.count()))


def change():
    """Writes of a tenant stay its own, and the nodes check foreign keys."""
    stores = list(Store.objects.order_by("name"))
    set_current_tenant(stores[1])
    show("updated", Product.objects.update(price=9))
    show("deleted", Product.objects.filter(name="b4").delete())
    unset_current_tenant()
    show("prices", sorted(Product.objects.values_list("name", "price")))
    strange = Product.objects.get(name="a0")
    try:
        with transaction.atomic():
            Purchase.objects.create(store=stores[2], product_id=strange.pk, count=1)
            ask("SET CONSTRAINTS ALL IMMEDIATE")
        show("another tenant's product", "taken")
    except IntegrityError as error:
        show("another tenant's product", type(error).__name__)
    show("store deleted", sorted(stores[2].delete()[1].items()))
    show("left", (Store.objects.count(), Product.objects.count(), Purchase.objects.count()))


if not target.IS_DISTRIBUTED:
    with connection.cursor() as cursor:
        cursor.execute(NAMES)

migrate("0003")
assert distributed() in (None, 4), distributed()
fill()
look("forwards")
change()
# Back to local tables, rows and all, and forwards again.
migrate("0001")
assert distributed() in (None, 0), distributed()
show("rows of local tables", ask("SELECT count(*), min(name), max(name) FROM tenants_product"))
migrate("0003")
assert distributed() in (None, 4), distributed()
look("again")
show("refilled", ask("SELECT count(*), min(price), max(price) FROM tenants_product"))
migrate("zero")
show("tables", ask("SELECT count(*) FROM pg_tables WHERE tablename LIKE 'tenants%'"))
