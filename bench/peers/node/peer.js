// The flow as one would write it for Node: no dedupe, no retries. Settings come as PEER_* in the environment.
//
// Tuned: prefetch = work in flight, kept-alive connections to everything, node:http instead of the slower fetch.

import { createHash } from "node:crypto";
import { createWriteStream } from "node:fs";
import http from "node:http";

import { PutObjectCommand, S3Client } from "@aws-sdk/client-s3";
import amqp from "amqplib";
import pg from "pg";

const setting = (name) => process.env[`PEER_${name}`];
const inFlight = Number(setting("IN_FLIGHT"));
const [source, bucket, input, output] = ["SOURCE", "BUCKET", "INPUT", "OUTPUT"].map(setting);
const confirmed = setting("CONFIRMED") ? createWriteStream(setting("CONFIRMED"), { flags: "a" }) : undefined;

const agent = new http.Agent({ keepAlive: true, maxSockets: inFlight });
const request = (url, { body, ...options } = {}) =>
  new Promise((resolve, reject) => {
    const asked = http.request(url, { agent, ...options }, (answer) => {
      const chunks = [];
      answer.on("data", (chunk) => chunks.push(chunk));
      answer.on("error", reject);
      answer.on("end", () =>
        answer.statusCode === 200 ? resolve(Buffer.concat(chunks)) : reject(new Error(`status ${answer.statusCode}`)),
      );
    });
    asked.on("error", reject).end(body);
  });

const token = JSON.parse(
  await request(`${source}/authentication/v1/token/access-key`, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify({ accessKeyId: setting("KEY_ID"), accessKeySecret: setting("KEY_SECRET") }),
  }),
).access_token;
const headers = { authorization: `Bearer ${token}`, accept: "application/json" };

const database = new pg.Pool({ connectionString: setting("POSTGRES"), max: 16 });
const s3 = new S3Client({
  region: "us-east-1",
  endpoint: setting("S3"),
  forcePathStyle: true,
  credentials: { accessKeyId: setting("S3_KEY"), secretAccessKey: setting("S3_SECRET") },
  requestChecksumCalculation: "WHEN_REQUIRED",
  responseChecksumValidation: "WHEN_REQUIRED",
  requestHandler: { httpAgent: { keepAlive: true, maxSockets: inFlight } },
});
const connection = await amqp.connect(setting("AMQP"));
const consumer = await connection.createChannel();
const publisher = await connection.createConfirmChannel();
const publish = (id) =>
  new Promise((resolve, reject) => {
    const confirm = (error) => (error ? reject(error) : resolve());
    publisher.sendToQueue(output, Buffer.from(id), { persistent: true }, confirm);
  });

async function conversation(id) {
  const metadata = await request(`${source}/inContactAPI/services/v33.0/contacts/${id}`, { headers });
  const playback = JSON.parse(
    await request(
      `${source}/media-playback/v1/contacts?acd-call-id=${id}&media-type=voice-only` +
        "&exclude-waveforms=true&exclude-qm-categories=true&isDownload=false",
      { headers },
    ),
  );
  const recording = await request(playback.interactions[0].data.fileToPlayUrl);
  const sha256 = createHash("sha256").update(recording).digest("hex");
  await database.query({
    name: "insert",
    text:
      "INSERT INTO conversations (external_id, metadata, object_key, sha256, size_bytes)" +
      " VALUES ($1, $2, $3, $4, $5)",
    values: [id, metadata.toString(), `${id}/0.mp4`, sha256, recording.length],
  });
  await s3.send(
    new PutObjectCommand({ Bucket: bucket, Key: `${id}/0.mp4`, Body: recording, Metadata: { sha256 } }),
  );
  await publish(id);
  confirmed?.write(`${id} ${Math.round((performance.timeOrigin + performance.now()) * 1000)}\n`);
}

await consumer.prefetch(inFlight);
await consumer.consume(input, async (message) => {
  await conversation(message.content.toString());
  consumer.ack(message);
});
console.log("ready");
