// The quota's work with bottleneck: a reservoir that is filled again once a window, live calls with priority.
// Settings come as PEER_* in the environment. Who was refused comes again after an exponential back-off with jitter.

import http from "node:http";

import Bottleneck from "bottleneck";

const setting = (name) => process.env[`PEER_${name}`];
const [limit, window, workers] = ["LIMIT", "WINDOW", "WORKERS"].map((name) => Number(setting(name)));
// Back-off is in NICE's time; the benchmark's runs faster.
const second = (window / 300) * 1000;
const sleep = (millis) => new Promise((resolve) => setTimeout(resolve, millis));

const limiter = new Bottleneck({
  reservoir: limit,
  reservoirRefreshAmount: limit,
  reservoirRefreshInterval: window * 1000,
  heartbeatInterval: 50,
});
const agent = new http.Agent({ keepAlive: true });
const request = (kind, due) =>
  new Promise((resolve, reject) => {
    const asked = http.get(`${setting("URL")}?class=${kind}&due=${Math.round(due * 1000)}`, { agent }, (answer) => {
      answer.resume();
      answer.on("end", () => resolve(answer.statusCode));
    });
    asked.on("error", reject);
  });

async function conversation(kind, due) {
  const priority = kind === "live" ? 1 : 5;
  for (let delay = second; ; delay = Math.min(delay * 2, 60 * second)) {
    if ((await limiter.schedule({ priority }, request, kind, due)) === 200) return;
    await sleep(delay * (0.5 + Math.random()));
  }
}

async function saturate() {
  for (;;) await conversation("backfill", Date.now());
}

async function arriving(kind, perWindow) {
  for (;;) {
    await sleep((-Math.log(1 - Math.random()) * window * 1000) / perWindow);
    conversation(kind, Date.now());
  }
}

for (let worker = 0; worker < workers; worker++) saturate();
arriving("live", Number(setting("LIVE")));
arriving("reconciliation", Number(setting("RECONCILIATION")));
console.log("{}");
