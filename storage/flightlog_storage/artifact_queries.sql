
-- The statements of artifact_tables.py, and those on files, by name.

-- name: files
SELECT run, name, blob, digest, size, updated_at FROM files
WHERE run IN (SELECT value FROM json_each(?)) ORDER BY name

-- name: save_file
INSERT OR REPLACE INTO files VALUES (?, ?, ?, ?, ?, ?)

-- name: remove_file
DELETE FROM files WHERE run = ? AND name = ?

-- name: clear_files
DELETE FROM files WHERE run = ?

-- name: owed_files
SELECT run, token, name, size, pixels FROM owed_files
WHERE run IN (SELECT value FROM json_each(?)) ORDER BY ordinal

-- name: save_owed_file
INSERT OR IGNORE INTO owed_files (run, token, name, size, pixels) VALUES (?, ?, ?, ?, ?)

-- name: remove_owed_file
DELETE FROM owed_files WHERE run = ? AND token = ?

-- name: clear_owed_files
DELETE FROM owed_files WHERE run = ?

-- name: all_owed_files
SELECT runs.entity, runs.project, runs.id, token, owed_files.name, size, pixels
FROM owed_files JOIN runs ON runs.number = owed_files.run
WHERE NOT runs.carried ORDER BY ordinal LIMIT ?

-- name: file_blobs
SELECT runs.number, files.blob, files.size, runs.entity, runs.project, runs.id, files.name
FROM files JOIN runs ON runs.number = files.run ORDER BY files.run, files.name

-- name: artifact
SELECT type, next_number, newest, created_at, updated_at FROM artifacts
WHERE entity = ? AND project = ? AND name = ?

-- name: artifact_names
SELECT name FROM artifacts WHERE entity = ? AND project = ? ORDER BY name

-- name: save_artifact
INSERT OR REPLACE INTO artifacts VALUES (?, ?, ?, ?, ?, ?, ?, ?)

-- name: artifact_aliases
SELECT alias, number FROM artifact_aliases
WHERE entity = ? AND project = ? AND name = ? ORDER BY alias

-- name: clear_artifact_aliases
DELETE FROM artifact_aliases WHERE entity = ? AND project = ? AND name = ?

-- name: save_artifact_alias
INSERT INTO artifact_aliases VALUES (?, ?, ?, ?, ?)

-- name: artifact_version
SELECT digest, size, file_count, manifest, manifest_size, description, metadata, tags,
    created_at, updated_at
FROM artifact_versions WHERE entity = ? AND project = ? AND name = ? AND number = ?

-- name: artifact_numbers
SELECT number FROM artifact_versions
WHERE entity = ? AND project = ? AND name = ? ORDER BY number

-- name: all_artifact_versions
SELECT entity, project, name, number FROM artifact_versions
ORDER BY entity, project, name, number

-- name: save_artifact_version
INSERT OR REPLACE INTO artifact_versions
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)

-- name: remove_artifact_version
DELETE FROM artifact_versions
WHERE entity = ? AND project = ? AND name = ? AND number = ?

-- name: artifact_manifest
SELECT entries FROM artifact_manifests
WHERE entity = ? AND project = ? AND name = ? AND number = ?

-- name: save_artifact_manifest
INSERT OR REPLACE INTO artifact_manifests VALUES (?, ?, ?, ?, ?)

-- name: remove_artifact_manifest
DELETE FROM artifact_manifests
WHERE entity = ? AND project = ? AND name = ? AND number = ?

-- name: links_of_run
SELECT run_entity, run_project, run_id, role, entity, project, name, number, use_as
FROM artifact_links
WHERE run_entity = ? AND run_project = ? AND run_id = ? AND role = ? ORDER BY ordinal

-- name: links_of_version
SELECT run_entity, run_project, run_id, role, entity, project, name, number, use_as
FROM artifact_links
WHERE entity = ? AND project = ? AND name = ? AND number = ? AND role = ?
ORDER BY ordinal

-- name: save_link
INSERT OR IGNORE INTO artifact_links (
    run_entity, run_project, run_id, role, entity, project, name, number, use_as
)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)

-- name: remove_links_of_run
DELETE FROM artifact_links WHERE run_entity = ? AND run_project = ? AND run_id = ?

-- name: remove_links_of_version
DELETE FROM artifact_links
WHERE entity = ? AND project = ? AND name = ? AND number = ?

-- name: artifact_token
SELECT entity, project, name, number FROM artifact_tokens WHERE token = ?

-- name: save_artifact_token
INSERT OR REPLACE INTO artifact_tokens VALUES (?, ?, ?, ?, ?)

-- name: remove_artifact_tokens
DELETE FROM artifact_tokens
WHERE entity = ? AND project = ? AND name = ? AND number = ?
