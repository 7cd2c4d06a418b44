// Receives webhooks: verifies, drops duplicates and stale news, fills gaps. Needs `npm install standardwebhooks`.

import { createHmac } from "node:crypto";
import { createServer } from "node:http";
import { Webhook } from "standardwebhooks";

const { WIRED_WEBHOOK_SECRET, WIRED_WEBHOOK_LISTEN, WIRED_URL, WIRED_KEY_ID, WIRED_KEY_SECRET } = process.env;
const GAP_MS = Number(process.env.GAP_SECONDS ?? 60) * 1000;
const webhook = new Webhook(WIRED_WEBHOOK_SECRET);
const inbox = []; // Make it a table of your database.

async function receive(request, response) {
    try {
        const chunks = [];
        for await (const chunk of request) chunks.push(chunk);
        const body = Buffer.concat(chunks).toString(); // As it came, not JSON written anew.
        webhook.verify(body, request.headers);
        inbox.push([request.headers["webhook-id"], JSON.parse(body)]);
        response.writeHead(204).end(); // At once; the work is done later.
    } catch {
        response.writeHead(400).end();
    }
}

// Keep all of this in your database, changed in one transaction with what you do about an event.
const seen = new Set();
const payments = new Map();
let epoch = 0;
let after = 0; // You have every event up to `after`, and those in `ahead`.
let ahead = new Set();
let fetchAt = Infinity;

function handle(id, event) {
    if (seen.has(id)) return console.log("duplicate", id);
    seen.add(id);
    if (event.epoch > epoch) {
        // The first event of all, or numbers begin again after a restore.
        [epoch, after, ahead] = [event.epoch, event.sequence - 1, new Set()];
    }
    if (event.epoch === epoch) {
        // Notices have none.
        ahead.add(event.sequence);
        advance(after);
    }
    const payment = event.data.payment;
    if (!payment) return console.log(event.type, id);
    if (payments.get(payment.id)?.version >= payment.version) return console.log("stale", payment.id, payment.version);
    payments.set(payment.id, payment);
    console.log(event.type, payment.id, payment.status, payment.version);
}

function advance(to) {
    after = Math.max(after, to);
    while (ahead.has(after + 1)) after += 1;
    ahead = new Set([...ahead].filter((sequence) => sequence > after));
    fetchAt = ahead.size > 0 ? Math.min(fetchAt, Date.now() + GAP_MS) : Infinity;
}

async function fillGap() {
    const before = after;
    fetchAt = Date.now() + GAP_MS; // When this fails, again then.
    const page = await get(`?after=${after}`);
    for (const { id, body } of page.data) handle(id, body);
    advance(page.scanned_through); // Also past events of types that this endpoint does not get.
    if (ahead.size > 0 && after > before) fetchAt = Date.now();
}

// Signed as RFC 9421 says.
async function get(query) {
    const url = new URL(`/v1/events${query}`, WIRED_URL);
    const created = Math.floor(Date.now() / 1000);
    const params = `("@method" "@authority" "@path" "@query");created=${created};keyid="${WIRED_KEY_ID}"`;
    const base = `"@method": GET\n"@authority": ${url.host}\n"@path": ${url.pathname}\n"@query": ${query}\n"@signature-params": ${params}`;
    const mac = createHmac("sha256", Buffer.from(WIRED_KEY_SECRET, "base64")).update(base).digest("base64");
    const headers = { "signature-input": `sig=${params}`, signature: `sig=:${mac}:` };
    const answer = await fetch(url, { headers, signal: AbortSignal.timeout(10_000) });
    if (!answer.ok) throw new Error(`${answer.status} ${await answer.text()}`);
    return answer.json();
}

const [host, port] = WIRED_WEBHOOK_LISTEN.split(":");
createServer(receive).listen(Number(port), host);
for (;;) {
    while (inbox.length > 0) handle(...inbox.shift());
    if (Date.now() >= fetchAt) await fillGap().catch((problem) => console.log("the event log:", problem.message));
    await new Promise((resolve) => setTimeout(resolve, 100));
}
