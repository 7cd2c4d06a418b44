"""Receives webhooks: verifies, drops duplicates and stale news, fills gaps. Needs `pip install standardwebhooks`."""

import base64
import hmac
import json
import os
import queue
import threading
import time
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from standardwebhooks.webhooks import Webhook

WEBHOOK = Webhook(os.environ["WIRED_WEBHOOK_SECRET"])
HOST, PORT = os.environ["WIRED_WEBHOOK_LISTEN"].rsplit(":", 1)
GAP_SECONDS = float(os.environ.get("GAP_SECONDS", 60))
NEVER = float("inf")
inbox = queue.Queue()  # Make it a table of your database.


class Receiver(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        body = self.rfile.read(int(self.headers["content-length"]))
        try:
            WEBHOOK.verify(body, dict(self.headers))  # The bytes as they came, not JSON written anew.
            inbox.put((self.headers["webhook-id"], json.loads(body)))
            self.send_response(204)  # At once; the work is done later.
        except Exception:  # ValueError, too, for what is no signature at all.
            self.send_response(400)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *_):
        pass


# Keep all of this in your database, changed in one transaction with what you do about an event.
seen, payments = set(), {}
epoch, after, ahead = 0, 0, set()  # You have every event up to `after`, and those in `ahead`.
fetch_at = NEVER


def handle(id, event):
    if id in seen:
        return print("duplicate", id, flush=True)
    seen.add(id)
    if event.get("epoch", 0) > epoch:
        start(event)
    if event.get("epoch") == epoch:  # Notices have none.
        ahead.add(event["sequence"])
        advance(after)
    payment = event["data"].get("payment")
    if payment is None:
        return print(event["type"], id, flush=True)
    if payment["id"] in payments and payments[payment["id"]]["version"] >= payment["version"]:
        return print("stale", payment["id"], payment["version"], flush=True)
    payments[payment["id"]] = payment
    print(event["type"], payment["id"], payment["status"], payment["version"], flush=True)


def start(event):  # The first event of all, or numbers begin again after a restore.
    global epoch, after, ahead
    epoch, after, ahead = event["epoch"], event["sequence"] - 1, set()


def advance(to):
    global after, ahead, fetch_at
    after = max(after, to)
    while after + 1 in ahead:
        after += 1
    ahead = {sequence for sequence in ahead if sequence > after}
    fetch_at = min(fetch_at, time.monotonic() + GAP_SECONDS) if ahead else NEVER


def fill_gap():
    global fetch_at
    fetch_at, before = time.monotonic() + GAP_SECONDS, after  # When this fails, again then.
    page = get(f"?after={after}")
    for event in page["data"]:
        handle(event["id"], event["body"])
    advance(page["scanned_through"])  # Also past events of types that this endpoint does not get.
    if ahead and after > before:
        fetch_at = time.monotonic()


def get(query):  # Signed as RFC 9421 says.
    url, key_id, secret = (os.environ[name] for name in ("WIRED_URL", "WIRED_KEY_ID", "WIRED_KEY_SECRET"))
    host = url.split("//")[1]
    params = f'("@method" "@authority" "@path" "@query");created={int(time.time())};keyid="{key_id}"'
    base = f'"@method": GET\n"@authority": {host}\n"@path": /v1/events\n"@query": {query}\n"@signature-params": {params}'
    mac = base64.b64encode(hmac.digest(base64.b64decode(secret), base.encode(), "sha256")).decode()
    headers = {"signature-input": f"sig={params}", "signature": f"sig=:{mac}:"}
    request = urllib.request.Request(f"{url}/v1/events{query}", headers=headers)
    return json.load(urllib.request.urlopen(request, timeout=10))


server = ThreadingHTTPServer((HOST, int(PORT)), Receiver)
threading.Thread(target=server.serve_forever, daemon=True).start()
while True:
    try:
        handle(*inbox.get(timeout=0.1))
    except queue.Empty:
        pass
    if time.monotonic() >= fetch_at:
        try:
            fill_gap()
        except OSError as problem:
            print("the event log:", problem, flush=True)
