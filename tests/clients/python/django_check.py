"""Django: migrations, and what an application does through its models."""

import datetime
import decimal
import os
import uuid

os.environ["DJANGO_SETTINGS_MODULE"] = "settings"

import django

django.setup()

from django.apps.registry import Apps
from django.core.management import call_command
from django.db import DataError, IntegrityError, connection, models, transaction
from django.db.backends.postgresql.psycopg_any import NumericRange
from django.db.models import Avg, Case, Count, Exists, F, OuterRef, Prefetch, Q, Subquery, Sum, Value, When, Window
from django.db.models.functions import Coalesce, Concat, Lower, Rank, TruncMonth
from shop.models import Country, Customer, Line, Order, Product, Setting

DAY = datetime.datetime(2024, 5, 1, 12, tzinfo=datetime.timezone.utc)
D = decimal.Decimal


def show(title, value):
    """One line of the transcript."""
    print(f"{title}: {value}")


def rows(query, *fields):
    """The rows of a query set as tuples, sorted unless the query says how."""
    found = list(query.values_list(*fields)) if fields else list(query)
    return found if query.ordered else sorted(found, key=repr)


def create():
    """Single rows, and many at once."""
    Country.objects.bulk_create([Country(code="de", name="Germany"), Country(code="fr", name="France")])
    ada = Customer.objects.create(
        name="Ada",
        joined=DAY,
        country_id="de",
        credit="10.50",
        tags=["new", 'with "quotes"', "comma,"],
        profile={"vip": True, "points": [1, 2, {"x": None}]},
        token=uuid.UUID(int=7),
        picture=b"\x00\xff\\'",
        born=datetime.date(1815, 12, 10),
        bids=NumericRange(D("1.5"), None),
    )
    show("id from the sequence", ada.pk)
    show("generated", Customer.objects.get(pk=ada.pk).shouted)
    found = Customer.objects.get(name="Ada")
    show("all types", (found.tags, found.profile, found.token, bytes(found.picture), found.born, found.bids, found.credit))
    many = Customer.objects.bulk_create(
        [
            Customer(name=f"c{n}", joined=DAY + datetime.timedelta(days=n), credit=n, country_id="fr" if n % 2 else None)
            for n in range(50)
        ]
    )
    show("bulk_create returns keys", [c.pk for c in many] == list(range(many[0].pk, many[0].pk + 50)))
    Product.objects.bulk_create([Product(sku=f"p{n}", title=f"Product {n}", price=D(n) / 4) for n in range(20)], batch_size=7)
    orders = Order.objects.bulk_create(
        Order(customer=c, placed=DAY + datetime.timedelta(days=i), note=f"note {i}") for i, c in enumerate(many * 2)
    )
    Line.objects.bulk_create(
        Line(customer_id=o.customer_id, order=o, number=k, product_id=f"p{(i + k) % 20}", quantity=k)
        for i, o in enumerate(orders)
        for k in (1, 2, 3)
    )
    show("counts", [m.objects.count() for m in (Country, Customer, Product, Order, Line)])


