"""Verifies webhooks with PyPI standardwebhooks and svix.

Reads {"secret", "webhooks": [{"headers", "body"}]} from standard input; prints a list of {"library", "verified", "refused",
"error"} with how many of them each library took for genuine, and how many it refused once a byte was changed.
"""

import json
import sys

import standardwebhooks
import svix

setup = json.load(sys.stdin)


def count(webhook, change):
    verified, error = 0, None
    for received in setup["webhooks"]:
        try:
            webhook.verify(change(received["body"]), dict(received["headers"]))
            verified += 1
        except Exception as problem:
            error = f"{type(problem).__name__}: {problem}"
    return verified, error


answers = []
for library in (standardwebhooks, svix):
    webhook = library.Webhook(setup["secret"])
    verified, error = count(webhook, lambda body: body)
    forged, _ = count(webhook, lambda body: body.replace("payment", "Payment", 1))
    refused = len(setup["webhooks"]) - forged
    answers.append({"library": library.__name__, "verified": verified, "refused": refused, "error": error})
json.dump(answers, sys.stdout)
