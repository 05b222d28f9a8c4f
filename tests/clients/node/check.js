// node-postgres: named prepared statements, a pool, cursors and streams of rows.

'use strict'

const { Client, Pool } = require('pg')
const Cursor = require('pg-cursor')
const QueryStream = require('pg-query-stream')

const distributed = process.env.DISTRIBUTED === '1'

// One line of the transcript.
const show = (title, value) => console.log(`${title}: ${JSON.stringify(value)}`)

// What an error says, whatever node it comes from.
const told = (error) => ({ code: error.code, message: error.message, table: error.table, constraint: error.constraint })

async function create (client) {
  await client.query(`
    CREATE TABLE tasks (team text NOT NULL, id bigserial, title text, due timestamptz, spent numeric(8, 2), done boolean DEFAULT false,
                        labels text[], extra jsonb, file bytea, days daterange, state mood, PRIMARY KEY (team, id));
    CREATE TABLE points (id int PRIMARY KEY, n int);`)
  if (!distributed) return
  for (const [table, key] of [['tasks', 'team'], ['points', 'id']]) {
    await client.query('SELECT master_create_distributed_table($1, $2)', [table, key])
    await client.query('SELECT master_create_worker_shards($1, 8, 2)', [table])
  }
}

async function prepared (client) {
  const insert = {
    name: 'insert-task',
    text: 'INSERT INTO tasks (team, title, due, spent, labels, extra, file, days, state) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9) RETURNING *'
  }
  const due = new Date(Date.UTC(2024, 1, 29, 12))
  for (let n = 0; n < 30; n++) {
    const values = [`team${n % 5}`, `title ${n}`, due, n / 4, ['a', 'b"c', null], { n, deep: [null, { x: 'ü' }] }, Buffer.from([0, n, 255]), '[2024-01-01,2024-02-01)', n % 2 ? 'sad' : 'happy']
    const { rows } = await client.query({ ...insert, values })
    if (n > 27) show('returned', { ...rows[0], file: rows[0].file.toString('hex') })
  }
  const nothing = await client.query({ ...insert, values: ['team0', null, null, null, null, null, null, null, null] })
  show('NULLs', nothing.rows[0].labels === null && nothing.rows[0].file === null)
  const byTeam = { name: 'by-team', text: 'SELECT count(*)::int AS n, sum(spent) AS spent, max(due) AS due FROM tasks WHERE team = $1' }
  for (const team of ['team0', 'team1', 'nobody', null]) show(`by ${team}`, (await client.query({ ...byTeam, values: [team] })).rows)
  const all = { name: 'all', text: 'SELECT team, count(*)::int AS n FROM tasks WHERE spent > $1 GROUP BY team ORDER BY team', values: [2] }
  for (let n = 0; n < 7; n++) if (n > 5) show('all', (await client.query(all)).rows); else await client.query(all)
  for (let n = 0; n < 8; n++) {
    const update = { name: 'finish', text: 'UPDATE tasks SET done = $2, extra = extra || $3 WHERE team = $1 AND title = $4', values: [`team${n % 5}`, true, { by: n }, `title ${n}`] }
    const { rowCount, command } = await client.query(update)
    if (n > 6) show('finished', [command, rowCount])
  }
  show('everywhere', (await client.query({ name: 'late', text: 'UPDATE tasks SET spent = coalesce(spent, 0) + $1 WHERE due < $2 OR due IS NULL', values: ['0.5', new Date()] })).rowCount)
  show('in', (await client.query({ text: 'SELECT title FROM tasks WHERE team = ANY($1) AND done ORDER BY title', values: [['team1', 'team2']], rowMode: 'array' })).rows)
  show('json', (await client.query("SELECT team, extra->'by' AS by FROM tasks WHERE extra @> $1 ORDER BY team", [{ by: 3 }])).rows)
  show('deleted', (await client.query({ name: 'delete', text: 'DELETE FROM tasks WHERE team = $1 AND title IS NULL RETURNING title', values: ['team0'] })).rows)
  show('two statements', (await client.query("SELECT count(*)::int FROM tasks; SELECT 'x' AS y")).map((result) => result.rows))
}

