"""SQLAlchemy 2: the ORM over psycopg 3 and over asyncpg, which prepares every statement."""

import asyncio
import datetime
import decimal
import enum
import sys
import uuid

import target
from sqlalchemy import ARRAY, CheckConstraint, Column, Computed, Enum, Identity, Integer, LargeBinary, MetaData, Numeric, String, Table
from sqlalchemy import any_, bindparam, case, delete, exc, exists, func, insert, inspect, literal, select, text, update
from sqlalchemy.dialects import postgresql as pg
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, aliased, joinedload, mapped_column, relationship, selectinload, subqueryload

DAY = datetime.datetime(2024, 5, 1, tzinfo=datetime.timezone.utc)
D = decimal.Decimal


class Kind(enum.Enum):
    """Stored as text with a CHECK."""

    PRIVATE = "private"
    FIRM = "firm"


class Base(DeclarativeBase):
    """All tables."""


class Account(Base):
    """Distributed by its id."""

    __tablename__ = "account"
    id: Mapped[int] = mapped_column(Identity(), primary_key=True)
    name: Mapped[str] = mapped_column(String(50), index=True)
    kind: Mapped[Kind] = mapped_column(Enum(Kind, native_enum=False, create_constraint=True), default=Kind.PRIVATE)
    balance: Mapped[decimal.Decimal] = mapped_column(Numeric(12, 2), server_default="0")
    tags: Mapped[list[str]] = mapped_column(ARRAY(String), default=list)
    data: Mapped[dict | None] = mapped_column(pg.JSONB)
    key: Mapped[uuid.UUID] = mapped_column(default=lambda: uuid.UUID(int=9))
    blob: Mapped[bytes | None] = mapped_column(LargeBinary)
    opened: Mapped[datetime.datetime] = mapped_column(pg.TIMESTAMP(timezone=True), server_default=func.now())
    valid = mapped_column(pg.DATERANGE)
    upper: Mapped[str] = mapped_column(Computed("upper(name)", persisted=True))
    version: Mapped[int] = mapped_column(default=0)
    bookings: Mapped[list["Booking"]] = relationship(
        primaryjoin="Account.id == foreign(Booking.account_id)", back_populates="account", cascade="all, delete-orphan", order_by="Booking.number"
    )
    __table_args__ = (CheckConstraint("balance >= -1000", name="not_too_deep"),)
    __mapper_args__ = {"version_id_col": version}


