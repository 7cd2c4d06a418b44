"""How schemathesis speaks to the bank: partners' requests are signed, everybody else's carry a token, and ids of things that
exist take the place of some that were drawn, so that requests come further than to "there is no such thing".

Reads WIRED_FUZZ, which is JSON: {"url"} and either {"key_id", "key_secret"} or {"admin_link", "mails"}; {"known": [ids]}.
"""

import base64
import email
import hashlib
import hmac
import itertools
import json
import os
import pathlib
import re
import threading
import time
import uuid
import zlib

import requests
import schemathesis

SETUP = json.loads(os.environ["WIRED_FUZZ"])
URL = SETUP["url"]
PASSWORD = "nine patient herons"
ID = re.compile(r"\b([a-z]+)_[0-9a-hjkmnp-tv-z]{26}\b")

session = requests.Session()
session.trust_env = False
DOCUMENT = session.get(f"{URL}/v1/openapi.json", timeout=10).json()


class Signed(requests.auth.AuthBase):
    """RFC 9421 over the request as it will be sent. What is for test partners alone is signed by one."""

    def __init__(self):
        self.own = SETUP["key_id"], base64.b64decode(SETUP["key_secret"])
        application = DOCUMENT["paths"]["/v1/partner-applications"]["post"]["requestBody"]["content"]
        test = call("/v1/partner-applications", application["application/json"]["example"], status=(201,))
        self.test = test["key_id"], base64.b64decode(test["key_secret"])

    def __call__(self, request):
        headers = request.headers
        if "Prefer" in headers:
            # Whoever waits for what never happens would wait for ten seconds.
            headers["Prefer"] = re.sub("wait=[0-9]+", "wait=1", text(headers["Prefer"]))
        if request.method in ("POST", "PATCH", "DELETE"):
            # One in eight keeps what was drawn for it.
            if "Idempotency-Key" not in headers or zlib.crc32(repr(headers["Idempotency-Key"]).encode()) % 8:
                headers["Idempotency-Key"] = f"fuzz-{uuid.uuid4()}"
        components = ["idempotency-key"] if "Idempotency-Key" in headers else []
        body = request.body.encode() if isinstance(request.body, str) else request.body
        if body:
            headers["Content-Digest"] = f"sha-256=:{base64.b64encode(hashlib.sha256(body).digest()).decode()}:"
            headers.setdefault("Content-Type", "application/json")
            components += ["content-digest", "content-type"]
        if "If-Match" in headers and request.method in ("PATCH", "DELETE"):
            components.append("if-match")
        target = request.url.split("://", 1)[1].split("#", 1)[0]
        authority, _, path = target.partition("/")
        path, _, query = path.partition("?")
        key_id, key = self.test if path.startswith("v1/sandbox/mandates") else self.own
        values = {"@method": request.method, "@authority": authority, "@path": f"/{path}", "@query": f"?{query}"}
        values |= {name: text(headers[name]).strip() for name in components}
        names = " ".join(f'"{name}"' for name in values)
        parameters = f'({names});created={int(time.time())};keyid="{key_id}"'
        base = "".join(f'"{name}": {value}\n' for name, value in values.items())
        base += f'"@signature-params": {parameters}'
        mac = hmac.digest(key, base.encode("latin-1", "replace"), "sha256")
        headers["Signature-Input"] = f"sig={parameters}"
        headers["Signature"] = f"sig=:{base64.b64encode(mac).decode()}:"
        return request


def text(value):
    return value.decode("latin-1") if isinstance(value, bytes) else value


class Bearer(requests.auth.AuthBase):
    """An admin and a customer in turn. What ends a session, a second factor or a user is done to spare ones alone."""

    def __init__(self):
        self.turns = itertools.count()
        self.tokens = [log_in_admin()] * 3 + [log_in_customer("anna")]
        self.spare = [log_in_customer(f"spare{number}") for number in range(4)]

    def __call__(self, request):
        path = request.url.split("://", 1)[1].partition("/")[2].split("?")[0]
        ends = path.startswith(("v1/auth/logout", "v1/me/password", "v1/me/sessions")) or (
            request.method == "DELETE" and path in ("v1/me", "v1/me/second-factor")
        )
        tokens = self.spare if ends else self.tokens
        request.headers["Authorization"] = f"Bearer {tokens[next(self.turns) % len(tokens)]}"
        return request


