
-- The files of runs: name, and the blob with the bytes.
CREATE TABLE files (
    run INTEGER NOT NULL,
    name TEXT NOT NULL,
    blob TEXT NOT NULL,
    digest TEXT NOT NULL,
    size INTEGER NOT NULL,
    updated_at REAL NOT NULL,
    PRIMARY KEY (run, name)
) STRICT, WITHOUT ROWID;

-- The files of runs that are requested and not made yet, in the order of the log; pixels
-- is JSON.
CREATE TABLE owed_files (
    ordinal INTEGER PRIMARY KEY,
    run INTEGER NOT NULL,
    token TEXT NOT NULL,
    name TEXT NOT NULL,
    size INTEGER NOT NULL,
    pixels TEXT,
    UNIQUE (run, token)
) STRICT;

-- One row an artifact: what its versions share. newest is the highest number there is.
CREATE TABLE artifacts (
    entity TEXT NOT NULL,
    project TEXT NOT NULL,
    name TEXT NOT NULL,
    type TEXT NOT NULL,
    next_number INTEGER NOT NULL,
    newest INTEGER,
    created_at REAL NOT NULL,
    updated_at REAL NOT NULL,
    PRIMARY KEY (entity, project, name)
) STRICT, WITHOUT ROWID;

-- The names that its user gave to versions.
CREATE TABLE artifact_aliases (
    entity TEXT NOT NULL,
    project TEXT NOT NULL,
    name TEXT NOT NULL,
    alias TEXT NOT NULL,
    number INTEGER NOT NULL,
    PRIMARY KEY (entity, project, name, alias)
) STRICT, WITHOUT ROWID;

-- One row a version. metadata and tags are JSON; manifest names a blob that holds the
-- manifest, where that is too large for artifact_manifests.
CREATE TABLE artifact_versions (
    entity TEXT NOT NULL,
    project TEXT NOT NULL,
    name TEXT NOT NULL,
    number INTEGER NOT NULL,
    digest TEXT NOT NULL,
    size INTEGER NOT NULL,
    file_count INTEGER NOT NULL,
    manifest TEXT,
    manifest_size INTEGER NOT NULL,
    description TEXT,
    metadata TEXT NOT NULL,
    tags TEXT NOT NULL,
    created_at REAL NOT NULL,
    updated_at REAL NOT NULL,
    PRIMARY KEY (entity, project, name, number)
) STRICT, WITHOUT ROWID;

-- The manifest of a version: a msgpack list of entries, as in ArtifactLogged.
CREATE TABLE artifact_manifests (
    entity TEXT NOT NULL,
    project TEXT NOT NULL,
    name TEXT NOT NULL,
    number INTEGER NOT NULL,
    entries BLOB NOT NULL,
    PRIMARY KEY (entity, project, name, number)
) STRICT;

-- Which run logged or used which version.
CREATE TABLE artifact_links (
    ordinal INTEGER PRIMARY KEY,
    run_entity TEXT NOT NULL,
    run_project TEXT NOT NULL,
    run_id TEXT NOT NULL,
    role TEXT NOT NULL,
    entity TEXT NOT NULL,
    project TEXT NOT NULL,
    name TEXT NOT NULL,
    number INTEGER NOT NULL,
    use_as TEXT,
    UNIQUE (run_entity, run_project, run_id, role, entity, project, name, number)
) STRICT;
CREATE INDEX links_of_version ON artifact_links (entity, project, name, number);

-- What became of each logged artifact: the version that it is.
CREATE TABLE artifact_tokens (
    token TEXT PRIMARY KEY,
    entity TEXT NOT NULL,
    project TEXT NOT NULL,
    name TEXT NOT NULL,
    number INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
