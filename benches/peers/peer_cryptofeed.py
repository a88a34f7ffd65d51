"""cryptofeed on recorded frames: how many frames and rows a second one process decodes, and writes to PostgreSQL.

    peer_cryptofeed.py decode   RECORDING RUNS
    peer_cryptofeed.py postgres RECORDING RUNS HOST PORT USER DATABASE

RECORDING is <venue>/<name>.jsonl as `prepare` wrote it (peer_cryptofeed.py prepare CORPUS OUT): the frames of a recording that
cryptofeed subscribes to and tapeway decodes. One JSON object a line on stdout, in the form of `tapeway bench --json`.
"""

import asyncio
import json
import logging
import os
import subprocess
import sys
import time
from pathlib import Path
from statistics import median

# Recording in the corpus, and what of it both sides decode.
RECORDINGS = {
    "binance-usdm/hft_btcusdt_20240808": ("@depth", "@bookTicker"),
    "binance-spot/hft_btcusdt_20240808": ("@depth", "@bookTicker"),
    "kraken/cf_v1_20210417": ("book", "trade", "ticker"),
}

# Seconds after which its PostgreSQL backend is taken for dead.
PATIENCE = 300


def prepare(corpus: Path, out: Path) -> None:
    """Writes the frames that both sides decode, with the REST snapshot in its place."""
    for name, kinds in RECORDINGS.items():
        source = corpus / "frames" / f"{name}.jsonl.zst"
        text = subprocess.run(["zstd", "-dcq", source], check=True, capture_output=True, text=True).stdout
        target = out / f"{name}.jsonl"
        target.parent.mkdir(parents=True, exist_ok=True)
        with target.open("w") as file:
            for line in text.splitlines():
                frame = json.loads(line)
                if frame["dir"] == "rest" or (frame["dir"] == "in" and is_wanted(frame["raw"], kinds)):
                    file.write(line + "\n")
        print(target)


def is_wanted(raw: str, kinds: tuple) -> bool:
    message = json.loads(raw)
    if isinstance(message, list):
        return message[-2].startswith(kinds)
    return any(kind in message.get("stream", "") for kind in kinds) or message.get("event") == "subscriptionStatus"


class Recording:
    """A prepared recording in memory."""

    def __init__(self, path: Path):
        self.name = f"{path.parent.name}/{path.stem}"
        self.venue = path.parent.name
        self.frames, self.snapshot, symbols = [], None, set()
        for line in path.open():
            frame = json.loads(line)
            if frame["dir"] == "rest":
                self.snapshot = self.snapshot or frame["raw"]
                continue
            self.frames.append((frame["raw"], frame["ts_recv_ns"] / 1e9))
            message = json.loads(frame["raw"])
            symbol = message[-1] if isinstance(message, list) else message.get("pair") or message["data"]["s"]
            symbols.add(symbol)
        self.symbols = {f"S{number}-X": symbol for number, symbol in enumerate(sorted(symbols))}

    def feed(self, callbacks: dict):
        """cryptofeed's feed with our symbols and snapshot instead of the venue's REST."""
        from cryptofeed.defines import L2_BOOK, TICKER, TRADES
        from cryptofeed.exchanges import Binance, BinanceFutures, Kraken
        from cryptofeed.symbols import Symbols

        kind = {"binance-usdm": BinanceFutures, "binance-spot": Binance, "kraken": Kraken}[self.venue]
        Symbols.set(kind.id, self.symbols, {})
        channels = [L2_BOOK, TICKER, TRADES] if self.venue == "kraken" else [L2_BOOK, TICKER]
        feed = kind(symbols=list(self.symbols), channels=channels, callbacks=callbacks)
        if self.venue != "kraken":
            feed._reset()
        snapshot = self.snapshot

        class Rest:
            async def read(self, *_args, **_kwargs):
                return snapshot

        feed.http_conn = Rest()
        return feed

    async def play(self, callbacks: dict) -> float:
        feed = self.feed(callbacks)
        handle = feed.message_handler
        begin = time.process_time()
        for raw, received in self.frames:
            await handle(raw, None, received)
        return time.process_time() - begin


