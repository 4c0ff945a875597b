import java.io.IOException;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpRequest.BodyPublishers;
import java.net.http.HttpResponse.BodyHandlers;
import java.util.ArrayList;
import java.util.List;
import java.util.stream.LongStream;

/**
 * A handler and a minimal runtime, which fetches each event from the Runtime API and posts the response.
 *
 * <p>WORKLOAD selects the work; the default is string processing that produces garbage.
 */
public final class Bootstrap {
  private static final HttpClient CLIENT =
      HttpClient.newBuilder().version(HttpClient.Version.HTTP_1_1).build();
  private static final String API =
      "http://" + System.getenv("AWS_LAMBDA_RUNTIME_API") + "/2018-06-01/runtime/invocation/";

  private static String handle(String workload) throws IOException {
    return switch (workload) {
      case "profile" -> Profiles.profiled("garbage", () -> "{\"length\":" + garbage() + "}");
      case "compute" -> "{\"state\":" + compute(20_000_000) + "}";
      case "parallel" -> "{\"state\":" + parallel() + "}";
      default -> "{\"length\":" + garbage() + "}";
    };
  }

  /** Creates, sorts and joins strings, which uses CPU and produces garbage. */
  private static int garbage() {
    List<String> names = new ArrayList<>();
    for (int i = 0; i < 40_000; i++) {
      names.add(Integer.toString(i * 31 % 40_009, 36));
    }
    names.sort(null);
    return String.join(",", names).length();
  }

  /** Arithmetic on one thread. */
  private static long compute(int rounds) {
    long state = 1;
    for (int i = 0; i < rounds; i++) {
      state = (state * 1_103_515_245L + 12_345L) % 2_147_483_648L;
    }
    return state;
  }

  /** Arithmetic on the threads of the common pool. */
  private static long parallel() {
    return LongStream.range(0, 4).parallel().map(part -> compute(5_000_000)).sum();
  }

  private static void post(String requestId, String what, String body)
      throws IOException, InterruptedException {
    var request =
        HttpRequest.newBuilder(URI.create(API + requestId + what)).POST(BodyPublishers.ofString(body));
    CLIENT.send(request.build(), BodyHandlers.discarding());
  }

  public static void main(String[] arguments) throws IOException, InterruptedException {
    String workload = System.getenv().getOrDefault("WORKLOAD", "");
    var next = HttpRequest.newBuilder(URI.create(API + "next")).build();
    while (true) {
      var event = CLIENT.send(next, BodyHandlers.ofString());
      String requestId = event.headers().firstValue("Lambda-Runtime-Aws-Request-Id").orElseThrow();
      try {
        post(requestId, "/response", handle(workload));
      } catch (RuntimeException error) {
        String type = error.getClass().getName();
        post(requestId, "/error", "{\"errorMessage\":\"the handler failed\",\"errorType\":\"" + type + "\"}");
      }
    }
  }
}
