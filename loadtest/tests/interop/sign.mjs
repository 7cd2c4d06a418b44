// Signs payments with npm http-message-signatures, an implementation that knows nothing of the bank's, and sends them.
//
// Reads {"url", "key_id", "key_secret", "mandate"} from standard input; prints a list of {"case", "status", "code",
// "detail"}, one for each request. What each must be answered stands in the test that starts this.

import { createHash, randomUUID } from "node:crypto";
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";

// Where the libraries are; an import would look beside this file.
const { createSigner, httpbis } = createRequire(`${process.env.INTEROP_DIR}/`)("http-message-signatures");

const COMPONENTS = ["@method", "@authority", "@path", "@query", "content-digest", "content-type", "idempotency-key"];
const setup = JSON.parse(readFileSync(0));

const digest = (body) => `sha-256=:${createHash("sha256").update(body).digest("base64")}:`;
const payment = (amount = "1.00") => JSON.stringify({ mandate: setup.mandate, amount, currency: "EUR" });

function prepare({ method = "POST", path = "/v1/payments", url = setup.url, body = payment() } = {}) {
    const headers = { Accept: "application/json" };
    if (method === "GET") return { method, url: url + path, headers };
    headers["Content-Type"] = "application/json";
    headers["Content-Digest"] = digest(body);
    headers["Idempotency-Key"] = `node-${randomUUID()}`;
    return { method, url: url + path, headers, body };
}

async function sign(request, { secret, keyid, fields, age_s = 0, ...options } = {}) {
    const key = createSigner(Buffer.from(secret ?? setup.key_secret, "base64"), "hmac-sha256", keyid ?? setup.key_id);
    // The library covers nothing unless told what to.
    fields ??= request.method === "GET" ? COMPONENTS.slice(0, 4) : COMPONENTS;
    const created = new Date(Date.now() - age_s * 1000);
    const params = ["created", "keyid"];
    return httpbis.signMessage({ key, fields, params, paramValues: { created }, ...options }, request);
}

// The signature of one request on another.
const moved = (signed, target) => ({ ...prepare(target), headers: signed.headers });
const withHeader = (request, name, value) => ({ ...request, headers: { ...request.headers, [name]: value } });

async function doubled() {
    const request = await sign(prepare());
    const value = request.headers["Signature-Input"].replace('"@path"', '"@path" "@path"');
    return withHeader(request, "Signature-Input", value);
}

async function flipped() {
    const request = await sign(prepare());
    const [label, value] = request.headers.Signature.split("=:");
    const mac = Buffer.from(value.slice(0, -1), "base64");
    mac[0] ^= 1;
    return withHeader(request, "Signature", `${label}=:${mac.toString("base64")}:`);
}

const other = payment("2.00");
const cases = {
    accepted: () => sign(prepare()),
    "accepted with another label": () => sign(prepare(), { name: "mine" }),
    "accepted in another order": () => sign(prepare(), { fields: [...COMPONENTS].reverse() }),
    "accepted with alg": () => sign(prepare(), { params: ["keyid", "alg", "created"] }),
    "accepted with expires": () => sign(prepare(), { params: ["created", "expires", "keyid"] }),
    "accepted without a body": () => sign(prepare({ method: "GET", path: "/v1/balances" })),
    "another method": async () => moved(await sign(prepare({ method: "PUT" }))),
    "another authority": async () => moved(await sign(prepare({ url: "http://bank.example" }))),
    "another path": async () => moved(await sign(prepare({ path: "/v1/payment" }))),
    "another query": async () => moved(await sign(prepare()), { path: "/v1/payments?a=b" }),
    "another body with its digest": async () =>
        withHeader({ ...(await sign(prepare())), body: other }, "Content-Digest", digest(other)),
    "another body": async () => ({ ...(await sign(prepare())), body: other }),
    "another content type": async () =>
        withHeader(await sign(prepare()), "Content-Type", "application/json; charset=utf-8"),
    "another idempotency key": async () => withHeader(await sign(prepare()), "Idempotency-Key", "node-other"),
    "a flipped bit": flipped,
    "a wrong digest, signed": () => sign(withHeader(prepare(), "Content-Digest", digest(other))),
    stale: () => sign(prepare(), { age_s: 600 }),
    "from the future": () => sign(prepare(), { age_s: -600 }),
    "doubled component": doubled,
    "unknown key": () => sign(prepare(), { keyid: "key_01h455vb4pex5vsknk084sn02q" }),
    "another secret": () => sign(prepare(), { secret: Buffer.alloc(32).toString("base64") }),
    unsigned: prepare,
};
for (const component of COMPONENTS) {
    const fields = COMPONENTS.filter((name) => name !== component);
    cases[`without ${component}`] = () => sign(prepare(), { fields });
}

const answers = [];
for (const [name, make] of Object.entries(cases)) {
    const { url, ...request } = await make();
    const answer = await fetch(url, { ...request, signal: AbortSignal.timeout(30_000) });
    const { code, detail } = await answer.json();
    answers.push({ case: name, status: answer.status, code, detail });
}
process.stdout.write(JSON.stringify(answers));
