import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.sql.BatchUpdateException;
import java.sql.Connection;
import java.sql.DriverManager;
import java.sql.PreparedStatement;
import java.sql.ResultSet;
import java.sql.SQLException;
import java.sql.SQLWarning;
import java.sql.Statement;
import java.util.Arrays;
import java.util.Properties;

/** What a program on pgJDBC does while its statements are held; every outcome is one line of output. */
public final class Holds {
    private static final String INSERT = "insert into log (what) values (?)";

    private static final BufferedReader INPUT = new BufferedReader(new InputStreamReader(System.in));

    private static void say(String text) {
        System.out.println(text.replace("\n", " | "));
        System.out.flush();
    }

    private static void failed(SQLException error) {
        say("failed " + error.getSQLState() + " " + error.getMessage());
    }

    private static int count(Connection connection) throws SQLException {
        try (Statement statement = connection.createStatement();
                ResultSet rows = statement.executeQuery("select count(*) from log")) {
            rows.next();
            return rows.getInt(1);
        }
    }

    private static void prepared(Connection connection) throws SQLException {
        try (PreparedStatement statement = connection.prepareStatement(INSERT)) {
            for (String value : new String[] {"one", "it's two", null}) {
                statement.setString(1, value);
                say("changed " + statement.executeUpdate());
            }
        }
        say("count " + count(connection));
    }

    private static void denied(Connection connection) throws SQLException {
        try (PreparedStatement statement = connection.prepareStatement(INSERT)) {
            statement.setString(1, "denied");
            statement.executeUpdate();
        } catch (SQLException error) {
            failed(error);
        }
        say("count " + count(connection));
    }

    private static void batch(Connection connection) throws SQLException {
        try (PreparedStatement statement = connection.prepareStatement(INSERT)) {
            for (int number = 1; number <= 3; number++) {
                statement.setString(1, "row " + number);
                statement.addBatch();
            }
            say("batch " + Arrays.toString(statement.executeBatch()));
        } catch (BatchUpdateException error) {
            say("batch " + Arrays.toString(error.getUpdateCounts()));
            failed(error);
        }
        say("count " + count(connection));
    }

    private static void transaction(Connection connection) throws SQLException {
        connection.setAutoCommit(false);
        say("count " + count(connection));
        try (Statement statement = connection.createStatement()) {
            say("changed " + statement.executeUpdate("insert into log (what) values ('in a transaction')"));
            try {
                statement.executeUpdate("insert into log (what) values ('refused in it')");
            } catch (SQLException error) {
                failed(error);
            }
        }
        try {
            say("count " + count(connection));
        } catch (SQLException error) {
            failed(error);
        }
        connection.commit();
        connection.setAutoCommit(true);
        say("count " + count(connection));
    }

    private static void begun(Connection connection) throws SQLException {
        connection.setAutoCommit(false);
        try (PreparedStatement statement = connection.prepareStatement(INSERT)) {
            for (String value : new String[] {"first", "second"}) {
                statement.setString(1, value);
                say("changed " + statement.executeUpdate());
            }
            say("count " + count(connection));
            connection.commit();
            statement.setString(1, "third");
            say("changed " + statement.executeUpdate());
            connection.rollback();
        }
        say("count " + count(connection));
        connection.commit();
    }

    private static void cancel(Connection connection) throws Exception {
        try (Statement statement = connection.createStatement()) {
            Thread other = new Thread(() -> {
                try {
                    INPUT.readLine();
                    statement.cancel();
                } catch (Exception error) {
                    say("cancel failed " + error);
                }
            });
            other.start();
            statement.executeUpdate("insert into log (what) values ('cancelled')");
        } catch (SQLException error) {
            failed(error);
        }
        say("count " + count(connection));
    }

    private static void timeout(Connection connection) throws SQLException {
        try (Statement statement = connection.createStatement()) {
            statement.setQueryTimeout(1);
            statement.executeUpdate("insert into log (what) values ('late')");
        } catch (SQLException error) {
            failed(error);
        }
        say("count " + count(connection));
    }

    private static void notices(Connection connection) throws SQLException {
        try (Statement statement = connection.createStatement()) {
            statement.executeUpdate("insert into log (what) values ('noticed')");
            for (SQLWarning warning = statement.getWarnings(); warning != null; warning = warning.getNextWarning()) {
                say("notice " + warning.getMessage());
            }
        }
    }

    private static void play(String what, String url, String user, String password) throws Exception {
        Properties properties = new Properties();
        properties.setProperty("user", user);
        properties.setProperty("password", password);
        try (Connection connection = DriverManager.getConnection(url, properties)) {
            switch (what) {
                case "prepared": prepared(connection); break;
                case "denied": denied(connection); break;
                case "batch": batch(connection); break;
                case "transaction": transaction(connection); break;
                case "begun": begun(connection); break;
                case "cancel": cancel(connection); break;
                case "timeout": timeout(connection); break;
                case "notices": notices(connection); break;
                default: throw new IllegalArgumentException(what);
            }
        }
    }

    /** Plays one part for each line of input; what it says of a part ends with `over`. */
    public static void main(String[] arguments) throws Exception {
        for (String line = INPUT.readLine(); line != null; line = INPUT.readLine()) {
            String[] words = line.split("\t");
            play(words[0], words[1], words[2], words[3]);
            say("over");
        }
    }
}
