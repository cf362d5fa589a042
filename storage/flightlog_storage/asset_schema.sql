
-- One row a run of which log_config() told: args, extra and config_files, packed as the
-- maps in config are.
CREATE TABLE logged_config (
    run INTEGER PRIMARY KEY,
    packed BLOB NOT NULL
) STRICT;

-- One row an asset of a run, in the order of the log. job is what is owed, and NULL when
-- nothing is; output is the key of what a run put out, and NULL for what it took in;
-- asset is a map in msgpack, see assets.py.
CREATE TABLE assets (
    ordinal INTEGER PRIMARY KEY,
    run INTEGER NOT NULL,
    token TEXT NOT NULL,
    job TEXT,
    output TEXT,
    asset BLOB NOT NULL,
    UNIQUE (run, token)
) STRICT;
CREATE INDEX owed_assets ON assets (ordinal) WHERE job IS NOT NULL;
CREATE INDEX outputs ON assets (run, output) WHERE output IS NOT NULL;

-- One row a watch that is open; looking is a map in msgpack, see OutputsWatchStarted.
CREATE TABLE watches (
    ordinal INTEGER PRIMARY KEY,
    run INTEGER NOT NULL,
    token TEXT NOT NULL,
    writer BLOB NOT NULL,
    interval_s REAL NOT NULL,
    looking BLOB NOT NULL,
    UNIQUE (run, token)
) STRICT;
