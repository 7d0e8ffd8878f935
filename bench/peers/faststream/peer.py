"""The flow as one would write it with FastStream: no dedupe, no retries. Settings come as PEER_* in the environment.

Tuned: uvloop, prefetch = work in flight, no access log, no argument validation, pooled connections to everything.
"""

import asyncio
import hashlib
import json
import os
import time

import aiohttp
import asyncpg
import uvloop
from aiobotocore.config import AioConfig
from aiobotocore.session import get_session
from faststream.rabbit import Channel, QueueType, RabbitBroker, RabbitQueue


def setting(name):
    return os.environ["PEER_" + name]


async def main():
    in_flight = int(setting("IN_FLIGHT"))
    source, bucket = setting("SOURCE"), setting("BUCKET")
    confirmed = open(setting("CONFIRMED"), "a", buffering=1) if setting("CONFIRMED") else None

    http = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=in_flight))
    key = {"accessKeyId": setting("KEY_ID"), "accessKeySecret": setting("KEY_SECRET")}
    async with http.post(f"{source}/authentication/v1/token/access-key", json=key) as answer:
        token = (await answer.json())["access_token"]
    api = {"Authorization": f"Bearer {token}", "Accept": "application/json"}
    database = await asyncpg.create_pool(setting("POSTGRES"), min_size=16, max_size=16)
    s3 = await get_session().create_client(
        "s3",
        region_name="us-east-1",
        endpoint_url=setting("S3"),
        aws_access_key_id=setting("S3_KEY"),
        aws_secret_access_key=setting("S3_SECRET"),
        config=AioConfig(
            max_pool_connections=in_flight,
            s3={"addressing_style": "path"},
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
        ),
    ).__aenter__()

    broker = RabbitBroker(setting("AMQP"), logger=None, apply_types=False)
    ids = RabbitQueue(setting("INPUT"), queue_type=QueueType.QUORUM, durable=True)
    analysis = broker.publisher(setting("OUTPUT"), persist=True)

    async def get(url):
        async with http.get(url, headers=api) as answer:
            answer.raise_for_status()
            return await answer.text()

    @broker.subscriber(ids, channel=Channel(prefetch_count=in_flight), no_reply=True)
    async def conversation(id):
        metadata = await get(f"{source}/inContactAPI/services/v33.0/contacts/{id}")
        playback = json.loads(await get(
            f"{source}/media-playback/v1/contacts?acd-call-id={id}&media-type=voice-only"
            "&exclude-waveforms=true&exclude-qm-categories=true&isDownload=false"
        ))
        async with http.get(playback["interactions"][0]["data"]["fileToPlayUrl"]) as answer:
            answer.raise_for_status()
            recording = await answer.read()
        sha256 = hashlib.sha256(recording).hexdigest()
        await database.execute(
            "INSERT INTO conversations (external_id, metadata, object_key, sha256, size_bytes)"
            " VALUES ($1, $2, $3, $4, $5)",
            id, metadata, f"{id}/0.mp4", sha256, len(recording),
        )
        await s3.put_object(Bucket=bucket, Key=f"{id}/0.mp4", Body=recording, Metadata={"sha256": sha256})
        await analysis.publish(id)
        if confirmed:
            confirmed.write(f"{id} {time.time_ns() // 1000}\n")

    await broker.start()
    print("ready", flush=True)
    await asyncio.Event().wait()


uvloop.run(main())