async function errors (client) {
  await client.query('INSERT INTO points SELECT n, 0 FROM generate_series(1, 50) AS n')
  const insert = { name: 'point', text: 'INSERT INTO points VALUES ($1, $2)' }
  for (const values of [[1, 1], [60, 'x'], [61, 2 ** 40], [62, 1]]) {
    try {
      show('inserted', (await client.query({ ...insert, values })).rowCount)
    } catch (error) {
      show('refused', told(error))
    }
  }
  await client.query('BEGIN')
  await client.query('UPDATE points SET n = 5 WHERE id < 10')
  await client.query('SAVEPOINT here')
  try {
    await client.query({ ...insert, values: [2, 2] })
  } catch (error) {
    show('in a transaction', told(error))
    try {
      await client.query('SELECT * FROM points')
    } catch (second) {
      show('and then', second.code)
    }
  }
  await client.query('ROLLBACK TO here')
  await client.query({ ...insert, values: [63, 3] })
  await client.query('COMMIT')
  show('committed', (await client.query('SELECT sum(n)::int AS n, count(*)::int AS of FROM points')).rows)
  await client.query('DEALLOCATE ALL')
  client.connection.parsedStatements = {}
  show('after DEALLOCATE', (await client.query({ ...insert, values: [64, 4] })).rowCount)
}

async function cursors (client) {
  const read = (cursor, n) => cursor.read(n)
  const one = client.query(new Cursor('SELECT id FROM points WHERE id > $1 ORDER BY id', [5]))
  show('first', await read(one, 3))
  show('next', await read(one, 2))
  await one.close()
  const empty = client.query(new Cursor('SELECT id FROM points WHERE id = $1', [5]))
  show('by key', [await read(empty, 10), await read(empty, 10)])
  await empty.close()
  const bad = client.query(new Cursor('SELECT 10 / (id - 30) AS x FROM points ORDER BY id'))
  try {
    for (let rows = await read(bad, 5); rows.length; rows = await read(bad, 5));
  } catch (error) {
    show('error while reading', told(error))
  }
  await client.query('BEGIN')
  const stream = client.query(new QueryStream('SELECT id, n FROM points WHERE n < $1', [100], { batchSize: 7 }))
  let sum = 0
  for await (const row of stream) sum += row.id
  show('streamed', sum)
  const early = client.query(new QueryStream('SELECT id FROM points ORDER BY id', [], { batchSize: 2 }))
  for await (const row of early) { if (row.id === 5) break }
  show('left early', (await client.query('SELECT count(*)::int AS n FROM points')).rows)
  await client.query('ROLLBACK')
}

async function pool () {
  const pool = new Pool({ max: 8 })
  const work = Array.from({ length: 200 }, async (_, n) => {
    const id = 1 + n % 20
    if (n % 4 === 0) {
      const client = await pool.connect()
      try {
        await client.query('BEGIN')
        await client.query({ name: 'add', text: 'UPDATE points SET n = n + $2 WHERE id = $1', values: [id, 1] })
        await client.query('SAVEPOINT s')
        await client.query({ name: 'add', text: 'UPDATE points SET n = n + $2 WHERE id = $1', values: [id, 100] })
        await client.query('ROLLBACK TO s')
        await client.query(n % 8 ? 'COMMIT' : 'ROLLBACK')
      } finally {
        client.release()
      }
    } else {
      await pool.query({ name: 'upsert', text: 'INSERT INTO points VALUES ($1, 1) ON CONFLICT (id) DO UPDATE SET n = points.n + 1', values: [id] })
    }
  })
  await Promise.all(work)
  show('written by all', (await pool.query('SELECT sum(n)::int AS n FROM points WHERE id <= 20')).rows)
  const client = await pool.connect()
  const { rows: [{ pid }] } = await client.query('SELECT pg_backend_pid() AS pid')
  const owner = await pool.connect()
  await owner.query('BEGIN')
  await owner.query('UPDATE points SET n = 0 WHERE id = 1')
  const slow = client.query('UPDATE points SET n = n + 1 WHERE id = 1').catch(told)
  const waits = "SELECT count(*)::int AS n FROM pg_stat_activity WHERE pid = $1 AND state = 'active'"
  while ((await pool.query(waits, [pid])).rows[0].n === 0);
  await pool.query('SELECT pg_cancel_backend($1)', [pid])
  show('cancelled', await slow)
  await owner.query('ROLLBACK')
  owner.release()
  show('usable', (await client.query('SELECT n > 0 AS is FROM points WHERE id = 1')).rows)
  client.release()
  await pool.end()
}

async function main () {
  const client = new Client()
  await client.connect()
  await create(client)
  for (const step of [prepared, errors, cursors, pool]) {
    console.log(`== ${step.name}`)
    await step(client)
  }
  await client.end()
}

main().catch((error) => {
  console.error(error)
  process.exitCode = 1
})
