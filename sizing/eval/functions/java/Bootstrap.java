import java.awt.Graphics2D;
import java.awt.image.BufferedImage;
import java.io.*;
import java.net.URI;
import java.net.http.*;
import java.net.http.HttpRequest.BodyPublishers;
import java.net.http.HttpResponse.BodyHandlers;
import java.nio.charset.StandardCharsets;
import java.nio.file.*;
import java.security.MessageDigest;
import java.util.*;
import java.util.concurrent.*;
import java.util.regex.*;
import java.util.stream.*;
import java.util.zip.*;
import javax.crypto.Mac;
import javax.crypto.spec.SecretKeySpec;
import javax.xml.parsers.DocumentBuilderFactory;

/** The functions in Java with a minimal runtime. `n` of the event is the amount of work. */
public final class Bootstrap {
  private static final HttpClient CLIENT = HttpClient.newBuilder().version(HttpClient.Version.HTTP_1_1).build();
  private static final String API = "http://" + System.getenv("AWS_LAMBDA_RUNTIME_API") + "/2018-06-01/runtime/invocation/";
  private static final ExecutorService POOL = Executors.newFixedThreadPool(4, work -> {
    Thread thread = new Thread(work);
    thread.setDaemon(true);
    return thread;
  });
  private static final byte[] TEXT = IntStream.range(0, 3000)
      .mapToObj(i -> i + " GET /item/" + i * 37 % 9000 + " " + i % 4 + "\n").collect(Collectors.joining()).getBytes();

  private static int number(String event, String name, int missing) {
    Matcher found = Pattern.compile("\"" + name + "\"\\s*:\\s*(\\d+)").matcher(event);
    return found.find() ? Integer.parseInt(found.group(1)) : missing;
  }

  private static long handle(String workload, String event) throws Exception {
    int n = number(event, "n", 1);
    int delay = number(event, "delay_ms", 20);
    switch (workload) {
      case "json": return json(n).length();
      case "xml": return xml(n);
      case "image": return image(n);
      case "zip": return zip(n);
      case "hash": return hash(n);
      case "regex": return regex(n);
      case "routes": return routes(n);
      case "authorise": return authorise(n);
      case "compute": return compute(n);
      case "garbage": return garbage(n);
      case "apiThenWork": fetch(delay).join(); return json(n).length();
      case "chatty": { long sum = 0; for (int i = 0; i < n; i++) sum += fetch(1).join().chars().sum(); return sum; }
      case "fanOut": {
        List<CompletableFuture<String>> all = Stream.generate(() -> fetch(delay)).limit(n).toList();
        return all.stream().mapToLong(one -> one.join().chars().sum()).sum();
      }
      case "parallelStream": return LongStream.range(0, 4).parallel().map(part -> compute(n)).sum();
      case "poolParallel": {
        long sum = 0;
        for (Future<Long> one : POOL.invokeAll(Collections.nCopies(4, (Callable<Long>) () -> hash(n)))) sum += one.get();
        return sum;
      }
      case "poolSequential": { long sum = 0; for (int i = 0; i < 3; i++) sum += POOL.submit(() -> hash(n)).get(); return sum; }
      case "endedThreads": {
        List<Thread> all = Stream.generate(() -> new Thread(() -> compute(n))).limit(4).toList();
        all.forEach(Thread::start);
        for (Thread one : all) one.join();
        return all.size();
      }
      case "writeFiles": {
        for (int i = 0; i < n; i++) {
          try (FileOutputStream out = new FileOutputStream("/tmp/part-" + i)) {
            for (int k = 0; k < 10; k++) out.write(TEXT);
            out.getFD().sync();
          }
        }
        return n;
      }
      default: throw new IllegalArgumentException("unknown workload " + workload);
    }
  }

  private static CompletableFuture<String> fetch(int delayMs) {
    URI uri = URI.create("http://" + System.getenv("SERVER") + "/" + delayMs);
    return CLIENT.sendAsync(HttpRequest.newBuilder(uri).build(), BodyHandlers.ofString()).thenApply(HttpResponse::body);
  }

  private static String json(int n) {
    StringBuilder out = new StringBuilder("[");
    for (int i = 0; i < n; i++) out.append("{\"id\":").append(i).append(",\"name\":\"row ").append(i * 31 % 7919).append("\"},");
    return out.append("]").toString();
  }

  private static long xml(int n) throws Exception {
    String text = IntStream.range(0, n).mapToObj(i -> "<row id='" + i + "'><name>n" + i + "</name></row>").collect(Collectors.joining("", "<rows>", "</rows>"));
    var document = DocumentBuilderFactory.newInstance().newDocumentBuilder().parse(new ByteArrayInputStream(text.getBytes(StandardCharsets.UTF_8)));
    return document.getElementsByTagName("name").getLength();
  }