def read():
    """Filters, joins, prefetches, aggregates, sub-queries, windows."""
    show("filter", rows(Customer.objects.filter(name__istartswith="C1", credit__lt=15).order_by("name"), "name", "credit"))
    show("in", rows(Customer.objects.filter(name__in=["c1", "c2", "nobody"]), "name"))
    show("json", rows(Customer.objects.filter(profile__vip=True), "name", "profile__points__0"))
    show("json contains", Customer.objects.filter(profile__contains={"vip": True}).count())
    show("array", rows(Customer.objects.filter(tags__contains=["new"]), "name", "tags__0"))
    show("range", rows(Customer.objects.filter(bids__overlap=NumericRange(D(2), D(3))), "name"))
    show("dates", rows(Customer.objects.filter(joined__year=2024, joined__month=5).dates("joined", "month")))
    show("slice", rows(Customer.objects.order_by("-credit", "name")[3:6], "name"))
    show("exclude", Customer.objects.exclude(Q(name="c1") | Q(country=None)).count())
    orders = Order.objects.select_related("customer", "customer__country").filter(customer__name="c3").order_by("placed")
    show("select_related", [(o.note, o.customer.name, o.customer.country.name) for o in orders])
    some = Customer.objects.filter(name__in=["c4", "c5"]).order_by("name")
    some = some.prefetch_related("orders__lines__product", Prefetch("orders", Order.objects.filter(note__contains="5"), "fives"))
    show("prefetch_related", [[[(li.product.title, li.quantity) for li in o.lines.all()] for o in c.orders.order_by("placed")] for c in some])
    show("prefetched to_attr", [sorted(o.note for o in c.fives) for c in some])
    show("many to many", rows(Product.objects.filter(order__customer__name="c6").distinct().order_by("sku"), "sku"))
    show("aggregate", Customer.objects.aggregate(Sum("credit"), Avg("credit"), n=Count("*"), f=Count("pk", filter=Q(country="fr"))))
    by_country = Customer.objects.values("country__name").annotate(n=Count("pk"), total=Sum("credit")).order_by("n", "country__name")
    show("annotate", list(by_country))
    show("annotate over joins", rows(Customer.objects.annotate(n=Count("orders"), q=Sum("orders__lines__quantity")).filter(n__gt=1).order_by("-q", "name")[:5], "name", "n", "q"))
    show("having", list(Line.objects.values("product").annotate(q=Sum("quantity")).filter(q__gte=31).order_by("product")))
    latest = Order.objects.filter(customer=OuterRef("pk")).order_by("-placed")
    show("subquery", rows(Customer.objects.annotate(last=Subquery(latest.values("note")[:1])).filter(name__in=["c7", "Ada"]).order_by("name"), "name", "last"))
    show("exists", rows(Customer.objects.filter(~Exists(latest)), "name"))
    show("window", rows(Customer.objects.annotate(r=Window(Rank(), partition_by="country", order_by=F("credit").desc())).filter(r=1).order_by("name"), "name", "r"))
    show("union", rows(Customer.objects.filter(name="c1").values_list("name").union(Product.objects.filter(sku="p1").values_list("title")).order_by("name")))
    months = Order.objects.annotate(m=TruncMonth("placed")).values("m").annotate(n=Count("*")).order_by("m")
    show("trunc", [(r["m"].isoformat(), r["n"]) for r in months])
    show("expressions", rows(Customer.objects.filter(name__in=["Ada", "c1"]).annotate(x=Concat(Lower("name"), Value("/"), "status"), y=Coalesce("country_id", Value("-")), z=Case(When(credit__gt=5, then=Value("rich")), default=Value("poor"))).order_by("name"), "x", "y", "z"))
    show("iterator", sum(1 for _ in Order.objects.order_by("pk").iterator(chunk_size=10)))
    with transaction.atomic():
        show("iterator in a transaction", sum(o.pk > 0 for o in Order.objects.iterator(chunk_size=7)))
        show("select_for_update", rows(Customer.objects.select_for_update().filter(name="c1"), "name"))
        show("select_for_update of several", rows(Customer.objects.select_for_update(skip_locked=True, of=("self",)).filter(name__in=["c1", "c2"]).order_by("name"), "name"))
    show("raw", [c.name for c in Customer.objects.raw("SELECT * FROM shop_customer WHERE name = %s", ["c9"])])
    show("earliest and latest", (Order.objects.earliest("placed").note, Order.objects.latest("placed").note))
    show("in_bulk", sorted((k, v.title) for k, v in Product.objects.in_bulk(["p1", "p2", "none"]).items()))
    show("explain", "Customer" in Customer.objects.filter(pk=1).explain() or True)
    show("composite key", Line.objects.filter(pk=Line.objects.order_by("pk").first().pk).count())
    show("count of distinct", Line.objects.values("product").distinct().count())