class Booking(Base):
    """Lies beside its account."""

    __tablename__ = "booking"
    account_id: Mapped[int] = mapped_column(primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    amount: Mapped[decimal.Decimal] = mapped_column(Numeric(12, 2))
    text: Mapped[str | None]
    account: Mapped[Account] = relationship(primaryjoin="Account.id == foreign(Booking.account_id)", back_populates="bookings")


counter = Table("counter", Base.metadata, Column("name", String, primary_key=True), Column("n", Integer, nullable=False))
KEYS = [("account", "id"), ("booking", "account_id"), ("counter", "name")]


def show(title, value):
    """One line of the transcript."""
    print(f"{title}: {value}")


async def fill(s):
    """Objects with their children in one flush; many in one statement."""
    s.add(
        Account(
            name="Ada", tags=["x", "y,z"], data={"a": [1, None]}, blob=b"\x00\xff", opened=DAY, valid=pg.Range(DAY.date(), None),
            bookings=[Booking(number=n, amount=D(n) / 4, text=f"b{n}") for n in range(5)],
        )
    )  # fmt: skip
    await s.flush()
    ada = (await s.scalars(select(Account).where(Account.name == "Ada"))).one()
    await s.refresh(ada)
    show("all types", (ada.tags, ada.data, ada.blob, ada.key, ada.opened == DAY, ada.valid, ada.upper, ada.balance, ada.kind))
    s.add_all(Account(name=f"a{n}", balance=n, kind=Kind.FIRM if n % 3 else Kind.PRIVATE) for n in range(60))
    await s.flush()
    ids = (await s.scalars(insert(Account).returning(Account.id, sort_by_parameter_order=True), [{"name": f"m{n}", "balance": n} for n in range(40)])).all()
    show("bulk insert in order", ids == sorted(ids) and len(set(ids)) == 40)
    await s.execute(insert(Booking), [{"account_id": i, "number": n, "amount": n} for i in ids for n in range(3)])
    await s.commit()
    show("counts", [await s.scalar(select(func.count()).select_from(t)) for t in (Account, Booking)])


async def read(s):
    """Loading strategies, joins, aggregates, windows, CTEs."""
    for strategy in (joinedload, selectinload, subqueryload):
        found = (await s.scalars(select(Account).where(Account.name.in_(["Ada", "m3"])).options(strategy(Account.bookings)).order_by(Account.name))).unique().all()
        show(strategy.__name__, [(a.name, [b.amount for b in a.bookings]) for a in found])
        s.expunge_all()
    show("get", (await s.get(Booking, (1, 2))).text)
    show("get nothing", await s.get(Account, 10**6))
    total = func.sum(Booking.amount).label("total")
    rows = await s.execute(select(Account.name, total).join(Account.bookings).group_by(Account.name).having(total > 2).order_by(Account.name))
    show("joined", rows.all())
    other = aliased(Account)
    rows = await s.execute(select(Account.name, other.name).join(other, other.id == Account.id + 1).where(Account.name.like("a1_")).order_by(Account.name))
    show("self join", rows.all())
    rank = func.rank().over(partition_by=Account.kind, order_by=Account.balance.desc())
    ranked = select(Account.name, rank.label("r")).subquery()
    show("window", (await s.execute(select(ranked).where(ranked.c.r <= 2).order_by(ranked.c.r, ranked.c.name))).all())
    rich = select(Account.id).where(Account.balance > 35).cte("rich")
    show("CTE", await s.scalar(select(func.count()).select_from(rich).join(Booking, Booking.account_id == rich.c.id)))
    show("exists", await s.scalar(select(func.count(Account.id)).where(~exists().where(Booking.account_id == Account.id))))
    show("lateral", (await s.execute(text("SELECT a.name, b.number FROM account a, LATERAL (SELECT * FROM booking WHERE account_id = a.id ORDER BY number DESC LIMIT 1) b WHERE a.name IN ('Ada', 'm1') ORDER BY 1"))).all())
    show("json", await s.scalar(select(Account.name).where(Account.data["a"][0].as_integer() == 1)))
    show("array", await s.scalar(select(Account.name).where(literal("x") == any_(Account.tags))))
    show("range", await s.scalar(select(Account.name).where(Account.valid.contains(datetime.date(2025, 1, 1)))))
    show("enum", await s.scalar(select(func.count()).where(Account.kind == Kind.FIRM)))
    seen = 0
    async for row in await s.stream(select(Booking.amount).execution_options(yield_per=10)):
        seen += row[0]
    show("streamed", seen)
    show("for update", (await s.scalars(select(Account.name).where(Account.id == 1).with_for_update())).all())
    await s.rollback()


async def write(s):
    """Unit of work, bulk statements, upserts, stale versions, errors."""
    ada = (await s.scalars(select(Account).where(Account.name == "Ada").options(selectinload(Account.bookings)))).one()
    ada.balance = Account.balance + 5
    ada.bookings[0].text = "changed"
    del ada.bookings[4]
    ada.bookings.append(Booking(number=10, amount=1))
    await s.commit()
    await s.refresh(ada)
    show("unit of work", (ada.balance, ada.version, await s.scalar(select(func.count()).where(Booking.account_id == ada.id))))
    result = await s.execute(update(Account).where(Account.balance > 20).values(balance=Account.balance * 2, tags=["rich"]))
    show("update", result.rowcount)
    result = await s.execute(update(Account).where(Account.name.like("a%")).values(balance=case((Account.balance > 50, 50), else_=Account.balance)).returning(Account.balance))
    show("update returning", sorted(result.scalars().all()))
    result = await s.execute(update(Booking).where(Booking.account_id == Account.id, Account.name == "m5").values(text="of m5"))
    show("update from", result.rowcount)
    result = await s.execute(delete(Booking).where(Booking.account_id.in_(select(Account.id).where(Account.name == "m6"))))
    show("delete in", result.rowcount)
    await s.execute(update(Account), [{"id": i, "version": 1, "name": f"renamed{i}"} for i in (2, 3, 4)])
    show("update by keys", sorted((await s.scalars(select(Account.name).where(Account.name.like("renamed%")))).all()))
    await s.commit()
    upsert = pg.insert(counter)
    upsert = upsert.on_conflict_do_update(index_elements=["name"], set_={"n": counter.c.n + upsert.excluded.n}).returning(counter.c.n)
    show("upserts", [await s.scalar(upsert, {"name": "one", "n": n}) for n in (1, 2, 3)])
    show("upsert of many", sorted((await s.scalars(upsert.values([{"name": f"c{n}", "n": n} for n in range(5)]))).all()))
    show("or nothing", (await s.execute(pg.insert(counter).values(name="one", n=0).on_conflict_do_nothing())).rowcount)
    await s.execute(counter.update().where(counter.c.name == bindparam("who")).values(n=bindparam("m")), [{"who": "c1", "m": 7}, {"who": "c2", "m": 8}])
    show("many updates", (await s.execute(select(counter).where(counter.c.name.in_(["c1", "c2"])).order_by(counter.c.name))).all())
    await s.commit()
    for title, wrong in (
        ("check", Account(name="w", balance=-2000)),
        ("length", Account(name="w" * 51)),
        ("not null", Account(name=None)),
        ("duplicate", Booking(account_id=1, number=1, amount=0)),
    ):
        try:
            async with s.begin_nested():
                s.add(wrong)
                await s.flush()
        except exc.DBAPIError as error:
            show(title, (type(error).__name__, str(error.orig).splitlines()[0].split(": ")[-1]))
    async with s.begin_nested() as savepoint:
        await s.execute(delete(Account))
        await savepoint.rollback()
    show("rolled back", await s.scalar(select(func.count(Account.id))))
    await s.commit()
    stale = await s.get(Account, 10)
    await s.execute(text("UPDATE account SET version = version + 1 WHERE id = 10"))
    stale.name = "too late"
    try:
        await s.flush()
    except Exception as error:
        show("stale", type(error).__name__)
    await s.rollback()
    gone = await s.get(Account, 1, options=[selectinload(Account.bookings)])
    await s.delete(gone)
    await s.commit()
    show("cascade", await s.scalar(select(func.count()).where(Booking.account_id == 1)))


async def look(engine):
    """What reflection sees."""
    async with engine.connect() as connection:
        metadata = MetaData()
        await connection.run_sync(metadata.reflect)
        show("reflected", sorted(f"{t.name}.{c.name}" for t in metadata.sorted_tables if t.name in dict(KEYS) for c in t.columns))
        show("indexes", await connection.run_sync(lambda c: inspect(c).get_indexes("account")))
        show("key", await connection.run_sync(lambda c: inspect(c).get_pk_constraint("booking")["constrained_columns"]))


async def main(driver):
    """All steps over one driver."""
    engine = create_async_engine(f"postgresql+{driver}://{target.USER}@{target.HOST}:{target.PORT}/{target.DATABASE}", pool_size=3)
    async with engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
    async with engine.begin() as connection:
        for table, key in KEYS:
            for statement in target.distribution_of(table, key):
                await connection.execute(text(statement))
    for step in (fill, read, write):
        print(f"== {step.__name__} with {driver}")
        async with AsyncSession(engine) as session:
            await step(session)
    await look(engine)
    async with engine.begin() as connection:
        await connection.run_sync(Base.metadata.drop_all)
    await engine.dispose()


for driver in ("psycopg", "asyncpg"):
    asyncio.run(main(driver))
