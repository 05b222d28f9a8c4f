"""asyncpg: every statement is prepared and every value binary; COPY of records, cursors, pools, cancelling."""

import asyncio
import datetime
import decimal
import ipaddress
import json
import uuid

import asyncpg
import target

UTC = datetime.timezone.utc

VALUES = {
    "amount": decimal.Decimal("-99999.99"),
    "names": ["a", None, 'q"uote', "com,ma", "NULL"],
    "body": json.dumps({"k": [1, 2.5, None, "ü"]}),
    "raw": b"\x00\x01\xfe",
    "key": uuid.UUID(int=2**100),
    "stay": asyncpg.Range(datetime.date(2024, 1, 1), datetime.date(2024, 2, 1)),
    "times": [datetime.datetime(2024, 1, 1, 1, 2, 3, 4, tzinfo=UTC), None],
    "clock": datetime.time(23, 59, 59, 999999),
    "took": datetime.timedelta(days=-1, microseconds=7),
    "net": ipaddress.ip_network("10.1.0.0/16"),
    "place": asyncpg.Point(1.5, -2.5),
    "bits": asyncpg.BitString("10110"),
    "ratio": float("inf"),
    "mood": "happy",
    "moods": ["sad", "happy"],
}


def show(title, value):
    """One line of the transcript."""
    print(f"{title}: {value}")


async def create(c):
    """The tables. The workers need the user's type too."""
    await c.execute(
        """
        CREATE TABLE visits (
            town text NOT NULL, id serial, amount numeric, names text[], body jsonb, raw bytea, key uuid, stay daterange,
            times timestamptz[], clock time, took interval, net cidr, place point, bits varbit, ratio float8, mood mood, moods mood[],
            PRIMARY KEY (town, id));
        CREATE TABLE seats (row int, number int, holder text, PRIMARY KEY (row, number));
        CREATE TABLE keyed (k uuid PRIMARY KEY, v int);
        """
    )
    for table, key in (("visits", "town"), ("seats", "row"), ("keyed", "k")):
        for statement in target.distribution_of(table, key):
            await c.execute(statement)


async def types(c):
    """All types, as parameters and as results."""
    names = ", ".join(VALUES)
    holes = ", ".join(f"${n + 2}" for n in range(len(VALUES)))
    insert = await c.prepare(f"INSERT INTO visits (town, {names}) VALUES ($1, {holes}) RETURNING *")
    for town in ("Ulm", "Bonn", "Köln"):
        row = await insert.fetchrow(town, *VALUES.values())
        show(f"returned for {town}", {k: row[k] for k, v in VALUES.items() if k != "body" and row[k] != v})
    row = await insert.fetchrow("Ulm", *[None] * len(VALUES))
    show("NULLs", set(row[k] for k in VALUES))
    show("no row", await c.fetchrow(f"SELECT {names} FROM visits WHERE town = $1", "Rom"))
    for where, arguments in (("town = $1", ["Ulm"]), ("town = ANY($1)", [["Ulm", "Bonn"]]), ("town <> $1", ["Ulm"])):
        found = await c.fetch(f"SELECT {names} FROM visits WHERE {where}", *arguments)
        show(f"where {where}", sorted(repr(sorted(row.items())) for row in found))
    for name, value in VALUES.items():
        if name not in ("place",):
            show(f"by {name}", await c.fetchval(f"SELECT count(*) FROM visits WHERE {name} = $1", value))
    show("changed", await c.execute("UPDATE visits SET names = array_append(names, $2), moods[1] = $3 WHERE town = $1", "Ulm", "new", "happy"))
    show("change read", sorted(map(repr, await c.fetch("SELECT names, moods FROM visits WHERE town = 'Ulm'"))))
    show("attributes", [(a.name, a.type.name) for a in insert.get_attributes()[:4]])
    show("parameters", [t.name for t in insert.get_parameters()[:4]])
    for key in range(5):
        await c.execute("INSERT INTO keyed VALUES ($1, $2)", uuid.UUID(int=key), key)
    show("uuid keys", [await c.fetchval("SELECT v FROM keyed WHERE k = $1", uuid.UUID(int=key)) for key in range(5)])


async def many(c):
    """executemany, COPY of records, COPY out."""
    await c.executemany("INSERT INTO seats VALUES ($1, $2, $3)", [(r, n, None) for r in range(20) for n in range(10)])
    show("executemany", await c.fetchval("SELECT count(*) FROM seats"))
    try:
        await c.executemany("INSERT INTO seats VALUES ($1, $2)", [(100, 1), (101, 1), (100, 1)])
    except asyncpg.UniqueViolationError as error:
        show("one of many", (error.message, error.detail, error.table_name, error.constraint_name))
    show("none of them", await c.fetchval("SELECT count(*) FROM seats WHERE row >= 100"))
    show("records", await c.copy_records_to_table("seats", records=((r, n, f"{r}/{n}") for r in range(100, 200) for n in range(30))))
    show("columns", await c.copy_records_to_table("seats", records=[(300, 1), (301, 2)], columns=["row", "number"]))
    try:
        await c.copy_records_to_table("seats", records=[(400, 1, None), (401, 1, None), (400, 1, None)])
    except asyncpg.UniqueViolationError as error:
        show("duplicate", (error.message, error.detail))
    show("undone", await c.fetchval("SELECT count(*) FROM seats WHERE row >= 400"))

    async def broken():
        yield (500, 1, None)
        raise ValueError("source broke")

    try:
        await c.copy_records_to_table("seats", records=broken())
    except ValueError:
        show("broken source", await c.fetchval("SELECT count(*) FROM seats WHERE row >= 400"))
    out = bytearray()

    async def keep(data):
        out.extend(data)

    show("out", await c.copy_from_table("seats", output=keep, format="csv"))
    show("lines", len(out.splitlines()))
    out.clear()
    show("query out", await c.copy_from_query("SELECT row, holder FROM seats WHERE row = $1 AND number < 3 ORDER BY number", 150, output=keep))
    show("text", bytes(out))


