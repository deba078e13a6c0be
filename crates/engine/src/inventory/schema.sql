-- The inventory's tables. They hold nothing that a replay of the journal would not bring back.
-- Numbers for kinds, operations and sources are fixed in codes.rs; the views at the end spell them out.

CREATE TABLE hosts (
  host_id TEXT NOT NULL PRIMARY KEY,
  name    TEXT NOT NULL
) STRICT, WITHOUT ROWID;

-- The counts are of names: a file with two names counts twice.
-- A root of another host, of which a backup tells, has that host's name.
CREATE TABLE roots (
  root_id  INTEGER PRIMARY KEY,
  name     TEXT NOT NULL UNIQUE,
  host     TEXT,
  dir      BLOB,
  identity TEXT,
  watched  INTEGER NOT NULL,
  files    INTEGER NOT NULL DEFAULT 0,
  dirs     INTEGER NOT NULL DEFAULT 0,
  others   INTEGER NOT NULL DEFAULT 0,
  bytes    INTEGER NOT NULL DEFAULT 0
) STRICT;

-- Live directories. The only place where a path stands; a root's own directory has parent 0 and an empty path.
CREATE TABLE dirs (
  dir_id  INTEGER PRIMARY KEY,
  root_id INTEGER NOT NULL,
  parent  INTEGER NOT NULL,
  name    BLOB NOT NULL,
  path    BLOB NOT NULL,
  UNIQUE (root_id, path)
) STRICT;

-- Every place where a directory ever stood; to_seq is null while it stands there. Leads from a directory upwards.
CREATE TABLE dir_names (
  dir_id   INTEGER NOT NULL,
  from_seq INTEGER NOT NULL,
  to_seq   INTEGER,
  parent   INTEGER NOT NULL,
  name     BLOB NOT NULL,
  PRIMARY KEY (dir_id, from_seq)
) STRICT, WITHOUT ROWID;

-- Live names of every kind of object, directories too, in the directory that holds them (the roots in directory 0).
CREATE TABLE files (
  dir_id         INTEGER NOT NULL,
  name           BLOB NOT NULL,
  file_id        INTEGER NOT NULL,
  kind           INTEGER,
  size           INTEGER CHECK (size >= 0),
  mtime_ns       INTEGER,
  ctime_ns       INTEGER,
  dev            INTEGER,
  inode          INTEGER,
  mode           INTEGER,
  uid            INTEGER,
  gid            INTEGER,
  nlink          INTEGER,
  target         BLOB,
  first_seen_ns  INTEGER NOT NULL,
  from_seq       INTEGER NOT NULL,
  version_seq    INTEGER NOT NULL,
  last_seq       INTEGER NOT NULL,
  last_change_ns INTEGER NOT NULL,
  settled_seq    INTEGER NOT NULL DEFAULT 0,
  sha256         BLOB,
  PRIMARY KEY (dir_id, name)
) STRICT, WITHOUT ROWID;
CREATE INDEX files_inode ON files (inode) WHERE inode IS NOT NULL;
CREATE INDEX files_unsettled ON files (version_seq) WHERE kind = 1 AND settled_seq < version_seq;

-- Names that ended: by a deletion, a move, or another object in their place. Leads from a directory downwards.
CREATE TABLE past_names (
  dir_id   INTEGER NOT NULL,
  name     BLOB NOT NULL,
  to_seq   INTEGER NOT NULL,
  file_id  INTEGER NOT NULL,
  from_seq INTEGER NOT NULL,
  kind     INTEGER,
  PRIMARY KEY (dir_id, name, to_seq, file_id)
) STRICT, WITHOUT ROWID;

