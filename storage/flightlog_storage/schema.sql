-- The tables of state.db. All of it is derived from the event log: it may be deleted.

-- One row a run: what is a single value of its state. number is the offset of the
-- event that created the run; metadata is JSON. shown_name, host and git_commit follow
-- from the rest and are there to be filtered by. Of a carried run nothing is done.
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
    description TEXT,
    deleted INTEGER NOT NULL,
    carried INTEGER NOT NULL,
    shown_name TEXT NOT NULL,
    host TEXT,
    git_commit TEXT,
    UNIQUE (entity, project, id)
) STRICT;
-- All that a page of a project's runs is mostly found and sorted by.
CREATE INDEX runs_in_order ON runs (
    entity, project, deleted, created_at, id, state
);

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
    resumed INTEGER NOT NULL,
    storing INTEGER NOT NULL
) STRICT;
CREATE INDEX writers_of_run ON writers (run);

-- One row an editor: a writer that changed a run without being a process of it.
CREATE TABLE editors (
    writer BLOB PRIMARY KEY,
    run INTEGER NOT NULL,
    next_sequence INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX editors_of_run ON editors (run);

-- One row a run with a config: a map in msgpack; see run_values.py. NULL: it is too
-- large to be written anew for each change, and has its keys in single_values.
CREATE TABLE config (
    run INTEGER PRIMARY KEY,
    packed BLOB
) STRICT;

-- One row a run with a summary; packed as in config.
CREATE TABLE summary (
    run INTEGER PRIMARY KEY,
    packed BLOB
) STRICT;

-- One row a top-level key of a config or summary (scope 0, 1) that is too large for one
-- map; key is the bytes of its text, value in msgpack as in the maps.
CREATE TABLE single_values (
    ordinal INTEGER PRIMARY KEY,
    run INTEGER NOT NULL,
    scope INTEGER NOT NULL,
    key BLOB NOT NULL,
    value BLOB NOT NULL,
    UNIQUE (run, scope, key)
) STRICT;

-- One row a run with system metrics: a JSON object of the latest value of each.
CREATE TABLE system (
    run INTEGER PRIMARY KEY,
    metrics TEXT NOT NULL
) STRICT;

-- One row a tag, in the user's order.
CREATE TABLE tags (
    run INTEGER NOT NULL,
    ordinal INTEGER NOT NULL,
    tag TEXT NOT NULL,
    PRIMARY KEY (run, ordinal)
) STRICT, WITHOUT ROWID;

-- One row a value in config, summary or tags (scope 0, 1, 2), also inside dicts, an
-- element of a list, or a key that was logged (scope 3): what filters look at. See
-- facts.py; path is the bytes of its text.
CREATE TABLE facts (
    scope INTEGER NOT NULL,
    path BLOB NOT NULL,
    run INTEGER NOT NULL,
    split TEXT NOT NULL,
    place INTEGER NOT NULL,
    kind INTEGER NOT NULL,
    number ANY NOT NULL,
    text BLOB NOT NULL,
    PRIMARY KEY (scope, path, run, split, place)
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
-- numbers the JSON list of count, total, minimum, maximum, first, last, has_nan.
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
