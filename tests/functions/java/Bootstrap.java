import java.io.IOException;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpRequest.BodyPublishers;
import java.net.http.HttpResponse.BodyHandlers;
import java.util.ArrayList;
import java.util.List;

/**
 * A handler and the least of a runtime: fetches each event from the Runtime API and posts the answer.
 *
 * <p>The work is CPU and garbage: it builds, sorts and joins strings.
 */
public final class Bootstrap {
  private static final HttpClient CLIENT =
      HttpClient.newBuilder().version(HttpClient.Version.HTTP_1_1).build();
  private static final String API =
      "http://" + System.getenv("AWS_LAMBDA_RUNTIME_API") + "/2018-06-01/runtime/invocation/";

  private static String handle() {
    List<String> names = new ArrayList<>();
    for (int i = 0; i < 40_000; i++) {
      names.add(Integer.toString(i * 31 % 40_009, 36));
    }
    names.sort(null);
    return "{\"length\":" + String.join(",", names).length() + "}";
  }

  private static void post(String requestId, String what, String body)
      throws IOException, InterruptedException {
    var request =
        HttpRequest.newBuilder(URI.create(API + requestId + what)).POST(BodyPublishers.ofString(body));
    CLIENT.send(request.build(), BodyHandlers.discarding());
  }

  public static void main(String[] arguments) throws IOException, InterruptedException {
    var next = HttpRequest.newBuilder(URI.create(API + "next")).build();
    while (true) {
      var event = CLIENT.send(next, BodyHandlers.ofString());
      String requestId = event.headers().firstValue("Lambda-Runtime-Aws-Request-Id").orElseThrow();
      try {
        post(requestId, "/response", handle());
      } catch (RuntimeException error) {
        String type = error.getClass().getName();
        post(requestId, "/error", "{\"errorMessage\":\"the handler failed\",\"errorType\":\"" + type + "\"}");
      }
    }
  }
}