  private static long image(int n) throws Exception {
    System.setProperty("java.awt.headless", "true");
    BufferedImage from = new BufferedImage(n, n, BufferedImage.TYPE_INT_RGB);
    for (int y = 0; y < n; y++) for (int x = 0; x < n; x++) from.setRGB(x, y, x * y);
    BufferedImage to = new BufferedImage(n / 2, n / 2, BufferedImage.TYPE_INT_RGB);
    Graphics2D graphics = to.createGraphics();
    graphics.drawImage(from, 0, 0, n / 2, n / 2, null);
    graphics.dispose();
    ByteArrayOutputStream out = new ByteArrayOutputStream();
    javax.imageio.ImageIO.write(to, "png", out);
    return out.size();
  }

  private static long zip(int n) throws IOException {
    ByteArrayOutputStream out = new ByteArrayOutputStream();
    try (ZipOutputStream zip = new ZipOutputStream(out)) {
      for (int i = 0; i < n; i++) {
        zip.putNextEntry(new ZipEntry("part-" + i));
        zip.write(TEXT);
        zip.closeEntry();
      }
    }
    return out.size();
  }

  private static long hash(int n) throws Exception {
    MessageDigest digest = MessageDigest.getInstance("SHA-256");
    byte[] last = new byte[0];
    for (int i = 0; i < n; i++) {
      digest.update(TEXT);
      last = digest.digest(last);
    }
    return last[0];
  }

  private static long regex(int n) {
    Pattern line = Pattern.compile("^(\\d+) (\\w+) (\\S+) (\\d)$", Pattern.MULTILINE);
    long sum = 0;
    for (int i = 0; i < n; i++) {
      Matcher found = line.matcher(new String(TEXT, StandardCharsets.UTF_8));
      while (found.find()) sum += found.group(3).length();
    }
    return sum;
  }

  private static long routes(int n) {
    int[] best = new int[n * n];
    Arrays.fill(best, 1 << 30);
    best[0] = 0;
    PriorityQueue<int[]> queue = new PriorityQueue<>(Comparator.comparingInt((int[] one) -> one[0]));
    queue.add(new int[] {0, 0});
    while (!queue.isEmpty()) {
      int[] next = queue.poll();
      for (int other : new int[] {next[1] + 1, next[1] + n, next[1] - n}) {
        int cost = next[0] + 1 + Math.floorMod(other * 31, 9);
        if (other >= 0 && other < n * n && cost < best[other]) {
          best[other] = cost;
          queue.add(new int[] {cost, other});
        }
      }
    }
    return best[n * n - 1];
  }

  private static long authorise(int n) throws Exception {
    long sum = 0;
    for (int i = 0; i < n; i++) {
      Mac mac = Mac.getInstance("HmacSHA256");
      mac.init(new SecretKeySpec("secret".getBytes(), "HmacSHA256"));
      sum += Base64.getUrlEncoder().encodeToString(mac.doFinal(("header." + i).getBytes())).length();
    }
    return sum;
  }

  private static long compute(int rounds) {
    long state = 1;
    for (int i = 0; i < rounds; i++) state = (state * 1_103_515_245L + 12_345L) % 2_147_483_648L;
    return state;
  }

  private static long garbage(int n) {
    List<String> names = new ArrayList<>();
    for (int i = 0; i < n; i++) names.add(Integer.toString(i * 31 % 40_009, 36));
    names.sort(null);
    return String.join(",", names).length();
  }

  private static void post(String path, String body) throws IOException, InterruptedException {
    CLIENT.send(HttpRequest.newBuilder(URI.create(API + path)).POST(BodyPublishers.ofString(body)).build(), BodyHandlers.discarding());
  }

  public static void main(String[] arguments) throws IOException, InterruptedException {
    String workload = System.getenv("WORKLOAD");
    while (true) {
      var event = CLIENT.send(HttpRequest.newBuilder(URI.create(API + "next")).build(), BodyHandlers.ofString());
      String id = event.headers().firstValue("Lambda-Runtime-Aws-Request-Id").orElseThrow();
      try {
        post(id + "/response", "{\"result\":" + handle(workload, event.body()) + "}");
      } catch (Exception error) {
        post(id + "/error", "{\"errorMessage\":\"" + workload + " failed\",\"errorType\":\"" + error.getClass().getName() + "\"}");
      }
    }
  }
}
