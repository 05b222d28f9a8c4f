"""Where a script runs: on plain PostgreSQL, or on the coordinator of a cluster.

The server is described by libpq's environment variables. DISTRIBUTED says whether its tables shall be distributed. A
script prints what it got; the two outputs must be equal.
"""

import os

HOST = os.environ["PGHOST"]
PORT = int(os.environ["PGPORT"])
USER = os.environ["PGUSER"]
DATABASE = os.environ["PGDATABASE"]
IS_DISTRIBUTED = os.environ["DISTRIBUTED"] == "1"


def distribution_of(table, key):
    """The statements that distribute `table` by its column `key`; none on plain PostgreSQL."""
    if not IS_DISTRIBUTED:
        return []
    return [
        f"SELECT master_create_distributed_table('{table}', '{key}')",
        f"SELECT master_create_worker_shards('{table}', 8, 2)",
    ]
