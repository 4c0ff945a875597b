import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.StandardCopyOption;
import java.util.function.Supplier;
import jdk.jfr.Recording;

/** Writes a recording of the JDK Flight Recorder, for the upload by the extension (docs/profiles.md). */
final class Profiles {
  private static final Path FOLDER = Path.of("/tmp/tailor");

  private Profiles() {}

  /** Records {@code work}. The name of the file is unique, so that a later recording does not replace it. */
  static <T> T profiled(String name, Supplier<T> work) throws IOException {
    try (Recording recording = new Recording()) {
      recording.enable("jdk.ExecutionSample").withPeriod(java.time.Duration.ofMillis(10));
      recording.enable("jdk.GarbageCollection");
      recording.start();
      T result = work.get();
      recording.stop();
      Files.createDirectories(FOLDER);
      String file = name + "-" + System.nanoTime() + ".jfr";
      // A name that begins with a dot is not complete. The move makes it complete at once.
      Path part = FOLDER.resolve("." + file);
      recording.dump(part);
      Files.move(part, FOLDER.resolve(file), StandardCopyOption.ATOMIC_MOVE);
      return result;
    }
  }
}