def update():
    """save, update, upserts."""
    c = Customer.objects.get(name="c10")
    c.credit = F("credit") + D("0.25")
    c.save()
    c.refresh_from_db()
    show("F in save", c.credit)
    c.name = "c10 again"
    c.save(update_fields=["name"])
    show("update_fields", Customer.objects.get(pk=c.pk).shouted)
    show("update all", Customer.objects.update(credit=F("credit") * 2))
    show("update filtered", Customer.objects.filter(country="fr", credit__gt=D("20")).update(status=Customer.Status.BLOCKED))
    show("update by key", Customer.objects.filter(pk=c.pk).update(profile={"a": 1}, tags=["x"], joined=DAY))
    show("update by json", Customer.objects.filter(profile__a=1).update(profile={"a": 2}))
    show("update with Case", Customer.objects.update(status=Case(When(credit__gte=50, then=Value("b")), default=Value("a"))))
    show("update in", Order.objects.filter(pk__in=list(Order.objects.order_by("pk").values_list("pk", flat=True)[:10])).update(note="first"))
    mine = Order.objects.filter(customer=c.pk)
    show("update where sub-query", Customer.objects.filter(Exists(Order.objects.filter(customer=OuterRef("pk"), note="first"))).update(status="a"))
    some = list(Customer.objects.filter(name__in=["c11", "c12", "c13"]).order_by("name"))
    for n, each in enumerate(some):
        each.credit = n
        each.tags = [each.name]
    show("bulk_update", Customer.objects.bulk_update(some, ["credit", "tags"]))
    show("bulk_update did", rows(Customer.objects.filter(pk__in=[e.pk for e in some]).order_by("pk"), "credit", "tags"))
    show("orders of one", mine.count())
    for attempt in range(2):
        made, is_new = Setting.objects.get_or_create(name="colour", defaults={"value": "red"})
        show(f"get_or_create {attempt}", (made.value, is_new))
    for value in ({"deep": [1, None]}, "blue"):
        made, is_new = Setting.objects.update_or_create(name="theme", defaults={"value": value, "changes": F("changes") + 1}, create_defaults={"value": value})
        made.refresh_from_db()
        show("update_or_create", (made.value, made.changes, is_new))
    made, is_new = Customer.objects.get_or_create(name="Grace", defaults={"joined": DAY})
    show("get_or_create without the key", is_new)
    show("update_or_create without the key", Customer.objects.update_or_create(name="Grace", defaults={"credit": 7})[1])
    fresh = [Setting(name=n, value=n, changes=1) for n in ("colour", "size", "theme")]
    Setting.objects.bulk_create(fresh, ignore_conflicts=True)
    show("ignore_conflicts", rows(Setting.objects.order_by("name"), "name", "value"))
    Setting.objects.bulk_create(fresh, update_conflicts=True, unique_fields=["name"], update_fields=["value", "changes"])
    show("update_conflicts", rows(Setting.objects.order_by("name"), "name", "value", "changes"))
    Setting(name="size", value=None).save()
    show("save over", rows(Setting.objects.filter(name="size"), "value", "changes"))


def delete():
    """Single rows, filters, cascades, protected rows."""
    show("delete filtered", Line.objects.filter(quantity=3, product="p5").delete())
    c = Customer.objects.get(name="c20")
    show("delete cascades", sorted(c.delete()[1].items()))
    show("delete many", sorted(Customer.objects.filter(name__in=["c21", "c22"]).delete()[1].items()))
    try:
        Product.objects.get(sku="p1").delete()
    except models.ProtectedError as error:
        show("protected", len(error.protected_objects))
    line = Line.objects.order_by("pk").first()
    show("delete by composite key", line.delete()[0])
    show("delete where sub-query", Order.objects.filter(customer__in=Customer.objects.filter(name="nobody")).delete())
    show("left", [m.objects.count() for m in (Customer, Product, Order, Line)])


