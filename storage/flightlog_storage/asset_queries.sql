
-- The statements on assets, by name.

-- name: logged_config
SELECT run, packed FROM logged_config WHERE run IN (SELECT value FROM json_each(?))

-- name: save_logged_config
INSERT OR REPLACE INTO logged_config VALUES (?, ?)

-- name: clear_logged_config
DELETE FROM logged_config WHERE run = ?

-- name: assets
SELECT run, asset FROM assets
WHERE run IN (SELECT value FROM json_each(?)) ORDER BY ordinal

-- name: save_asset
INSERT INTO assets (run, token, job, output, asset) VALUES (?, ?, ?, ?, ?)
ON CONFLICT (run, token) DO UPDATE SET job = excluded.job, asset = excluded.asset

-- name: clear_assets
DELETE FROM assets WHERE run = ?

-- name: all_owed_assets
SELECT runs.entity, runs.project, runs.id, assets.asset
FROM assets JOIN runs ON runs.number = assets.run
WHERE assets.job IS NOT NULL AND NOT runs.carried ORDER BY ordinal LIMIT ?

-- name: all_assets
SELECT runs.entity, runs.project, runs.id, assets.asset
FROM assets JOIN runs ON runs.number = assets.run ORDER BY ordinal

-- name: outputs_of_key
SELECT assets.asset FROM assets JOIN runs ON runs.number = assets.run
WHERE runs.entity = ? AND runs.project = ? AND runs.id = ? AND assets.output = ?

-- name: watches
SELECT run, token, writer, interval_s, looking FROM watches
WHERE run IN (SELECT value FROM json_each(?)) ORDER BY ordinal

-- name: save_watch
INSERT OR REPLACE INTO watches (run, token, writer, interval_s, looking)
VALUES (?, ?, ?, ?, ?)

-- name: remove_watch
DELETE FROM watches WHERE run = ? AND token = ?

-- name: clear_watches
DELETE FROM watches WHERE run = ?

-- name: all_watches
SELECT
    runs.entity, runs.project, runs.id,
    watches.token, watches.writer, watches.interval_s, watches.looking,
    coalesce(writers.host, ''), coalesce(writers.status <> 'active', 1)
FROM watches JOIN runs ON runs.number = watches.run
LEFT JOIN writers ON writers.writer = watches.writer
WHERE NOT runs.carried
ORDER BY watches.ordinal LIMIT ?
