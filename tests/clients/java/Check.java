import java.math.BigDecimal;
import java.io.StringReader;
import java.sql.*;
import java.time.OffsetDateTime;
import java.time.ZoneOffset;
import java.util.*;
import org.postgresql.PGConnection;
import org.postgresql.PGStatement;
import org.postgresql.util.PGobject;
import org.postgresql.util.PSQLException;

/**
 * The JDBC driver: statements prepared on the server from the first execution on, batches, generated keys, savepoints of
 * the driver's own, rows fetched in portions.
 *
 * <p>The connection is described by libpq's environment variables; see {@code target.py} beside the Python scripts.
 */
public final class Check {
    private static final boolean DISTRIBUTED = "1".equals(System.getenv("DISTRIBUTED"));

    private Check() {}

    public static void main(String[] arguments) throws Exception {
        try (Connection connection = connect("prepareThreshold=1")) {
            create(connection);
            types(connection);
            batches(connection);
            keys(connection);
            portions(connection);
            copies(connection);
            transactions(connection);
            metadata(connection);
        }
        try (Connection connection = connect("prepareThreshold=1&autosave=always&cleanupSavepoints=true")) {
            autosave(connection);
        }
        try (Connection connection = connect("prepareThreshold=1&autosave=conservative")) {
            conservative(connection);
        }
        for (String mode : List.of("simple", "extended", "extendedForPrepared", "extendedCacheEverything")) {
            try (Connection connection = connect("preferQueryMode=" + mode)) {
                mode(connection, mode);
            }
        }
        try (Connection connection = connect("reWriteBatchedInserts=true")) {
            rewritten(connection);
        }
    }

    private static Connection connect(String options) throws SQLException {
        Map<String, String> e = System.getenv();
        String address = e.get("PGHOST") + ":" + e.get("PGPORT") + "/" + e.get("PGDATABASE");
        return DriverManager.getConnection("jdbc:postgresql://" + address + "?user=" + e.get("PGUSER") + "&" + options);
    }

    /** One line of the transcript. */
    private static void show(String title, Object value) {
        System.out.println(title + ": " + value);
    }

    /** What an error says, whatever node it comes from. */
    private static String told(SQLException error) {
        String message = error.getMessage().lines().findFirst().orElse("");
        String constraint =
                error instanceof PSQLException p && p.getServerErrorMessage() != null
                        ? p.getServerErrorMessage().getConstraint()
                        : null;
        return error.getSQLState() + " " + message + " " + constraint;
    }

    private static String rows(ResultSet result) throws SQLException {
        List<String> rows = new ArrayList<>();
        int columns = result.getMetaData().getColumnCount();
        while (result.next()) {
            List<String> row = new ArrayList<>();
            for (int column = 1; column <= columns; column++) row.add(text(result, column));
            rows.add(String.join("|", row.stream().map(String::valueOf).toList()));
        }
        return rows.toString();
    }

    private static String text(ResultSet result, int column) throws SQLException {
        return result.getMetaData().getColumnType(column) == Types.BINARY && result.getBytes(column) != null
                ? HexFormat.of().formatHex(result.getBytes(column))
                : result.getString(column);
    }

    private static String query(Connection connection, String sql, Object... values) throws SQLException {
        try (PreparedStatement statement = connection.prepareStatement(sql)) {
            for (int n = 0; n < values.length; n++) statement.setObject(n + 1, values[n]);
            try (ResultSet result = statement.executeQuery()) {
                return rows(result);
            }
        }
    }

    private static int update(Connection connection, String sql, Object... values) throws SQLException {
        try (PreparedStatement statement = connection.prepareStatement(sql)) {
            for (int n = 0; n < values.length; n++) statement.setObject(n + 1, values[n]);
            return statement.executeUpdate();
        }
    }

