"""A Java program with an agent, as tracing products attach it."""

import subprocess
import zipfile

from common import get, run, wait_for_port, write

PORT = 8098

AGENT = """
public class Agent {
    public static void premain(String options, java.lang.instrument.Instrumentation instrumentation) {
        instrumentation.addTransformer(new java.lang.instrument.ClassFileTransformer() {});
        Thread thread = new Thread(() -> { try { while (true) Thread.sleep(50); } catch (InterruptedException e) {} });
        thread.setDaemon(true);
        thread.start();
    }
}
"""

SERVER = """
import com.sun.net.httpserver.HttpServer;
import java.util.*;
public class Main {
    public static void main(String[] arguments) throws Exception {
        HttpServer server = HttpServer.create(new java.net.InetSocketAddress("127.0.0.1", PORT), 0);
        server.createContext("/", exchange -> {
            Map<String, String> map = new HashMap<>();
            for (int i = 0; i < 150000; i++) map.put("key" + i, Integer.toHexString(i * 31));
            byte[] body = Integer.toString(map.hashCode()).getBytes();
            exchange.sendResponseHeaders(200, body.length);
            exchange.getResponseBody().write(body);
            exchange.close();
        });
        server.start();
    }
}
"""


def start():
    write("/tmp/Agent.java", AGENT)
    write("/tmp/Main.java", SERVER.replace("PORT", str(PORT)))
    run("javac", "-d", "/tmp", "/tmp/Agent.java", "/tmp/Main.java")
    with zipfile.ZipFile("/tmp/agent.jar", "w") as jar:
        jar.writestr("META-INF/MANIFEST.MF", "Manifest-Version: 1.0\nPremain-Class: Agent\n")
        jar.write("/tmp/Agent.class", "Agent.class")
        jar.write("/tmp/Agent$1.class", "Agent$1.class")
    options = ["-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Xmx256m", "-javaagent:/tmp/agent.jar"]
    subprocess.Popen(["java", *options, "-cp", "/tmp", "Main"])
    wait_for_port(PORT)


def handle(event):
    return {"hash": int(get(PORT))}
