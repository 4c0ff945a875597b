import com.amazonaws.services.lambda.runtime.Context;
import com.amazonaws.services.lambda.runtime.RequestHandler;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.Map;

/** The same operations as the handlers in other languages: echo, fail, sleep, use memory. */
public class Handler implements RequestHandler<Map<String, Object>, Object> {
    private static int invocations;

    @Override
    public Object handleRequest(Map<String, Object> event, Context context) {
        invocations += 1;
        String what = String.valueOf(event.get("do"));
        if (what.equals("fail")) {
            throw new IllegalStateException("boom");
        }
        if (what.equals("sleep")) {
            try {
                Thread.sleep(1000L * ((Number) event.get("seconds")).longValue());
            } catch (InterruptedException interrupted) {
                throw new IllegalStateException(interrupted);
            }
        }
        if (what.equals("memory")) {
            List<byte[]> held = new ArrayList<>();
            for (int megabyte = 0; megabyte < ((Number) event.get("mb")).intValue(); megabyte++) {
                byte[] piece = new byte[1024 * 1024];
                Arrays.fill(piece, (byte) 1);
                held.add(piece);
            }
            return held.size();
        }
        return Map.of(
                "invocations", invocations,
                "request_id", context.getAwsRequestId(),
                "memory_mb", context.getMemoryLimitInMB());
    }
}
