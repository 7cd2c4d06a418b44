// Verifies webhooks with npm standardwebhooks.
//
// Reads {"secret", "webhooks": [{"headers", "body"}]} from standard input; prints a list of {"library", "verified",
// "refused", "error"} with how many it took for genuine, and how many it refused once a byte was changed.

import { readFileSync } from "node:fs";
import { createRequire } from "node:module";

// Where the libraries are; an import would look beside this file.
const { Webhook } = createRequire(`${process.env.INTEROP_DIR}/`)("standardwebhooks");
const setup = JSON.parse(readFileSync(0));
const webhook = new Webhook(setup.secret);

let error = null;
const count = (change) =>
    setup.webhooks.filter(({ headers, body }) => {
        try {
            webhook.verify(change(body), headers);
            return true;
        } catch (problem) {
            error ??= String(problem);
            return false;
        }
    }).length;

const verified = count((body) => body);
const problem = error;
const refused = setup.webhooks.length - count((body) => body.replace("payment", "Payment"));
process.stdout.write(JSON.stringify([{ library: "standardwebhooks", verified, refused, error: problem }]));
