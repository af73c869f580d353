import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.sql.BatchUpdateException;
import java.sql.Connection;
import java.sql.DriverManager;
import java.sql.PreparedStatement;
import java.sql.ResultSet;
import java.sql.SQLException;
import java.sql.Statement;
import java.util.Arrays;

/** Batches of a program on pgJDBC, with autocommit and without; every outcome is one line of output. */
public final class Batches {
    private static final String INSERT = "insert into notes (id, body) values (?, ?)";

    private static void say(String text) {
        System.out.println(text.replace("\n", " | "));
        System.out.flush();
    }

    private interface Work {
        int[] run() throws SQLException;
    }

    private static void batch(Connection connection, String name, Work work) throws SQLException {
        try {
            say(name + " " + Arrays.toString(work.run()));
            if (!connection.getAutoCommit()) {
                connection.commit();
            }
        } catch (BatchUpdateException error) {
            SQLException first = error.getNextException();
            String counts = Arrays.toString(error.getUpdateCounts());
            say(name + " failed " + error.getSQLState() + " " + counts + " " + (first == null ? "" : first.getMessage()));
            if (!connection.getAutoCommit()) {
                connection.rollback();
            }
        }
    }

    private static int[] prepared(Connection connection, String sql, int... ids) throws SQLException {
        try (PreparedStatement statement = connection.prepareStatement(sql)) {
            for (int id : ids) {
                statement.setInt(1, id);
                statement.setString(2, id % 2 == 0 ? null : "batch");
                statement.addBatch();
            }
            return statement.executeBatch();
        }
    }

    private static int[] mixed(Connection connection, String... texts) throws SQLException {
        try (Statement statement = connection.createStatement()) {
            for (String text : texts) {
                statement.addBatch(text);
            }
            return statement.executeBatch();
        }
    }

    private static int[] keys(Connection connection) throws SQLException {
        String sql = "insert into log (what) values (?)";
        try (PreparedStatement statement = connection.prepareStatement(sql, new String[] {"what"})) {
            for (int number = 0; number < 300; number++) {
                statement.setString(1, "key " + number);
                statement.addBatch();
            }
            int[] counts = statement.executeBatch();
            int hash = 0;
            try (ResultSet rows = statement.getGeneratedKeys()) {
                while (rows.next()) {
                    hash = 31 * hash + rows.getString(1).hashCode();
                }
            }
            return new int[] {counts.length, hash};
        }
    }

    private static void left(Connection connection) throws SQLException {
        String sql = "select count(*), coalesce(sum(id), 0), count(body) from notes where id > 1000 or body = 'batch'";
        try (Statement statement = connection.createStatement(); ResultSet rows = statement.executeQuery(sql)) {
            rows.next();
            say("left " + rows.getInt(1) + " " + rows.getInt(2) + " " + rows.getInt(3));
        }
    }

    private static void plain(Connection connection) throws SQLException {
        batch(connection, "inserts", () -> prepared(connection, INSERT, 2001, 2002, 2003, 2004, 2005));
        left(connection);
        batch(connection, "fails in the middle", () -> prepared(connection, INSERT, 2006, 2007, 2001, 2008));
        left(connection);
        String texts = "update notes set body = 'batch' where id = 1";
        batch(connection, "mixed", () -> mixed(connection, "insert into notes values (2009)", texts,
                "update notes set body = 'note 1' where id = 1", "delete from notes where id > 2003"));
        left(connection);
        batch(connection, "mixed fails", () -> mixed(connection, texts, "select 1/0", texts));
        batch(connection, "a query in it", () -> mixed(connection, texts, "select 1", texts));
        left(connection);
        batch(connection, "keys", () -> keys(connection));
        batch(connection, "emptied", () -> mixed(connection, "delete from notes where id > 1000",
                "update notes set body = 'note 1' where id = 1"));
        left(connection);
    }

    private static void ruled(Connection connection) throws SQLException {
        String first = "insert into notes values (2001, 'batch')";
        batch(connection, "too many rows", () -> mixed(connection, first,
                "update notes set body = 'batch' where id <= 11", "insert into notes values (2002, 'batch')"));
        left(connection);
        batch(connection, "denied", () -> mixed(connection, first, "vacuum notes", "insert into notes values (2003, 'batch')"));
        left(connection);
        batch(connection, "sixteen rows", () -> prepared(connection, INSERT, 2004, 2005, 2006, 2007, 2008, 2009, 2010, 2011,
                2012, 2013, 2014, 2015, 2016, 2017, 2018, 2019));
        left(connection);
        batch(connection, "emptied", () -> mixed(connection, "delete from notes where id between 2001 and 2010",
                "delete from notes where id > 2010"));
    }

    /** Plays one part for each line of input; what it says of a part ends with `over`. */
    public static void main(String[] arguments) throws Exception {
        BufferedReader input = new BufferedReader(new InputStreamReader(System.in));
        for (String line = input.readLine(); line != null; line = input.readLine()) {
            String[] words = line.split("\t");
            try (Connection connection = DriverManager.getConnection(words[1], words[2], words[3])) {
                for (boolean auto : new boolean[] {true, false}) {
                    connection.setAutoCommit(auto);
                    if (words[0].equals("ruled")) {
                        ruled(connection);
                    } else {
                        plain(connection);
                    }
                }
            }
            say("over");
        }
    }
}
