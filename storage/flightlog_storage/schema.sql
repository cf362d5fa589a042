-- The tables of state.db. All of it is derived from the event log: it may be deleted.

-- One row a run: what is a single value of its state. number is the offset of the
-- event that created the run; metadata is JSON.
CREATE TABLE runs (
    number INTEGER PRIMARY KEY,
    entity TEXT NOT NULL,
    project TEXT NOT NULL,
    id TEXT NOT NULL,
    name TEXT,
    notes TEXT,
    run_group TEXT,
    job_type TEXT,
    metadata TEXT NOT NULL,
    state TEXT NOT NULL,
    exit_code INTEGER,
    signal INTEGER,
    created_at REAL NOT NULL,
    updated_at REAL NOT NULL,
    last_step INTEGER NOT NULL,
    last_time REAL NOT NULL,
    row_count INTEGER NOT NULL,
    lost_count INTEGER NOT NULL,
    session INTEGER NOT NULL,
    preemption_announced INTEGER NOT NULL,
    UNIQUE (entity, project, id)
) STRICT;

-- One row a writer, in the order in which they started.
CREATE TABLE writers (
    ordinal INTEGER PRIMARY KEY,
    writer BLOB NOT NULL UNIQUE,
    run INTEGER NOT NULL,
    rank INTEGER NOT NULL,
    status TEXT NOT NULL,
    forked INTEGER NOT NULL,
    host TEXT NOT NULL,
    pid INTEGER NOT NULL,
    exit_code INTEGER,
    signal INTEGER,
    next_sequence INTEGER,
    started_at REAL NOT NULL,
    session INTEGER NOT NULL,
    resumed INTEGER NOT NULL
) STRICT;
CREATE INDEX writers_of_run ON writers (run);

-- One row a config key; value is JSON, with NaN and Infinity as tokens.
CREATE TABLE config (
    ordinal INTEGER PRIMARY KEY,
    run INTEGER NOT NULL,
    key TEXT NOT NULL,
    value TEXT NOT NULL,
    UNIQUE (run, key)
) STRICT;

-- One row a top-level summary key; value as in config.
CREATE TABLE summary (
    ordinal INTEGER PRIMARY KEY,
    run INTEGER NOT NULL,
    key TEXT NOT NULL,
    value TEXT NOT NULL,
    UNIQUE (run, key)
) STRICT;

-- One row a tag, in the user's order.
CREATE TABLE tags (
    run INTEGER NOT NULL,
    ordinal INTEGER NOT NULL,
    tag TEXT NOT NULL,
    PRIMARY KEY (run, ordinal)
) STRICT, WITHOUT ROWID;

-- One row a metric's definition; summary is a JSON list.
CREATE TABLE metrics (
    ordinal INTEGER PRIMARY KEY,
    run INTEGER NOT NULL,
    name TEXT NOT NULL,
    step_metric TEXT,
    step_sync INTEGER NOT NULL,
    hidden INTEGER NOT NULL,
    summary TEXT NOT NULL,
    goal TEXT,
    UNIQUE (run, name)
) STRICT;

-- Running numbers of the metrics whose definition asks for them; path is a JSON list,
-- numbers the JSON list of count, total, minimum, maximum, first, last.
CREATE TABLE aggregates (
    run INTEGER NOT NULL,
    path TEXT NOT NULL,
    numbers TEXT NOT NULL,
    PRIMARY KEY (run, path)
) STRICT, WITHOUT ROWID;

-- The latest alerts of a run, oldest first.
CREATE TABLE alerts (
    run INTEGER NOT NULL,
    ordinal INTEGER NOT NULL,
    time REAL NOT NULL,
    title TEXT NOT NULL,
    text TEXT NOT NULL,
    level TEXT NOT NULL,
    PRIMARY KEY (run, ordinal)
) STRICT, WITHOUT ROWID;

-- The Parquet files that make up the histories; offsets are those of the events in it.
CREATE TABLE parts (
    run INTEGER NOT NULL,
    name TEXT NOT NULL,
    first_offset INTEGER NOT NULL,
    end_offset INTEGER NOT NULL,
    level INTEGER NOT NULL,
    points INTEGER NOT NULL,
    size INTEGER NOT NULL,
    sha256 TEXT NOT NULL,
    min_step INTEGER,
    max_step INTEGER,
    PRIMARY KEY (run, name)
) STRICT, WITHOUT ROWID;

-- One row a run with points that are in the log and in no part yet: where the first
-- frame with such points lies.
CREATE TABLE tails (
    run INTEGER PRIMARY KEY,
    first_offset INTEGER NOT NULL,
    segment_first_offset INTEGER NOT NULL,
    position INTEGER NOT NULL
) STRICT;

-- One row: up to where the log log_id is folded into these tables.
CREATE TABLE checkpoint (
    only INTEGER PRIMARY KEY CHECK (only = 1),
    schema_version INTEGER NOT NULL,
    log_id TEXT NOT NULL,
    log_offset INTEGER NOT NULL,
    segment_first_offset INTEGER NOT NULL,
    position INTEGER NOT NULL
) STRICT;

-- Events that were refused, with their bytes.
CREATE TABLE dead_letters (
    log_offset INTEGER PRIMARY KEY,
    writer BLOB NOT NULL,
    reason TEXT NOT NULL,
    raw BLOB NOT NULL
) STRICT;

-- What is missing: count events of a writer from first_sequence; log_offset is where
-- that was noticed.
CREATE TABLE gaps (
    log_offset INTEGER NOT NULL,
    writer BLOB NOT NULL,
    run INTEGER,
    first_sequence INTEGER NOT NULL,
    count INTEGER NOT NULL,
    why TEXT NOT NULL,
    PRIMARY KEY (log_offset, writer, first_sequence)
) STRICT, WITHOUT ROWID;
