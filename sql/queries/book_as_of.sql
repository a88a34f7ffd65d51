-- The ten best levels of a book as it was at a moment. Nothing comes back when it was not whole then (a gap).
SELECT side, level, price, qty, as_of
FROM market_data.book_at('binance-spot', 'BTCUSDT', timestamptz '2026-08-03 12:00:00.250Z', 10);

-- Spread and quantity at the best prices, each minute of an hour; no row for a minute in which the book was broken.
SELECT at,
       max(price) FILTER (WHERE side = -1) - max(price) FILTER (WHERE side = 1) AS spread,
       max(qty) FILTER (WHERE side = 1) AS bid_qty,
       max(qty) FILTER (WHERE side = -1) AS ask_qty
FROM generate_series(timestamptz '2026-08-03 12:00Z', timestamptz '2026-08-03 13:00Z', interval '1 minute') at,
     LATERAL market_data.book_at('binance-spot', 'BTCUSDT', at, 1)
GROUP BY at ORDER BY at;
