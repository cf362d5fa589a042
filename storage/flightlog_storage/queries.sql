-- The statements of database.py, run_tables.py and run_values.py, by name.

-- name: tables
SELECT count(*) FROM sqlite_schema

-- name: checkpoint
SELECT schema_version, log_id, log_offset, segment_first_offset, position
FROM checkpoint

-- name: set_checkpoint
INSERT OR REPLACE INTO checkpoint VALUES (1, ?, ?, ?, ?, ?)

-- name: run_by_name
SELECT * FROM runs WHERE entity = ? AND project = ? AND id = ?

-- name: number_of_run
SELECT number FROM runs WHERE entity = ? AND project = ? AND id = ?

-- name: runs_by_number
SELECT * FROM runs WHERE number IN (SELECT value FROM json_each(?))

-- name: runs
SELECT state, number, entity, project, id, name, run_group, job_type, created_at,
    updated_at, last_step, row_count, lost_count
FROM runs
WHERE NOT deleted AND (:entity IS NULL OR entity = :entity) AND (:project IS NULL OR project = :project)
ORDER BY created_at, number

-- name: is_active
SELECT 1 FROM runs
WHERE entity = ? AND project = ? AND id = ? AND NOT deleted
    AND state IN ('running', 'preempting')

-- name: editor
SELECT writer, run, next_sequence FROM editors WHERE writer = ?

-- name: save_editor
INSERT OR REPLACE INTO editors VALUES (?, ?, ?)

-- name: editors_of_run
SELECT writer FROM editors WHERE run = ?

-- name: deleted_writers
-- Those whose rows count no more; an editor's may again, if its run is there again.
SELECT writer FROM writers WHERE status = 'dismissed'
UNION
SELECT editors.writer
FROM editors INNER JOIN runs ON editors.run = runs.number
WHERE runs.deleted = 1 AND runs.id <> ''

-- name: run_of_writer
SELECT run FROM writers WHERE writer = ?

-- name: save_run
INSERT INTO runs VALUES (
    :number, :entity, :project, :id, :name, :notes, :group, :job_type, :metadata,
    :state, :exit_code, :signal, :created_at, :updated_at, :last_step, :last_time,
    :row_count, :lost_count, :session, :preemption_announced, :description, :deleted,
    :carried, :shown_name, :host, :git_commit
)
ON CONFLICT (number) DO UPDATE SET
    name = excluded.name, notes = excluded.notes, run_group = excluded.run_group,
    job_type = excluded.job_type, metadata = excluded.metadata,
    state = excluded.state, exit_code = excluded.exit_code, signal = excluded.signal,
    created_at = excluded.created_at, updated_at = excluded.updated_at,
    last_step = excluded.last_step, last_time = excluded.last_time,
    row_count = excluded.row_count, lost_count = excluded.lost_count,
    session = excluded.session, preemption_announced = excluded.preemption_announced,
    description = excluded.description, deleted = excluded.deleted,
    carried = excluded.carried,
    shown_name = excluded.shown_name, host = excluded.host,
    git_commit = excluded.git_commit

-- name: writers
SELECT run, writer, rank, status, forked, resumed, host, pid, exit_code, signal,
    next_sequence, started_at, session, storing
FROM writers WHERE run IN (SELECT value FROM json_each(?)) ORDER BY ordinal

-- name: active_writers
-- Of this host, and not brought here by an import, which goes on with its writers.
SELECT writer, entity, project, id, rank, pid, started_at, coalesce(next_sequence, 1)
FROM writers JOIN runs ON runs.number = writers.run
WHERE status = 'active' AND writers.host = ? AND NOT carried

-- name: save_writer
INSERT INTO writers (
    writer, run, rank, status, forked, host, pid, exit_code, signal, next_sequence,
    started_at, session, resumed, storing
)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (writer) DO UPDATE SET
    run = excluded.run, rank = excluded.rank, status = excluded.status,
    forked = excluded.forked, host = excluded.host, pid = excluded.pid,
    exit_code = excluded.exit_code, signal = excluded.signal,
    next_sequence = excluded.next_sequence, started_at = excluded.started_at,
    session = excluded.session, resumed = excluded.resumed,
    storing = excluded.storing

-- name: config
SELECT run, packed FROM config WHERE run IN (SELECT value FROM json_each(?))

-- name: config_of
SELECT packed FROM config WHERE run = ?

-- name: save_config
INSERT OR REPLACE INTO config VALUES (?, ?)

-- name: clear_config
DELETE FROM config WHERE run = ?

-- name: summary
SELECT run, packed FROM summary WHERE run IN (SELECT value FROM json_each(?))

-- name: summary_of
SELECT packed FROM summary WHERE run = ?

-- name: save_summary
INSERT OR REPLACE INTO summary VALUES (?, ?)

-- name: clear_summary
DELETE FROM summary WHERE run = ?

-- name: single_values
SELECT run, key, value FROM single_values
WHERE scope = ? AND run IN (SELECT value FROM json_each(?)) ORDER BY ordinal

-- name: single_value
SELECT value FROM single_values WHERE run = ? AND scope = ? AND key = ?

