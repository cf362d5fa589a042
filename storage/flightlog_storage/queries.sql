-- The statements of database.py and run_tables.py, by name.

-- name: tables
SELECT count(*) FROM sqlite_schema

-- name: checkpoint
SELECT schema_version, log_id, log_offset, segment_first_offset, position
FROM checkpoint

-- name: set_checkpoint
INSERT OR REPLACE INTO checkpoint VALUES (1, ?, ?, ?, ?, ?)

-- name: run_by_name
SELECT * FROM runs WHERE entity = ? AND project = ? AND id = ?

-- name: run_by_number
SELECT * FROM runs WHERE number = ?

-- name: runs
SELECT state, number, entity, project, id, name, run_group, job_type, created_at,
    updated_at, last_step, row_count, lost_count
FROM runs
WHERE (:entity IS NULL OR entity = :entity) AND (:project IS NULL OR project = :project)
ORDER BY created_at, number

-- name: run_of_writer
SELECT run FROM writers WHERE writer = ?

-- name: save_run
INSERT INTO runs VALUES (
    :number, :entity, :project, :id, :name, :notes, :group, :job_type, :metadata,
    :state, :exit_code, :signal, :created_at, :updated_at, :last_step, :last_time,
    :row_count, :lost_count, :session, :preemption_announced
)
ON CONFLICT (number) DO UPDATE SET
    name = excluded.name, notes = excluded.notes, run_group = excluded.run_group,
    job_type = excluded.job_type, metadata = excluded.metadata,
    state = excluded.state, exit_code = excluded.exit_code, signal = excluded.signal,
    created_at = excluded.created_at, updated_at = excluded.updated_at,
    last_step = excluded.last_step, last_time = excluded.last_time,
    row_count = excluded.row_count, lost_count = excluded.lost_count,
    session = excluded.session, preemption_announced = excluded.preemption_announced

-- name: writers
SELECT writer, rank, status, forked, resumed, host, pid, exit_code, signal,
    next_sequence, started_at, session
FROM writers WHERE run = ? ORDER BY ordinal

-- name: save_writer
INSERT INTO writers (
    writer, run, rank, status, forked, host, pid, exit_code, signal, next_sequence,
    started_at, session, resumed
)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (writer) DO UPDATE SET
    run = excluded.run, rank = excluded.rank, status = excluded.status,
    forked = excluded.forked, host = excluded.host, pid = excluded.pid,
    exit_code = excluded.exit_code, signal = excluded.signal,
    next_sequence = excluded.next_sequence, started_at = excluded.started_at,
    session = excluded.session, resumed = excluded.resumed

-- name: config
SELECT key, value FROM config WHERE run = ? ORDER BY ordinal

-- name: save_config
INSERT INTO config (run, key, value) VALUES (?, ?, ?)
ON CONFLICT (run, key) DO UPDATE SET value = excluded.value

-- name: remove_config
DELETE FROM config WHERE run = ? AND key = ?

-- name: summary
SELECT key, value FROM summary WHERE run = ? ORDER BY ordinal

-- name: save_summary
INSERT INTO summary (run, key, value) VALUES (?, ?, ?)
ON CONFLICT (run, key) DO UPDATE SET value = excluded.value

-- name: remove_summary
DELETE FROM summary WHERE run = ? AND key = ?

-- name: tags
SELECT tag FROM tags WHERE run = ? ORDER BY ordinal

-- name: clear_tags
DELETE FROM tags WHERE run = ?

-- name: save_tag
INSERT INTO tags VALUES (?, ?, ?)

-- name: metrics
SELECT name, step_metric, step_sync, hidden, summary, goal
FROM metrics WHERE run = ? ORDER BY ordinal

-- name: save_metric
INSERT INTO metrics (run, name, step_metric, step_sync, hidden, summary, goal)
VALUES (?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (run, name) DO UPDATE SET
    step_metric = excluded.step_metric, step_sync = excluded.step_sync,
    hidden = excluded.hidden, summary = excluded.summary, goal = excluded.goal

-- name: aggregates
SELECT path, numbers FROM aggregates WHERE run = ?

-- name: save_aggregate
INSERT OR REPLACE INTO aggregates VALUES (?, ?, ?)

-- name: alerts
SELECT time, title, text, level FROM alerts WHERE run = ? ORDER BY ordinal

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

-- name: save_dead_letter
INSERT OR REPLACE INTO dead_letters VALUES (?, ?, ?, ?)

-- name: dead_letters
SELECT log_offset, writer, reason, raw FROM dead_letters ORDER BY log_offset

-- name: save_gap
INSERT OR REPLACE INTO gaps VALUES (?, ?, ?, ?, ?, ?)

-- name: gaps
SELECT log_offset, writer, run, first_sequence, count, why
FROM gaps ORDER BY log_offset, first_sequence