-- The history. A place is the directory and the name in it, as they were then.
-- The record that first told of an object has its id as seq, so the index holds only the later ones.
CREATE TABLE changes (
  seq         INTEGER PRIMARY KEY,
  at_ns       INTEGER NOT NULL,
  op          INTEGER NOT NULL,
  root_id     INTEGER NOT NULL,
  file_id     INTEGER,
  dir_id      INTEGER NOT NULL,
  name        BLOB NOT NULL,
  old_root_id INTEGER,
  old_dir_id  INTEGER,
  old_name    BLOB,
  kind        INTEGER,
  size        INTEGER,
  mtime_ns    INTEGER,
  ctime_ns    INTEGER,
  dev         INTEGER,
  inode       INTEGER,
  mode        INTEGER,
  uid         INTEGER,
  gid         INTEGER,
  nlink       INTEGER,
  target      BLOB,
  via         INTEGER NOT NULL,
  by_pid      INTEGER,
  by_uid      INTEGER,
  by_exe      BLOB,
  merged      INTEGER NOT NULL,
  subtree     INTEGER NOT NULL,
  exchange    INTEGER NOT NULL,
  extra       TEXT
) STRICT;
CREATE INDEX changes_file ON changes (file_id, seq) WHERE file_id <> seq;

-- What Keepwatch did or decided. `path` is in the root, or for `config` the root's own; `detail` is a JSON object.
CREATE TABLE acts (
  seq     INTEGER PRIMARY KEY,
  at_ns   INTEGER NOT NULL,
  act     TEXT NOT NULL,
  root_id INTEGER,
  file_id INTEGER,
  path    BLOB,
  detail  TEXT NOT NULL,
  extra   TEXT
) STRICT;
CREATE INDEX acts_file ON acts (file_id, seq) WHERE file_id IS NOT NULL;

-- Stretches in which changes may have been missed, one row for each root they touch (0: no root was known then).
CREATE TABLE gaps (
  seq        INTEGER NOT NULL,
  root_id    INTEGER NOT NULL,
  path       BLOB NOT NULL,
  reason     TEXT NOT NULL,
  since_ns   INTEGER NOT NULL,
  note       TEXT,
  closed_seq INTEGER,
  PRIMARY KEY (seq, root_id)
) STRICT, WITHOUT ROWID;
CREATE INDEX gaps_open ON gaps (closed_seq) WHERE closed_seq IS NULL;

-- The running maximum of `at` at every 1024th record: where a search for a moment starts.
CREATE TABLE moments (
  seq       INTEGER PRIMARY KEY,
  max_at_ns INTEGER NOT NULL
) STRICT;
CREATE INDEX moments_at ON moments (max_at_ns, seq);

-- Places that hold copies. `identity` is the id in the target's mark; `roots` a JSON object: of which roots all that was
-- there is known, and by which layout and filters. The counts are of regular files.
CREATE TABLE replicas (
  replica_id INTEGER PRIMARY KEY,
  name       TEXT NOT NULL UNIQUE,
  url        TEXT,
  identity   TEXT,
  roots      TEXT NOT NULL DEFAULT '{}',
  files      INTEGER NOT NULL DEFAULT 0,
  bytes      INTEGER NOT NULL DEFAULT 0
) STRICT;

-- Versions on replicas, by the path for which each is held; a directory's ends with a slash. of_seq is the last record that
-- had told of the original then, proof 1 presumed, 2 written, 3 proved.
CREATE TABLE copies (
  replica_id INTEGER NOT NULL,
  root_id    INTEGER NOT NULL,
  path       BLOB NOT NULL,
  file_id    INTEGER NOT NULL,
  of_seq     INTEGER NOT NULL,
  kind       INTEGER NOT NULL,
  size       INTEGER NOT NULL,
  mtime_ns   INTEGER NOT NULL,
  sha256     BLOB,
  proof      INTEGER NOT NULL,
  seq        INTEGER NOT NULL,
  PRIMARY KEY (replica_id, root_id, path)
) STRICT, WITHOUT ROWID;
CREATE INDEX copies_file ON copies (replica_id, file_id);
CREATE INDEX copies_unproved ON copies (replica_id, root_id, seq) WHERE proof <> 3 AND kind = 1;
CREATE INDEX copies_dirs ON copies (replica_id, root_id, path) WHERE kind = 2;