async def cursors(c):
    """Cursors over portals: two at once, left early, with writes between."""
    async with c.transaction():
        total = 0
        async for record in c.cursor("SELECT number FROM seats WHERE row < $1", 150, prefetch=100):
            total += record["number"]
        show("iterated", total)
        one = await c.cursor("SELECT row FROM seats ORDER BY row, number")
        two = await c.cursor("SELECT row FROM seats WHERE row = $1", 5)
        show("fetched", [r["row"] for r in await one.fetch(3)])
        show("other", [r["row"] for r in await two.fetch(3)])
        show("skipped", await one.forward(200))
        await c.execute("UPDATE seats SET holder = 'x' WHERE row = 5")
        show("next", (await one.fetchrow())["row"])
        show("rest", (len(await two.fetch(100)), await c.fetchval("SELECT count(*) FROM seats WHERE holder = 'x'")))
        async for record in c.cursor("SELECT * FROM seats ORDER BY row, number"):
            show("left early", tuple(record))
            break
    show("after", await c.fetchval("SELECT count(*) FROM seats WHERE row = 5"))


async def transactions(c):
    """Savepoints, isolation levels, read only, time-outs."""
    async with c.transaction():
        await c.execute("UPDATE seats SET holder = 'a' WHERE row = 1")
        try:
            async with c.transaction():
                await c.execute("UPDATE seats SET holder = 'b' WHERE row = 1")
                await c.execute("INSERT INTO seats VALUES (1, 1)")
        except asyncpg.UniqueViolationError:
            pass
        show("outer stays", await c.fetchval("SELECT DISTINCT holder FROM seats WHERE row = 1"))
    for level in ("read_committed", "repeatable_read", "serializable"):
        async with c.transaction(isolation=level):
            await c.execute("UPDATE seats SET holder = $1 WHERE row = 2", level)
            show(level, await c.fetchval("SELECT DISTINCT holder FROM seats WHERE row = 2"))
    try:
        async with c.transaction(readonly=True):
            await c.execute("UPDATE seats SET holder = 'no' WHERE row = 2")
    except asyncpg.ReadOnlySQLTransactionError as error:
        show("read only", error.message)
    other = await asyncpg.connect()
    try:
        async with other.transaction():
            await other.execute("UPDATE seats SET holder = 'locked' WHERE row = 3")
            try:
                await c.execute("UPDATE seats SET holder = 'late' WHERE row = 3", timeout=0.3)
            except asyncio.TimeoutError:
                show("cancelled", "yes")
            show("usable", await c.fetchval("SELECT count(*) FROM seats WHERE row = 4"))
    finally:
        await other.close()
    show("the other's", await c.fetchval("SELECT DISTINCT holder FROM seats WHERE row = 3"))


async def pools(c):
    """Sessions that go round; each is reset in between."""
    async with asyncpg.create_pool(min_size=4, max_size=4) as pool:

        async def work(n):
            for i in range(15):
                async with pool.acquire() as one, one.transaction():
                    await one.execute("UPDATE seats SET holder = coalesce(holder, '') || 'y' WHERE row = 10 AND number = $1", i % 10)
                    await one.execute("INSERT INTO seats VALUES ($1, $2, 'pool')", 1000 + n, i)
                    await one.fetch("SELECT * FROM seats WHERE row = $1", 1000 + n)

        await asyncio.gather(*(work(n) for n in range(8)))
        show("all written", await pool.fetchval("SELECT count(*) FROM seats WHERE holder = 'pool'"))
        show("none lost", await pool.fetchval("SELECT sum(length(holder)) FROM seats WHERE row = 10"))
        upsert = "INSERT INTO keyed VALUES ($1, 1) ON CONFLICT (k) DO UPDATE SET v = keyed.v + 1"
        await asyncio.gather(*(pool.execute(upsert, uuid.UUID(int=77 + n % 3)) for n in range(60)))
        show("upserts", sorted(r["v"] for r in await pool.fetch("SELECT v FROM keyed WHERE k >= $1", uuid.UUID(int=77))))
        async with pool.acquire() as one:
            await one.execute("SET search_path = pg_catalog")
            await one.execute("PREPARE mine AS SELECT 1")
            await one.execute("DISCARD ALL")
            await one.reload_schema_state()
            show("discarded", await one.fetchval("SELECT count(*) FROM seats WHERE row = $1", 7))


async def main():
    """All steps in one session."""
    c = await asyncpg.connect()
    await create(c)
    for step in (types, many, cursors, transactions, pools):
        print(f"== {step.__name__}")
        await step(c)
    await c.close()


asyncio.run(main())