    private static void create(Connection connection) throws SQLException {
        try (Statement statement = connection.createStatement()) {
            statement.execute(
                    "CREATE TABLE parcels (depot varchar(20) NOT NULL, id bigserial, weight numeric(8, 3), sent timestamptz, "
                            + "fragile boolean, codes int[], body jsonb, seal bytea, ref uuid, day date, at time, size float8, "
                            + "state mood, PRIMARY KEY (depot, id)); "
                            + "CREATE TABLE tallies (id int PRIMARY KEY, n int NOT NULL, note text)");
            if (!DISTRIBUTED) return;
            for (String[] of : new String[][] {{"parcels", "depot"}, {"tallies", "id"}}) {
                statement.execute("SELECT master_create_distributed_table('" + of[0] + "', '" + of[1] + "')");
                statement.execute("SELECT master_create_worker_shards('" + of[0] + "', 8, 2)");
            }
        }
    }

    private static void types(Connection connection) throws SQLException {
        System.out.println("== types");
        String insert =
                "INSERT INTO parcels (depot, weight, sent, fragile, codes, body, seal, ref, day, at, size, state) "
                        + "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?::mood)";
        try (PreparedStatement statement = connection.prepareStatement(insert)) {
            for (int n = 0; n < 40; n++) {
                PGobject body = new PGobject();
                body.setType("jsonb");
                body.setValue("{\"n\": " + n + ", \"x\": [null, \"ü\"]}");
                boolean isNull = n % 7 == 6;
                statement.setString(1, "depot" + n % 4);
                if (isNull) {
                    int[] types = {Types.NUMERIC, Types.TIMESTAMP_WITH_TIMEZONE, Types.BOOLEAN, Types.ARRAY, Types.OTHER, Types.BINARY,
                        Types.OTHER, Types.DATE, Types.TIME, Types.DOUBLE, Types.VARCHAR};
                    for (int column = 0; column < types.length; column++) statement.setNull(column + 2, types[column]);
                } else {
                    statement.setBigDecimal(2, new BigDecimal("12.345").add(BigDecimal.valueOf(n)));
                    statement.setObject(3, OffsetDateTime.of(2024, 2, 29, 12, 0, n, 0, ZoneOffset.UTC));
                    statement.setBoolean(4, n % 2 == 0);
                    statement.setArray(5, connection.createArrayOf("int4", new Integer[] {n, null, -n}));
                    statement.setObject(6, body);
                    statement.setBytes(7, new byte[] {0, (byte) n, -1});
                    statement.setObject(8, new UUID(0, n));
                    statement.setObject(9, java.time.LocalDate.of(2024, 1, 1).plusDays(n));
                    statement.setObject(10, java.time.LocalTime.of(1, 2, n));
                    statement.setDouble(11, n / 3.0);
                    statement.setString(12, n % 2 == 0 ? "happy" : "sad");
                }
                statement.executeUpdate();
            }
            show("prepared on the server", statement.unwrap(PGStatement.class).isUseServerPrepare());
        }
        String columns = "depot, weight, sent AT TIME ZONE 'UTC', fragile, codes, body, seal, ref, day, at, size, state";
        try (PreparedStatement statement = connection.prepareStatement("SELECT " + columns + " FROM parcels WHERE depot = ? ORDER BY id")) {
            for (int n = 0; n < 6; n++) {
                statement.setString(1, "depot" + n);
                try (ResultSet result = statement.executeQuery()) {
                    show("depot" + n, rows(result));
                }
            }
        }
        show("all", query(connection, "SELECT depot, count(*), sum(weight), max(sent AT TIME ZONE 'UTC') FROM parcels WHERE size > ? GROUP BY depot ORDER BY depot", 1.5));
        show("key as another type", query(connection, "SELECT count(*) FROM tallies WHERE id = ?", 5L));
        show("key as numeric", query(connection, "SELECT count(*) FROM tallies WHERE id = ?", new BigDecimal("5")));
        try (PreparedStatement statement = connection.prepareStatement("SELECT count(*) FROM parcels WHERE depot = ANY (?) AND state = ?::mood")) {
            statement.setArray(1, connection.createArrayOf("text", new String[] {"depot1", "depot2"}));
            statement.setString(2, "sad");
            show("array of keys", rows(statement.executeQuery()));
        }
        try (PreparedStatement statement = connection.prepareStatement("SELECT count(*) FROM parcels WHERE depot = ?")) {
            statement.setString(1, "depot1");
            show("as varchar", rows(statement.executeQuery()));
            statement.setObject(1, "depot1", Types.OTHER);
            show("as unknown", rows(statement.executeQuery()));
            statement.setNull(1, Types.VARCHAR);
            show("as null", rows(statement.executeQuery()));
        }
    }