def transactions():
    """atomic, savepoints, errors."""
    try:
        with transaction.atomic():
            Customer.objects.filter(name="c1").update(credit=1000)
            Product.objects.create(sku="gone", title="gone", price=1)
            raise RuntimeError("undone")
    except RuntimeError as error:
        show("rolled back", (str(error), Product.objects.filter(sku="gone").exists(), Customer.objects.get(name="c1").credit))
    with transaction.atomic():
        Product.objects.create(sku="kept", title="kept", price=1)
        for sku in ("kept", "p1"):
            try:
                with transaction.atomic():
                    Product.objects.create(sku=f"undone {sku}", title="", price=1)
                    Product.objects.create(sku=sku, title="twice", price=1)
            except IntegrityError as error:
                show("duplicate key", str(error).splitlines()[:2])
        show("after the savepoint", Product.objects.filter(sku__startswith="undone").count())
    show("kept", Product.objects.filter(sku="kept").count())
    for wrong in ({"credit": -1}, {"name": None}, {"credit": D(10) ** 11}, {"name": "x" * 101}):
        try:
            Customer.objects.create(**({"name": "wrong", "joined": DAY} | wrong))
        except (IntegrityError, DataError) as error:
            show("refused", (type(error).__name__, str(error).splitlines()[0]))
    order = Order.objects.filter(customer__name="c1").first()
    with transaction.atomic():
        customer = Customer.objects.select_for_update().get(pk=order.customer_id)
        before = customer.credit
        customer.credit = F("credit") + 5
        customer.save()
        Order.objects.create(customer=customer, placed=DAY, note="in the transaction")
        customer.refresh_from_db()
        show("sees its own", (customer.credit - before, customer.orders.count()))
    done = []
    with transaction.atomic():
        transaction.on_commit(lambda: done.append("committed"))
        Setting.objects.filter(name="size").update(changes=F("changes") + 1)
    show("on_commit", done)


def introspect_and_migrate():
    """What tools see, and what a later migration may do."""
    with connection.cursor() as cursor:
        names = sorted(t.name for t in connection.introspection.get_table_list(cursor) if t.name.startswith("shop_"))
        keys = sorted(connection.introspection.get_constraints(cursor, "shop_customer"))
        key = connection.introspection.get_primary_key_columns(cursor, "shop_line")
    show("tables", names)
    show("constraints", [k for k in keys if not k.endswith("_pkey")])
    show("primary key", key)
    with connection.schema_editor() as editor:

        class Note(models.Model):
            text = models.TextField()

            class Meta:
                app_label = "shop"
                apps = Apps()

        editor.create_model(Note)
    Note.objects.create(text="local")
    show("a later local table", Note.objects.count())
    with connection.schema_editor() as editor:
        editor.delete_model(Note)
    call_command("makemigrations", "--check", "--dry-run", verbosity=0)
    call_command("check", databases=["default"])
    call_command("flush", interactive=False, verbosity=0)
    show("flushed", [m.objects.count() for m in (Country, Customer, Product, Order, Line, Setting)])


def alter():
    """What migrations do to a table that has rows, and back."""
    Customer.objects.bulk_create(Customer(name=f"m{n}", joined=DAY, credit=n) for n in range(8))
    table = Customer._meta.db_table

    def field(kind, name, **options):
        made = kind(**options)
        made.set_attributes_from_name(name)
        made.model = Customer
        return made

    def columns():
        with connection.cursor() as cursor:
            return sorted(c.name for c in connection.introspection.get_table_description(cursor, table))

    def values(column):
        with connection.cursor() as cursor:
            cursor.execute(f"SELECT name, {column} FROM {table} WHERE name LIKE 'm%' ORDER BY name")
            return cursor.fetchall()

    rank, level = field(models.IntegerField, "rank", default=3), field(models.BigIntegerField, "level", null=True)
    index = models.Index(fields=["name"], name="customer_by_name")
    check = models.CheckConstraint(condition=Q(credit__lt=50000), name="credit_is_small")
    with connection.schema_editor() as editor:
        editor.add_field(Customer, rank)
        editor.add_index(Customer, index)
        editor.add_constraint(Customer, check)
    show("a new column", (columns(), values("rank")[:2]))
    with connection.schema_editor() as editor:
        editor.alter_field(Customer, rank, level)
    show("renamed and of another type", values("level")[:2])
    try:
        with transaction.atomic():
            Customer.objects.create(name="rich", joined=DAY, credit=60000)
    except IntegrityError as error:
        show("constraint", error.__cause__.diag.constraint_name)
    try:
        with connection.schema_editor() as editor:
            editor.remove_field(Customer, level)
            raise RuntimeError("the migration fails in the middle")
    except RuntimeError:
        show("taken back", "level" in columns())
    with connection.schema_editor() as editor:
        editor.remove_constraint(Customer, check)
        editor.remove_index(Customer, index)
        editor.remove_field(Customer, level)
    show("as before", columns())


call_command("migrate", verbosity=0)
for step in (create, read, update, delete, transactions, introspect_and_migrate, alter):
    print(f"== {step.__name__}")
    step()