class Count:
    """Callbacks that count what tapeway makes rows of: changed levels, quotes, trades."""

    def __init__(self):
        self.rows = 0

    async def book(self, book, _received):
        if book.delta:
            self.rows += len(book.delta["bid"]) + len(book.delta["ask"])
        else:
            self.rows += len(book.book.bids) + len(book.book.asks)

    async def one(self, _event, _received):
        self.rows += 1

    def callbacks(self) -> dict:
        from cryptofeed.defines import L2_BOOK, TICKER, TRADES

        return {L2_BOOK: self.book, TICKER: self.one, TRADES: self.one}


def say(recording: Recording, stage: str, metric: str, unit: str, values: list) -> None:
    print(json.dumps({
        "stage": stage, "of": recording.name, "peer": "cryptofeed", "metric": metric,
        "value": round(median(values), 3), "unit": unit, "runs": len(values),
    }), flush=True)


def decode(path: Path, runs: int) -> None:
    recording = Recording(path)
    frames_per_s, rows_per_s = [], []
    for _ in range(runs):
        count = Count()
        seconds = asyncio.run(recording.play(count.callbacks()))
        frames_per_s.append(len(recording.frames) / seconds)
        rows_per_s.append(count.rows / seconds)
    say(recording, "decode", "frames_per_s", "frames/s", frames_per_s)
    say(recording, "decode", "rows_per_s", "rows/s", rows_per_s)


def postgres(path: Path, runs: int, host: str, port: str, user: str, database: str) -> None:
    """Its PostgreSQL backend with its default tables: frames in, until the last row is committed. Wall time."""
    import asyncpg
    from cryptofeed.backends.postgres import BookPostgres, TickerPostgres, TradePostgres
    from cryptofeed.defines import L2_BOOK, TICKER, TRADES

    recording = Recording(path)
    count = Count()
    asyncio.run(recording.play(count.callbacks()))

    async def run() -> float:
        to = {"host": host, "port": int(port), "user": user, "db": database}
        connection = await asyncpg.connect(host=host, port=int(port), user=user, database=database)
        # The columns that it writes unless told otherwise.
        for table, columns in {
            "book": "data json",
            "ticker": "bid numeric, ask numeric",
            "trades": "side varchar(8), amount numeric, price numeric, trade_id varchar(64), order_type varchar(32)",
        }.items():
            await connection.execute(f"DROP TABLE IF EXISTS {table}")
            await connection.execute(
                f"CREATE TABLE {table} (id serial PRIMARY KEY, timestamp timestamp, receipt_timestamp timestamp, "
                f"feed varchar(32), symbol varchar(32), {columns})")
        backends = {L2_BOOK: BookPostgres(**to), TICKER: TickerPostgres(**to), TRADES: TradePostgres(**to)}
        loop = asyncio.get_running_loop()
        for backend in backends.values():
            backend.start(loop)
        begin = time.perf_counter()
        feed = recording.feed(backends)
        for number, (raw, received) in enumerate(recording.frames):
            await feed.message_handler(raw, None, received)
            if number % 100 == 0:
                await asyncio.sleep(0)  # As between reads of a socket: lets the backend's task run.
        for backend in backends.values():
            # A statement that fails ends its task and nobody says so.
            await asyncio.wait_for(backend.queue.join(), PATIENCE)
        seconds = time.perf_counter() - begin
        stored = sum([await connection.fetchval(f"SELECT count(*) FROM {table}") for table in ("book", "ticker", "trades")])
        assert stored > 0, "the backend stored nothing"
        await connection.close()
        for backend in backends.values():
            await backend.stop()
        return seconds

    seconds = [asyncio.run(run()) for _ in range(runs)]
    say(recording, "sink", "frames_per_s", "frames/s", [len(recording.frames) / one for one in seconds])
    say(recording, "sink", "rows_per_s", "rows/s", [count.rows / one for one in seconds])


def main() -> None:
    logging.disable(logging.CRITICAL)
    os.environ.setdefault("PYTHONHASHSEED", "0")
    match sys.argv[1:]:
        case ["prepare", corpus, out]:
            prepare(Path(corpus), Path(out))
        case ["decode", path, runs]:
            decode(Path(path), int(runs))
        case ["postgres", path, runs, host, port, user, database]:
            postgres(Path(path), int(runs), host, port, user, database)
        case _:
            sys.exit(__doc__)


if __name__ == "__main__":
    main()