    private static void batches(Connection connection) throws SQLException {
        System.out.println("== batches");
        try (PreparedStatement statement = connection.prepareStatement("INSERT INTO tallies VALUES (?, ?, ?)")) {
            for (int n = 0; n < 500; n++) {
                statement.setInt(1, n);
                statement.setInt(2, n % 10);
                statement.setString(3, n % 3 == 0 ? null : "n" + n);
                statement.addBatch();
            }
            show("inserted", Arrays.stream(statement.executeBatch()).sum());
        }
        connection.setAutoCommit(false);
        try (PreparedStatement statement = connection.prepareStatement("UPDATE tallies SET n = n + ? WHERE id = ?")) {
            for (int n = 0; n < 300; n++) {
                statement.setInt(1, 1);
                statement.setInt(2, n % 100 == 99 ? -1 : n % 50);
                statement.addBatch();
            }
            int[] counts = statement.executeBatch();
            show("updated", Arrays.stream(counts).sum() + " of " + counts.length);
        }
        connection.rollback();
        show("rolled back", query(connection, "SELECT sum(n) FROM tallies"));
        connection.commit();
        connection.setAutoCommit(true);
        try (PreparedStatement statement = connection.prepareStatement("INSERT INTO tallies VALUES (?, 1)")) {
            for (int n : new int[] {1000, 1001, 5, 1002}) {
                statement.setInt(1, n);
                statement.addBatch();
            }
            statement.executeBatch();
        } catch (BatchUpdateException error) {
            show("one fails", told((SQLException) error.getCause()));
        }
        show("none stays", query(connection, "SELECT count(*) FROM tallies WHERE id >= 1000"));
        try (Statement statement = connection.createStatement()) {
            statement.addBatch("UPDATE tallies SET n = 0 WHERE id < 20");
            statement.addBatch("DELETE FROM tallies WHERE id BETWEEN 400 AND 409");
            statement.addBatch("INSERT INTO tallies VALUES (400, 4), (401, 5) ON CONFLICT (id) DO UPDATE SET n = excluded.n");
            show("mixed", Arrays.toString(statement.executeBatch()));
        }
    }

    private static void keys(Connection connection) throws SQLException {
        System.out.println("== generated keys");
        String insert = "INSERT INTO parcels (depot, weight) VALUES (?, ?)";
        try (PreparedStatement statement = connection.prepareStatement(insert, Statement.RETURN_GENERATED_KEYS)) {
            statement.setString(1, "depot9");
            statement.setInt(2, 1);
            statement.executeUpdate();
            try (ResultSet generated = statement.getGeneratedKeys()) {
                generated.next();
                show("by name", generated.getString("depot") + " " + generated.getLong("id"));
            }
        }
        try (PreparedStatement statement = connection.prepareStatement(insert, new String[] {"id"})) {
            for (int n = 0; n < 5; n++) {
                statement.setString(1, "depot" + n);
                statement.setInt(2, n);
                statement.addBatch();
            }
            statement.executeBatch();
            show("of a batch", rows(statement.getGeneratedKeys()));
        }
        try (Statement statement = connection.createStatement()) {
            statement.executeUpdate("INSERT INTO parcels (depot) VALUES ('depotA'), ('depotB'), ('depotC')", new String[] {"id", "depot"});
            show("of several rows", rows(statement.getGeneratedKeys()));
            statement.executeUpdate("UPDATE parcels SET weight = 9 WHERE depot LIKE 'depot_' AND id > 46", Statement.RETURN_GENERATED_KEYS);
            int count = 0;
            for (ResultSet result = statement.getGeneratedKeys(); result.next(); ) count++;
            show("of an update", count);
        }
    }