-- name: save_single_value
INSERT INTO single_values (run, scope, key, value) VALUES (?, ?, ?, ?)
ON CONFLICT (run, scope, key) DO UPDATE SET value = excluded.value

-- name: remove_single_value
DELETE FROM single_values WHERE run = ? AND scope = ? AND key = ?

-- name: clear_single_values
DELETE FROM single_values WHERE run = ?

-- name: system
SELECT run, metrics FROM system WHERE run IN (SELECT value FROM json_each(?))

-- name: save_system
INSERT OR REPLACE INTO system VALUES (?, ?)

-- name: clear_system
DELETE FROM system WHERE run = ?

-- name: tags
SELECT run, tag FROM tags
WHERE run IN (SELECT value FROM json_each(?)) ORDER BY run, ordinal

-- name: clear_tags
DELETE FROM tags WHERE run = ?

-- name: save_tag
INSERT INTO tags VALUES (?, ?, ?)

-- name: save_fact
INSERT OR REPLACE INTO facts VALUES (?, ?, ?, ?, ?, ?, ?, ?)

-- name: is_logged
SELECT 1 FROM facts WHERE scope = 3 AND path = ? AND run = ?

-- name: clear_logged
WITH RECURSIVE keys (path) AS (
    SELECT min(path) FROM facts WHERE scope = 3
    UNION ALL
    SELECT (SELECT min(path) FROM facts WHERE scope = 3 AND path > keys.path)
    FROM keys WHERE keys.path IS NOT NULL
)
DELETE FROM facts WHERE scope = 3 AND path IN (SELECT path FROM keys) AND run = ?

-- name: remove_fact
DELETE FROM facts
WHERE scope = ? AND path = ? AND run = ? AND split = ? AND place = ?

-- name: metrics
SELECT run, name, step_metric, step_sync, hidden, summary, goal
FROM metrics WHERE run IN (SELECT value FROM json_each(?)) ORDER BY ordinal

-- name: save_metric
INSERT INTO metrics (run, name, step_metric, step_sync, hidden, summary, goal)
VALUES (?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (run, name) DO UPDATE SET
    step_metric = excluded.step_metric, step_sync = excluded.step_sync,
    hidden = excluded.hidden, summary = excluded.summary, goal = excluded.goal

-- name: clear_metrics
DELETE FROM metrics WHERE run = ?

-- name: clear_aggregates
DELETE FROM aggregates WHERE run = ?

-- name: aggregates
SELECT run, path, numbers FROM aggregates
WHERE run IN (SELECT value FROM json_each(?))

-- name: save_aggregate
INSERT OR REPLACE INTO aggregates VALUES (?, ?, ?)

-- name: alerts
SELECT run, time, title, text, level FROM alerts
WHERE run IN (SELECT value FROM json_each(?)) ORDER BY run, ordinal

-- name: clear_alerts
DELETE FROM alerts WHERE run = ?

-- name: save_alert
INSERT INTO alerts VALUES (?, ?, ?, ?, ?, ?)

-- name: parts
SELECT run, name, first_offset, end_offset, level, points, size, sha256, min_step,
    max_step
FROM parts WHERE run = ? ORDER BY first_offset, name

-- name: all_parts
SELECT run, name, first_offset, end_offset, level, points, size, sha256, min_step,
    max_step
FROM parts ORDER BY run, first_offset, name

-- name: save_part
INSERT OR REPLACE INTO parts VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)

-- name: remove_parts
DELETE FROM parts WHERE run = ?

-- name: remove_part
DELETE FROM parts WHERE run = ? AND name = ?

-- name: tail
SELECT run, first_offset, segment_first_offset, position FROM tails WHERE run = ?

-- name: tails
SELECT run, first_offset, segment_first_offset, position FROM tails
ORDER BY first_offset

-- name: save_tail
INSERT OR REPLACE INTO tails VALUES (?, ?, ?, ?)

-- name: remove_tail
DELETE FROM tails WHERE run = ?

-- name: totals
SELECT
    (SELECT count(*) FROM runs),
    (SELECT coalesce(sum(lost_count), 0) FROM runs),
    (SELECT count(*) FROM dead_letters),
    (SELECT count(*) FROM owed_files),
    (SELECT count(*) FROM assets WHERE job IS NOT NULL)

-- name: old_runs
SELECT entity, project, id, updated_at FROM runs
WHERE NOT deleted AND NOT carried
    AND state NOT IN ('pending', 'running', 'preempting')
    AND updated_at < min(?, (SELECT max(updated_at) FROM runs)) - ?
    AND NOT EXISTS (SELECT 1 FROM tags WHERE tags.run = number AND tag = ?)
ORDER BY updated_at, number

-- name: save_dead_letter
INSERT OR REPLACE INTO dead_letters VALUES (?, ?, ?, ?)

-- name: dead_letters
SELECT log_offset, writer, reason, raw FROM dead_letters ORDER BY log_offset

-- name: save_gap
INSERT OR REPLACE INTO gaps VALUES (?, ?, ?, ?, ?, ?)

-- name: gaps
SELECT log_offset, writer, run, first_sequence, count, why
FROM gaps ORDER BY log_offset, first_sequence
