"""Signs payments with PyPI http-message-signatures, an implementation that knows nothing of the bank's, and sends them.

Reads {"url", "key_id", "key_secret", "mandate"} from standard input; prints a list of {"case", "status", "code", "detail"},
one for each request. What each must be answered stands in the test that starts this.
"""

import base64
import datetime
import hashlib
import json
import sys
import uuid

import requests
from http_message_signatures import HTTPMessageSigner, HTTPSignatureKeyResolver, algorithms

COMPONENTS = ("@method", "@authority", "@path", "@query", "content-digest", "content-type", "idempotency-key")
setup = json.load(sys.stdin)


class Key(HTTPSignatureKeyResolver):
    def __init__(self, secret):
        self.secret = base64.b64decode(secret)

    def resolve_private_key(self, key_id):
        return self.secret

    def resolve_public_key(self, key_id):
        return self.secret


def digest(body):
    return "sha-256=:" + base64.b64encode(hashlib.sha256(body).digest()).decode() + ":"


def payment(amount="1.00"):
    return json.dumps({"mandate": setup["mandate"], "amount": amount, "currency": "EUR"}).encode()


def prepare(method="POST", path="/v1/payments", body=None, url=None):
    headers = {"Accept": "application/json"}
    if method != "GET":
        body = payment() if body is None else body
        headers |= {
            "Content-Type": "application/json",
            "Content-Digest": digest(body),
            "Idempotency-Key": f"py-{uuid.uuid4()}",
        }
    return requests.Request(method, (url or setup["url"]) + path, headers=headers, data=body).prepare()


def sign(request, secret=None, key_id=None, components=None, age_s=0, **options):
    signer = HTTPMessageSigner(
        signature_algorithm=algorithms.HMAC_SHA256, key_resolver=Key(secret or setup["key_secret"])
    )
    if components is None:
        components = COMPONENTS if request.method != "GET" else COMPONENTS[:4]
    created = datetime.datetime.now() - datetime.timedelta(seconds=age_s)
    # Without this the library takes a Content-Digest that is there already for a mistake.
    options["use_existing_digest"] = "Content-Digest" in request.headers
    signer.sign(
        request, key_id=key_id or setup["key_id"], covered_component_ids=components, created=created, **options
    )
    return request


def moved(signed, **target):
    """The signature of one request on another."""
    request = prepare(**target)
    for name in ("Signature", "Signature-Input", "Idempotency-Key", "Content-Digest", "Content-Type"):
        if name in signed.headers:
            request.headers[name] = signed.headers[name]
    return request


def with_header(request, name, value):
    request.headers[name] = value
    return request


def with_body(request, body):
    request.body = body
    request.headers["Content-Length"] = str(len(body))
    return request


def without(component):
    return sign(prepare(), components=[name for name in COMPONENTS if name != component])


def doubled():
    # The library refuses to cover a component twice, so it is written in afterwards.
    request = sign(prepare())
    value = request.headers["Signature-Input"]
    return with_header(request, "Signature-Input", value.replace('"@path"', '"@path" "@path"'))


def flipped():
    request = sign(prepare())
    label, value = request.headers["Signature"].split("=:", 1)
    mac = bytearray(base64.b64decode(value.rstrip(":")))
    mac[0] ^= 1
    return with_header(request, "Signature", f"{label}=:{base64.b64encode(mac).decode()}:")


other = payment("2.00")
CASES = {
    "accepted": lambda: sign(prepare()),
    "accepted with another label": lambda: sign(prepare(), label="mine"),
    "accepted in another order": lambda: sign(prepare(), components=COMPONENTS[::-1]),
    "accepted without alg": lambda: sign(prepare(), include_alg=False),
    "accepted with a nonce": lambda: sign(prepare(), nonce="n-1"),
    "accepted without a body": lambda: sign(prepare("GET", "/v1/balances")),
    "another method": lambda: moved(sign(prepare("PUT"))),
    "another authority": lambda: moved(sign(prepare(url="http://bank.example"))),
    "another path": lambda: moved(sign(prepare(path="/v1/payment"))),
    "another query": lambda: moved(sign(prepare()), path="/v1/payments?a=b"),
    "another body with its digest": lambda: with_header(with_body(sign(prepare()), other), "Content-Digest", digest(other)),
    "another body": lambda: with_body(sign(prepare()), other),
    "another content type": lambda: with_header(sign(prepare()), "Content-Type", "application/json; charset=utf-8"),
    "another idempotency key": lambda: with_header(sign(prepare()), "Idempotency-Key", "py-other"),
    "a flipped bit": flipped,
    "a wrong digest, signed": lambda: sign(with_header(prepare(), "Content-Digest", digest(other))),
    "stale": lambda: sign(prepare(), age_s=600),
    "from the future": lambda: sign(prepare(), age_s=-600),
    "doubled component": doubled,
    "unknown key": lambda: sign(prepare(), key_id="key_01h455vb4pex5vsknk084sn02q"),
    "another secret": lambda: sign(prepare(), secret=base64.b64encode(bytes(32)).decode()),
    "unsigned": prepare,
} | {f"without {component}": lambda component=component: without(component) for component in COMPONENTS}

session = requests.Session()
session.trust_env = False
answers = []
for case, make in CASES.items():
    answer = session.send(make(), timeout=30)
    body = answer.json()
    answers.append(
        {"case": case, "status": answer.status_code, "code": body.get("code"), "detail": body.get("detail")}
    )
json.dump(answers, sys.stdout)