    private static void portions(Connection connection) throws SQLException {
        System.out.println("== portions");
        connection.setAutoCommit(false);
        try (PreparedStatement all = connection.prepareStatement("SELECT id, n FROM tallies");
                PreparedStatement one = connection.prepareStatement("UPDATE tallies SET note = 'seen' WHERE id = ?")) {
            all.setFetchSize(17);
            int rows = 0;
            try (ResultSet result = all.executeQuery()) {
                while (result.next()) {
                    if (result.getInt(1) % 50 == 0) {
                        one.setInt(1, result.getInt(1));
                        one.executeUpdate();
                    }
                    rows++;
                }
            }
            show("fetched", rows);
            all.setFetchSize(3);
            try (ResultSet first = all.executeQuery(); ResultSet again = connection.prepareStatement("SELECT id FROM tallies ORDER BY id").executeQuery()) {
                first.next();
                again.next();
                show("two at once", again.getInt(1));
            }
            all.setMaxRows(5);
            int few = 0;
            for (ResultSet result = all.executeQuery(); result.next(); ) few++;
            show("at most", few);
        }
        show("seen", query(connection, "SELECT count(*) FROM tallies WHERE note = ?", "seen"));
        connection.commit();
        connection.setAutoCommit(true);
        try (Statement statement = connection.createStatement(ResultSet.TYPE_SCROLL_INSENSITIVE, ResultSet.CONCUR_UPDATABLE);
                ResultSet result = statement.executeQuery("SELECT id, n, note FROM tallies WHERE id IN (1, 2, 3) ORDER BY id")) {
            result.last();
            result.updateInt("n", 33);
            result.updateRow();
            result.moveToInsertRow();
            result.updateInt("id", 7000);
            result.updateInt("n", 1);
            result.insertRow();
            result.absolute(1);
            result.deleteRow();
        }
        show("through the result set", query(connection, "SELECT id, n FROM tallies WHERE id IN (1, 3, 7000) ORDER BY id"));
    }

    private static void copies(Connection connection) throws Exception {
        System.out.println("== copies");
        var copy = connection.unwrap(PGConnection.class).getCopyAPI();
        StringBuilder text = new StringBuilder();
        for (int n = 2000; n < 3000; n++) text.append(n).append(",").append(n % 3).append(",\"x,\"\"y\"\"\"\n");
        show("in", copy.copyIn("COPY tallies FROM STDIN (FORMAT csv)", new StringReader(text.toString())));
        try {
            copy.copyIn("COPY tallies FROM STDIN (FORMAT csv)", new StringReader("4000,1,\n4001,\n"));
        } catch (SQLException error) {
            show("bad line", told(error));
        }
        var out = new java.io.StringWriter();
        show("out", copy.copyOut("COPY tallies (id, n) TO STDOUT", out) + " " + out.toString().lines().count());
    }

    private static void transactions(Connection connection) throws SQLException {
        System.out.println("== transactions");
        connection.setAutoCommit(false);
        update(connection, "UPDATE tallies SET n = 50 WHERE id = ?", 50);
        Savepoint here = connection.setSavepoint("here");
        update(connection, "UPDATE tallies SET n = 51 WHERE id < ?", 60);
        try {
            update(connection, "INSERT INTO tallies VALUES (?, 1)", 60);
        } catch (SQLException error) {
            show("duplicate", told(error));
        }
        try {
            query(connection, "SELECT 1 FROM tallies");
        } catch (SQLException error) {
            show("aborted", told(error));
        }
        connection.rollback(here);
        show("after the savepoint", query(connection, "SELECT id, n FROM tallies WHERE id IN (49, 50, 60) ORDER BY id"));
        connection.commit();
        for (int level : new int[] {Connection.TRANSACTION_REPEATABLE_READ, Connection.TRANSACTION_SERIALIZABLE, Connection.TRANSACTION_READ_COMMITTED}) {
            connection.setTransactionIsolation(level);
            show("level " + level, update(connection, "UPDATE tallies SET n = n + 1 WHERE id = 50") + query(connection, "SELECT n FROM tallies WHERE id = 50"));
            connection.commit();
        }
        connection.setReadOnly(true);
        try {
            update(connection, "DELETE FROM tallies WHERE id = 50");
        } catch (SQLException error) {
            show("read only", told(error));
        }
        connection.rollback();
        connection.setReadOnly(false);
        update(connection, "UPDATE tallies SET n = 5 WHERE id = 70");
        try (Connection other = connect("prepareThreshold=1"); PreparedStatement late = other.prepareStatement("UPDATE tallies SET n = 6 WHERE id = 70")) {
            late.setQueryTimeout(1);
            late.executeUpdate();
        } catch (SQLException error) {
            show("time-out", told(error));
        }
        connection.commit();
        connection.setAutoCommit(true);
        show("mine", query(connection, "SELECT n FROM tallies WHERE id = 70"));
    }

