import io.kubernetes.client.Attach;
import io.kubernetes.client.Exec;
import io.kubernetes.client.PortForward;
import io.kubernetes.client.openapi.ApiClient;
import io.kubernetes.client.util.Config;
import java.io.BufferedReader;
import java.io.InputStream;
import java.io.InputStreamReader;
import java.io.OutputStream;
import java.nio.charset.StandardCharsets;
import java.util.List;

/** The official Java client's exec, attach and port-forward into the pod {@code web}: one line a step, as in {@link Calls}. */
public final class Streams {
  static final byte[] HELLO = "hello\n".getBytes(StandardCharsets.UTF_8);
  static ApiClient client;

  public static void main(String[] args) throws Exception {
    client = Config.defaultClient();
    // A stream is read as long as it lasts.
    client.setReadTimeout(0);
    Calls.step("execGivesOutput", Streams::execGivesOutput);
    Calls.step("execGivesTheExitCode", Streams::execGivesTheExitCode);
    Calls.step("execTakesInput", Streams::execTakesInput);
    Calls.step("execHasATerminal", Streams::execHasATerminal);
    Calls.step("attachGivesOutput", Streams::attachGivesOutput);
    Calls.step("portForwardCarriesBytes", Streams::portForwardCarriesBytes);
    System.exit(0);
  }

  static Process exec(boolean stdin, boolean tty, String... command) throws Exception {
    return new Exec(client).exec("default", "web", command, "main", stdin, tty);
  }

  static String all(InputStream from) throws Exception {
    return new String(from.readAllBytes(), StandardCharsets.UTF_8);
  }

  static String line(InputStream from) throws Exception {
    return new BufferedReader(new InputStreamReader(from, StandardCharsets.UTF_8)).readLine();
  }

  static void execGivesOutput() throws Exception {
    Process process = exec(false, false, "sh", "-c", "echo out; echo err >&2; sleep 0.2");
    // Once the connection is closed there is no stream to be had.
    InputStream out = process.getInputStream();
    InputStream err = process.getErrorStream();
    Calls.same(List.of(all(out), all(err)), List.of("out\n", "err\n"));
    Calls.same(process.waitFor(), 0);
  }

  static void execGivesTheExitCode() throws Exception {
    Process process = exec(false, false, "sh", "-c", "exit 7");
    Calls.same(process.waitFor(), 7);
  }

  static void execTakesInput() throws Exception {
    Process process = exec(true, false, "sh", "-c", "read word; echo got $word");
    OutputStream typing = process.getOutputStream();
    typing.write(HELLO);
    typing.flush();
    Calls.same(all(process.getInputStream()), "got hello\n");
    Calls.same(process.waitFor(), 0);
  }

  static void execHasATerminal() throws Exception {
    Process process = exec(true, true, "tty");
    Calls.same(all(process.getInputStream()), "/dev/pts/0\r\n");
    Calls.same(process.waitFor(), 0);
  }

  static void attachGivesOutput() throws Exception {
    // The shorter ways ask for no output.
    Attach.AttachResult result =
        new Attach(client)
            .newConnectionBuilder("default", "web")
            .setContainer("echo")
            .setStdin(true)
            .setStdout(true)
            .connect();
    OutputStream typing = result.getStandardInputStream();
    typing.write(HELLO);
    typing.flush();
    Calls.same(line(result.getStandardOutputStream()), "heard hello");
    result.close();
  }

  static void portForwardCarriesBytes() throws Exception {
    PortForward.PortForwardResult result = new PortForward(client).forward("default", "web", List.of(7000));
    OutputStream sending = result.getOutboundStream(7000);
    sending.write("stressed\n".getBytes(StandardCharsets.UTF_8));
    sending.flush();
    byte[] heard = result.getInputStream(7000).readNBytes("desserts".length());
    Calls.same(new String(heard, StandardCharsets.UTF_8), "desserts");
  }
}