def call(path, body, token=None, status=(200, 202, 204)):
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    answer = session.post(URL + path, json=body, headers=headers, timeout=30)
    assert answer.status_code in status, f"{path}: {answer.status_code} {answer.text}"
    return answer.json() if answer.content else None


def code(secret):
    """What an authenticator shows (RFC 6238)."""
    digest = hmac.digest(base64.b32decode(secret), int(time.time() // 30).to_bytes(8, "big"), "sha1")
    offset = digest[-1] & 15
    number = int.from_bytes(digest[offset : offset + 4], "big") & 0x7FFFFFFF
    return f"{number % 1_000_000:06}"


def log_in_admin():
    link = SETUP["admin_link"]
    call("/v1/auth/passwords", {"token": link.partition("token=")[2].strip(), "password": PASSWORD})
    credentials = {"email": SETUP["admin_email"], "password": PASSWORD}
    token = call("/v1/auth/login", credentials)["access_token"]
    secret = call("/v1/me/second-factor", None, token)["secret"]
    codes = call("/v1/me/second-factor/confirmation", {"code": code(secret)}, token)["recovery_codes"]
    return call("/v1/auth/login", credentials | {"code": codes[0]})["access_token"]


def log_in_customer(name):
    address = f"{name}-{uuid.uuid4()}@example.com"
    call("/v1/auth/registrations", {"email": address, "name": name})
    deadline = time.monotonic() + 30
    while (token := mailed_token(address)) is None:
        assert time.monotonic() < deadline, f"no mail to {address}"
        time.sleep(0.05)
    call("/v1/auth/passwords", {"token": token, "password": PASSWORD})
    return call("/v1/auth/login", {"email": address, "password": PASSWORD})["access_token"]


def mailed_token(address):
    for path in pathlib.Path(SETUP["mails"]).glob("*.eml"):
        mail = email.message_from_bytes(path.read_bytes())
        if mail["To"] == address and (found := re.search(r"token=(\S+)", mail.get_payload(decode=True).decode())):
            return found[1]
    return None


def prefixes():
    """Which parameters and fields hold ids, by their examples: (path or None, name) → prefix."""
    found = {}
    for path, item in DOCUMENT["paths"].items():
        for operation in item.values():
            for parameter in operation.get("parameters", []):
                example = parameter.get("example") or parameter.get("schema", {}).get("example")
                if isinstance(example, str) and (match := ID.fullmatch(example)):
                    found[path, parameter["name"]] = match[1]
    for schema in DOCUMENT["components"]["schemas"].values():
        for name, field in schema.get("properties", {}).items():
            if isinstance(field.get("example"), str) and (match := ID.fullmatch(field["example"])):
                found[None, name] = match[1]
    return found


PREFIXES = prefixes()
known = {}
lock = threading.Lock()


def learn(answer):
    with lock:
        for match in ID.finditer(answer):
            ids = known.setdefault(match[1], [])
            if match[0] not in ids and len(ids) < 200:
                ids.append(match[0])


learn(" ".join(SETUP.get("known", [])))


def with_known(path, values):
    """Replaces three of four ids by such that exist; which ones follows from the values, so that runs can be repeated."""
    if isinstance(values, list):
        return [with_known(path, value) for value in values]
    if not isinstance(values, dict):
        return values
    replaced = {}
    for name, value in values.items():
        drawn = zlib.crc32(repr((name, value)).encode("utf-8", "replace"))
        ids = known.get(PREFIXES.get((path, name)) or PREFIXES.get((None, name)))
        replaced[name] = ids[drawn % len(ids)] if ids and drawn % 4 else with_known(None, value)
    return replaced


@schemathesis.hook
def map_path_parameters(context, path_parameters):
    return with_known(context.operation.path, path_parameters)


@schemathesis.hook
def map_query(context, query):
    return with_known(context.operation.path, query)


@schemathesis.hook
def map_body(context, body):
    return with_known(None, body)


@schemathesis.hook
def after_call(context, case, response):
    if response.status_code < 300:
        learn(response.text)


schemathesis.auth.set_from_requests(Signed() if "key_id" in SETUP else Bearer())