    private static void autosave(Connection connection) throws SQLException {
        System.out.println("== autosave");
        connection.setAutoCommit(false);
        for (int n = 80; n < 90; n++) {
            update(connection, "UPDATE tallies SET n = 1000 WHERE id = ?", n);
            try {
                update(connection, "INSERT INTO tallies VALUES (?, 1)", n);
            } catch (SQLException error) {
                if (n == 85) show("failed", told(error));
            }
        }
        show("goes on", query(connection, "SELECT count(*) FROM tallies WHERE n = 1000"));
        connection.commit();
        show("committed", query(connection, "SELECT count(*) FROM tallies WHERE n = 1000"));
        connection.commit();
    }

    private static void conservative(Connection connection) throws SQLException {
        System.out.println("== autosave, conservative");
        connection.setAutoCommit(false);
        show("before", query(connection, "SELECT n FROM tallies WHERE id = ?", 80));
        try (Statement statement = connection.createStatement()) {
            statement.execute("DEALLOCATE ALL");
            statement.execute("SET search_path = public, pg_catalog");
        }
        show("after", query(connection, "SELECT n FROM tallies WHERE id = ?", 80));
        connection.commit();
    }

    private static void mode(Connection connection, String mode) throws SQLException {
        System.out.println("== mode " + mode);
        show("insert", update(connection, "INSERT INTO tallies VALUES (?, ?, ?) ON CONFLICT (id) DO UPDATE SET n = tallies.n + 1", 9000, 1, "it's"));
        show("read", query(connection, "SELECT n, note FROM tallies WHERE id = ?", 9000));
        show("all", query(connection, "SELECT count(*) FROM tallies WHERE n < ?", 5));
        try (Statement statement = connection.createStatement()) {
            show("several", statement.execute("UPDATE tallies SET note = note || '!' WHERE id = 9000; SELECT note FROM tallies WHERE id = 9000; SELECT 1"));
            show("count", statement.getUpdateCount());
            for (int n = 0; n < 2; n++) {
                statement.getMoreResults();
                show("result", rows(statement.getResultSet()));
            }
        }
    }

    private static void rewritten(Connection connection) throws SQLException {
        System.out.println("== rewritten batches");
        try (PreparedStatement statement = connection.prepareStatement("INSERT INTO tallies VALUES (?, ?, ?)")) {
            for (int n = 20000; n < 20300; n++) {
                statement.setInt(1, n);
                statement.setInt(2, 1);
                statement.setString(3, "r" + n);
                statement.addBatch();
            }
            statement.executeBatch();
        }
        show("written", query(connection, "SELECT count(*), min(note), max(note) FROM tallies WHERE id >= ?", 20000));
    }

    private static void metadata(Connection connection) throws SQLException {
        System.out.println("== metadata");
        DatabaseMetaData data = connection.getMetaData();
        for (String table : new String[] {"parcels", "tallies"}) {
            List<String> columns = new ArrayList<>();
            for (ResultSet result = data.getColumns(null, "public", table, null); result.next(); ) columns.add(result.getString("COLUMN_NAME") + " " + result.getString("TYPE_NAME"));
            List<String> key = new ArrayList<>();
            for (ResultSet result = data.getPrimaryKeys(null, "public", table); result.next(); ) key.add(result.getString("COLUMN_NAME"));
            show(table, columns + " " + key);
        }
    }
}