-- Originals that could not be copied.
CREATE TABLE failures (
  replica_id INTEGER NOT NULL,
  root_id    INTEGER NOT NULL,
  path       BLOB NOT NULL,
  seq        INTEGER NOT NULL,
  at_ns      INTEGER NOT NULL,
  why        TEXT NOT NULL,
  PRIMARY KEY (replica_id, root_id, path)
) STRICT, WITHOUT ROWID;

-- Commands that are run for files. `since` is a JSON object: for each root the last record whose version is left alone; null: it
-- is no longer configured.
CREATE TABLE triggers (
  trigger_id INTEGER PRIMARY KEY,
  name       TEXT NOT NULL UNIQUE,
  since      TEXT,
  done       INTEGER NOT NULL DEFAULT 0
) STRICT;

-- Of each file the latest version that a trigger took up: state 1 started, 2 done, 3 given up, 4 asked for again since. The
-- process group in which its command runs is told by its leader, when that began, and the boot of the machine. seq is the last
-- record about it; of a batch only the first file has a path.
CREATE TABLE runs (
  trigger_id  INTEGER NOT NULL,
  file_id     INTEGER NOT NULL,
  version_seq INTEGER NOT NULL,
  root_id     INTEGER NOT NULL,
  path        BLOB NOT NULL,
  state       INTEGER NOT NULL,
  attempts    INTEGER NOT NULL,
  run_group   INTEGER,
  born        INTEGER,
  boot        TEXT,
  why         TEXT,
  at_ns       INTEGER NOT NULL,
  seq         INTEGER NOT NULL,
  PRIMARY KEY (trigger_id, file_id)
) STRICT, WITHOUT ROWID;
CREATE INDEX runs_open ON runs (trigger_id, state, file_id) WHERE state <> 2;
-- What was read again last, and what that came to: of originals (replica_id 0) and of copies, by object. of_seq is the record
-- that made the version (of a copy its of_seq). Verdict 1 verified, 2 rot, 3 changed, 4 missing, 5 foreign, 6 unreadable. Only
-- what is foreign has a path, and file_id 0.
CREATE TABLE checks (
  replica_id INTEGER NOT NULL,
  root_id    INTEGER NOT NULL,
  file_id    INTEGER NOT NULL,
  path       BLOB NOT NULL,
  of_seq     INTEGER NOT NULL,
  seq        INTEGER NOT NULL,
  at_ns      INTEGER NOT NULL,
  verdict    INTEGER NOT NULL,
  PRIMARY KEY (replica_id, root_id, file_id, path)
) STRICT, WITHOUT ROWID;
CREATE INDEX checks_oldest ON checks (replica_id, root_id, at_ns, file_id);
CREATE INDEX checks_unsound ON checks (seq) WHERE verdict <> 1;

-- Originals that were removed to free their space: their names stay, as if they were there.
CREATE TABLE released (
  file_id INTEGER PRIMARY KEY,
  seq     INTEGER NOT NULL
) STRICT;

-- The BLAKE3 of originals, where it is known, besides the SHA-256.
CREATE TABLE blake3 (
  file_id INTEGER PRIMARY KEY,
  of_seq  INTEGER NOT NULL,
  hash    BLOB NOT NULL
) STRICT;

CREATE TABLE cursors (
  follower TEXT NOT NULL PRIMARY KEY,
  journal  BLOB NOT NULL,
  seq      INTEGER NOT NULL,
  hash     BLOB NOT NULL
) STRICT, WITHOUT ROWID;

-- Records of which a part could not be applied; the other part was, and so were the records behind them.
CREATE TABLE problems (
  seq    INTEGER NOT NULL,
  part   TEXT NOT NULL,
  reason TEXT NOT NULL,
  record TEXT NOT NULL,
  PRIMARY KEY (seq, part)
) STRICT, WITHOUT ROWID;

INSERT INTO cursors VALUES ('inventory', x'', 0, x'');
