// Receives webhooks: verifies, drops duplicates and stale news, fills gaps. Needs Java 17 and the libraries of pom.xml.

import com.google.gson.Gson;
import com.google.gson.annotations.SerializedName;
import com.standardwebhooks.Webhook;
import com.sun.net.httpserver.HttpExchange;
import com.sun.net.httpserver.HttpServer;
import java.io.IOException;
import java.net.InetSocketAddress;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse.BodyHandlers;
import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.util.*;
import java.util.concurrent.*;
import javax.crypto.Mac;
import javax.crypto.spec.SecretKeySpec;

public class Receiver {
    record Payment(String id, String status, long version) {}
    record Data(Payment payment) {}
    record Event(String type, Long sequence, Long epoch, Data data) {}
    /** It came as a webhook, or stands in the event log. */
    record Received(String id, Event body) {}
    record Page(List<Received> data, @SerializedName("scanned_through") long scannedThrough) {}

    static final Map<String, String> ENV = System.getenv();
    static final Gson JSON = new Gson();
    static final Webhook WEBHOOK = new Webhook(ENV.get("WIRED_WEBHOOK_SECRET"));
    static final long GAP_MS = (long) (1000 * Double.parseDouble(ENV.getOrDefault("GAP_SECONDS", "60")));
    static final BlockingQueue<Received> INBOX = new LinkedBlockingQueue<>(); // Make it a table of your database.

    static void receive(HttpExchange exchange) throws IOException {
        int status = 204; // At once; the work is done later.
        // As it came, not JSON written anew.
        String body = new String(exchange.getRequestBody().readAllBytes(), StandardCharsets.UTF_8);
        try {
            Map<String, List<String>> headers = new HashMap<>();
            exchange.getRequestHeaders().forEach((name, values) -> headers.put(name.toLowerCase(Locale.ROOT), values));
            WEBHOOK.verify(body, headers);
            INBOX.add(new Received(headers.get("webhook-id").get(0), JSON.fromJson(body, Event.class)));
        } catch (Exception problem) {
            status = 400;
        }
        exchange.sendResponseHeaders(status, -1);
        exchange.close();
    }

    // Keep all of this in your database, changed in one transaction with what you do about an event.
    static final Set<String> seen = new HashSet<>();
    static final Map<String, Payment> payments = new HashMap<>();
    static long epoch = 0;
    static long after = 0; // You have every event up to `after`, and those in `ahead`.
    static final TreeSet<Long> ahead = new TreeSet<>();
    static long fetchAt = Long.MAX_VALUE;

    static void handle(Received received) {
        Event event = received.body;
        if (!seen.add(received.id)) {
            System.out.println("duplicate " + received.id);
            return;
        }
        if (event.sequence != null) { // Notices have none.
            if (event.epoch > epoch) { // The first event of all, or numbers begin again after a restore.
                epoch = event.epoch;
                after = event.sequence - 1;
                ahead.clear();
            }
            if (event.epoch == epoch) {
                ahead.add(event.sequence);
                advance(after);
            }
        }
        Payment payment = event.data.payment;
        if (payment == null) {
            System.out.println(event.type + " " + received.id);
        } else if (payments.containsKey(payment.id) && payments.get(payment.id).version >= payment.version) {
            System.out.println("stale " + payment.id + " " + payment.version);
        } else {
            payments.put(payment.id, payment);
            System.out.println(event.type + " " + payment.id + " " + payment.status + " " + payment.version);
        }
    }

    static void advance(long to) {
        after = Math.max(after, to);
        while (ahead.contains(after + 1)) after++;
        ahead.headSet(after, true).clear();
        fetchAt = ahead.isEmpty() ? Long.MAX_VALUE : Math.min(fetchAt, System.currentTimeMillis() + GAP_MS);
    }

    static void fillGap() throws Exception {
        long before = after;
        fetchAt = System.currentTimeMillis() + GAP_MS; // When this fails, again then.
        Page page = JSON.fromJson(get("?after=" + after), Page.class);
        page.data.forEach(Receiver::handle);
        advance(page.scannedThrough); // Also past events of types that this endpoint does not get.
        if (!ahead.isEmpty() && after > before) fetchAt = 0;
    }

    /** Signed as RFC 9421 says. */
    static String get(String query) throws Exception {
        URI uri = URI.create(ENV.get("WIRED_URL") + "/v1/events" + query);
        String params = "(\"@method\" \"@authority\" \"@path\" \"@query\");created=" + System.currentTimeMillis() / 1000
            + ";keyid=\"" + ENV.get("WIRED_KEY_ID") + "\"";
        String base = "\"@method\": GET\n\"@authority\": " + uri.getAuthority() + "\n\"@path\": /v1/events\n\"@query\": " + query
            + "\n\"@signature-params\": " + params;
        Mac mac = Mac.getInstance("HmacSHA256");
        mac.init(new SecretKeySpec(Base64.getDecoder().decode(ENV.get("WIRED_KEY_SECRET")), "HmacSHA256"));
        String signature = Base64.getEncoder().encodeToString(mac.doFinal(base.getBytes(StandardCharsets.UTF_8)));
        HttpRequest request = HttpRequest.newBuilder(uri).version(HttpClient.Version.HTTP_1_1).timeout(Duration.ofSeconds(10))
            .header("signature-input", "sig=" + params).header("signature", "sig=:" + signature + ":").build();
        var answer = HttpClient.newHttpClient().send(request, BodyHandlers.ofString());
        if (answer.statusCode() != 200) throw new IOException(answer.statusCode() + " " + answer.body());
        return answer.body();
    }

    public static void main(String[] arguments) throws Exception {
        String[] listen = ENV.get("WIRED_WEBHOOK_LISTEN").split(":");
        HttpServer server = HttpServer.create(new InetSocketAddress(listen[0], Integer.parseInt(listen[1])), 0);
        server.createContext("/", Receiver::receive);
        server.setExecutor(Executors.newFixedThreadPool(8));
        server.start();
        while (true) {
            Received received = INBOX.poll(100, TimeUnit.MILLISECONDS);
            if (received != null) handle(received);
            if (System.currentTimeMillis() >= fetchAt) {
                try {
                    fillGap();
                } catch (Exception problem) {
                    System.out.println("the event log: " + problem.getMessage());
                }
            }
        }
    }
}
