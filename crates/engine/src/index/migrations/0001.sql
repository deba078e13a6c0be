-- The shared index: what every host knows, for all to ask. Each row belongs to one host, whose number comes first in every
-- primary key; rows of different hosts never touch. Numbers for kinds, operations and sources are those of the inventory;
-- the views spell them out.

-- One row for each journal that was loaded. A replay loads a new one beside it (is_loading), which then takes its place; a
-- host's earlier journals keep their history and are not current.
CREATE TABLE hosts (
  host_id      integer     NOT NULL PRIMARY KEY,
  name         text        NOT NULL,
  identity     text        NOT NULL,
  journal      uuid        NOT NULL,
  is_current   boolean     NOT NULL,
  is_loading   boolean     NOT NULL DEFAULT false,
  history_from bigint      NOT NULL,
  since        timestamptz NOT NULL DEFAULT now()
);
CREATE UNIQUE INDEX hosts_current ON hosts (name) WHERE is_current;

-- How far each host's journal is applied. Every transaction of a host first moves its row from exactly what it was.
-- head_seq is the journal's end as that transaction knew it.
CREATE TABLE cursors (
  host_id  integer     NOT NULL PRIMARY KEY,
  journal  uuid        NOT NULL,
  seq      bigint      NOT NULL,
  hash     bytea       NOT NULL,
  head_seq bigint      NOT NULL,
  moved_at timestamptz NOT NULL
);

-- The counts are of names: a file with two names counts twice.
CREATE TABLE roots (
  host_id  integer NOT NULL,
  root_id  bigint  NOT NULL,
  name     text    NOT NULL,
  dir      bytea,
  identity text,
  watched  boolean NOT NULL,
  files    bigint  NOT NULL,
  dirs     bigint  NOT NULL,
  others   bigint  NOT NULL,
  bytes    bigint  NOT NULL,
  PRIMARY KEY (host_id, root_id)
);
CREATE UNIQUE INDEX roots_name ON roots (host_id, name);

-- Live directories. The only place where a live path stands: renaming a directory of a million files changes its row and
-- those of directories below it. path is exact; path_text is for people.
CREATE TABLE dirs (
  host_id   integer NOT NULL,
  dir_id    bigint  NOT NULL,
  root_id   bigint  NOT NULL,
  parent    bigint  NOT NULL,
  name      bytea   NOT NULL,
  path      bytea   NOT NULL,
  path_text text    COLLATE "C" NOT NULL,
  PRIMARY KEY (host_id, dir_id)
);
-- A path can be longer than an index takes: found whole by its hash, and by its beginning where a range is asked for.
CREATE INDEX dirs_path ON dirs (host_id, root_id, sha256(path));
CREATE INDEX dirs_below ON dirs (host_id, root_id, substr(path, 1, 512));

-- Every place where a directory ever stood; to_seq is null while it stands there.
CREATE TABLE dir_names (
  host_id  integer NOT NULL,
  dir_id   bigint  NOT NULL,
  from_seq bigint  NOT NULL,
  to_seq   bigint,
  parent   bigint  NOT NULL,
  name     bytea   NOT NULL,
  PRIMARY KEY (host_id, dir_id, from_seq)
);

-- Live names of every kind of object, directories too, in the directory that holds them (the roots in directory 0).
-- name_text is there only where name is no text. ext is what stands behind the last dot of a file's name, in small letters.
-- Every new version settles a little later, which writes its row again and no indexed column: half of each page is left free
-- for that, so that the new row stays in its page and no index is written (HOT). The free half would be needed anyway.
CREATE TABLE files (
  host_id        integer  NOT NULL,
  kind           smallint,
  dir_id         bigint   NOT NULL,
  file_id        bigint   NOT NULL,
  size           bigint   CHECK (size >= 0),
  mtime_ns       bigint,
  ctime_ns       bigint,
  dev            bigint,
  inode          bigint,
  uid            bigint,
  gid            bigint,
  nlink          bigint,
  mode           integer,
  first_seen_ns  bigint   NOT NULL,
  from_seq       bigint   NOT NULL,
  version_seq    bigint   NOT NULL,
  last_seq       bigint   NOT NULL,
  last_change_ns bigint   NOT NULL,
  settled_seq    bigint   NOT NULL,
  name           bytea    NOT NULL,
  name_text      text,
  ext            text     COLLATE "C",
  target         bytea,
  sha256         bytea,
  PRIMARY KEY (host_id, dir_id, name)
) WITH (fillfactor = 50);
CREATE INDEX files_inode ON files (host_id, inode);
CREATE INDEX files_ext ON files (host_id, ext) WHERE ext IS NOT NULL;
CREATE INDEX files_big ON files (host_id, size) WHERE size >= 1048576;

-- Names that ended: by a deletion, a move, or another object in their place.
CREATE TABLE past_names (
  host_id  integer NOT NULL,
  dir_id   bigint  NOT NULL,
  name     bytea   NOT NULL,
  to_seq   bigint  NOT NULL,
  file_id  bigint  NOT NULL,
  from_seq bigint  NOT NULL,
  kind     smallint,
  PRIMARY KEY (host_id, dir_id, name, to_seq, file_id)
);

-- The places that hold copies. files and bytes are what each holds of regular files; roots is a JSON object.
CREATE TABLE replicas (
  host_id    integer NOT NULL,
  replica_id bigint  NOT NULL,
  name       text    NOT NULL,
  url        text,
  identity   text,
  roots      text    NOT NULL,
  files      bigint  NOT NULL,
  bytes      bigint  NOT NULL,
  PRIMARY KEY (host_id, replica_id)
);
CREATE UNIQUE INDEX replicas_name ON replicas (host_id, name);

-- Which replica holds which version: of_seq is the last record that had told of the original. path is exact and in the root,
-- a directory's with a slash at its end; path_hash is its sha256, because a path can be longer than an index takes.
CREATE TABLE copies (
  host_id    integer  NOT NULL,
  kind       smallint NOT NULL,
  proof      smallint NOT NULL,
  replica_id bigint   NOT NULL,
  root_id    bigint   NOT NULL,
  file_id    bigint   NOT NULL,
  of_seq     bigint   NOT NULL,
  seq        bigint   NOT NULL,
  size       bigint   NOT NULL,
  mtime_ns   bigint   NOT NULL,
  path_hash  bytea    NOT NULL,
  path       bytea    NOT NULL,
  sha256     bytea,
  PRIMARY KEY (host_id, replica_id, root_id, path_hash)
);
CREATE INDEX copies_below ON copies (host_id, replica_id, root_id, substr(path, 1, 512));
CREATE INDEX copies_file ON copies (host_id, file_id);

-- Originals that could not be copied, given up for now.
CREATE TABLE failures (
  host_id    integer NOT NULL,
  replica_id bigint  NOT NULL,
  root_id    bigint  NOT NULL,
  seq        bigint  NOT NULL,
  at_ns      bigint  NOT NULL,
  path_hash  bytea   NOT NULL,
  path       bytea   NOT NULL,
  why        text    NOT NULL,
  PRIMARY KEY (host_id, replica_id, root_id, path_hash)
);

-- The history, in partitions by month, so that old ones can be detached. at has microseconds, as PostgreSQL's times have;
-- at_ns holds the nanoseconds behind them. path is for people; path_raw is there only where the path is no text, and then
-- it counts. The record that first told of an object has its id as seq, so changes_file holds only the later ones.
CREATE TABLE changes (
  host_id      integer     NOT NULL,
  op           smallint    NOT NULL,
  via          smallint    NOT NULL,
  seq          bigint      NOT NULL,
  at           timestamptz NOT NULL,
  file_id      bigint,
  size         bigint,
  mtime_ns     bigint,
  ctime_ns     bigint,
  dev          bigint,
  inode        bigint,
  uid          bigint,
  gid          bigint,
  nlink        bigint,
  by_pid       bigint,
  by_uid       bigint,
  mode         integer,
  kind         smallint,
  at_ns        smallint    NOT NULL,
  merged       boolean     NOT NULL,
  subtree      boolean     NOT NULL,
  exchange     boolean     NOT NULL,
  root         text        COLLATE "C" NOT NULL,
  path         text        COLLATE "C" NOT NULL,
  path_raw     bytea,
  old_root     text        COLLATE "C",
  old_path     text        COLLATE "C",
  old_path_raw bytea,
  target       bytea,
  by_exe       bytea,
  extra        text,
  PRIMARY KEY (host_id, seq, at)
) PARTITION BY RANGE (at);
CREATE INDEX changes_path ON changes (host_id, root, left(path, 200), at);
CREATE INDEX changes_old_path ON changes (host_id, coalesce(old_root, root), left(old_path, 200), at)
  WHERE old_path IS NOT NULL;
CREATE INDEX changes_file ON changes (host_id, file_id, seq) WHERE file_id <> seq;
CREATE INDEX changes_at ON changes USING brin (at);

-- What Keepwatch did or decided. path is in the root, or for config the root's own; detail is a JSON object.
CREATE TABLE acts (
  host_id  integer     NOT NULL,
  seq      bigint      NOT NULL,
  at       timestamptz NOT NULL,
  file_id  bigint,
  at_ns    smallint    NOT NULL,
  act      text        NOT NULL,
  root     text        COLLATE "C",
  path     text        COLLATE "C",
  path_raw bytea,
  detail   text        NOT NULL,
  extra    text,
  PRIMARY KEY (host_id, seq, at)
) PARTITION BY RANGE (at);
CREATE INDEX acts_file ON acts (host_id, file_id, seq) WHERE file_id IS NOT NULL;
CREATE INDEX acts_at ON acts USING brin (at);
CREATE INDEX acts_rare ON acts (host_id, act, seq) WHERE act <> 'settled';

-- Records of which a part could not be applied; the other part was, and so were the records behind them.
CREATE TABLE problems (
  host_id integer     NOT NULL,
  seq     bigint      NOT NULL,
  part    text        NOT NULL,
  reason  text        NOT NULL,
  record  text        NOT NULL,
  since   timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (host_id, seq, part)
);

CREATE VIEW originals AS
SELECT h.name AS host,
       r.name AS root,
       CASE WHEN d.path_text = '' THEN '' ELSE d.path_text || '/' END
         || coalesce(f.name_text, convert_from(f.name, 'UTF8')) AS path,
       CASE f.kind WHEN 1 THEN 'file' WHEN 2 THEN 'dir' WHEN 3 THEN 'symlink' WHEN 4 THEN 'fifo'
                   WHEN 5 THEN 'socket' WHEN 6 THEN 'block' WHEN 7 THEN 'char' END AS type,
       f.size,
       timestamptz 'epoch' + (f.mtime_ns / 1000) * interval '1 microsecond' AS mtime,
       f.inode,
       ((f.mode >> 9) & 7)::text || ((f.mode >> 6) & 7)::text || ((f.mode >> 3) & 7)::text || (f.mode & 7)::text AS mode,
       f.uid::text || ':' || f.gid::text AS owner,
       encode(f.target, 'escape') AS target,
       encode(f.sha256, 'hex') AS sha256,
       timestamptz 'epoch' + (f.first_seen_ns / 1000) * interval '1 microsecond' AS first_seen,
       timestamptz 'epoch' + (f.last_change_ns / 1000) * interval '1 microsecond' AS last_change,
       f.settled_seq >= f.version_seq AS settled,
       f.file_id
  FROM hosts h
  JOIN roots r ON r.host_id = h.host_id
  JOIN dirs d ON d.host_id = r.host_id AND d.root_id = r.root_id
  JOIN files f ON f.host_id = d.host_id AND f.dir_id = d.dir_id
 WHERE h.is_current;

CREATE VIEW file_changes AS
SELECT c.seq, c.at, h.name AS host,
       CASE c.op WHEN 1 THEN 'create' WHEN 2 THEN 'modify' WHEN 3 THEN 'attrib' WHEN 4 THEN 'move' WHEN 5 THEN 'delete' END
         AS change,
       c.root, c.path, c.old_root, c.old_path,
       CASE c.kind WHEN 1 THEN 'file' WHEN 2 THEN 'dir' WHEN 3 THEN 'symlink' WHEN 4 THEN 'fifo'
                   WHEN 5 THEN 'socket' WHEN 6 THEN 'block' WHEN 7 THEN 'char' END AS type,
       c.size, c.mtime_ns, c.inode,
       ((c.mode >> 9) & 7)::text || ((c.mode >> 6) & 7)::text || ((c.mode >> 3) & 7)::text || (c.mode & 7)::text AS mode,
       c.uid::text || ':' || c.gid::text AS owner,
       CASE c.via WHEN 1 THEN 'fanotify' WHEN 2 THEN 'inotify' WHEN 3 THEN 'poll' WHEN 4 THEN 'scan' END AS via,
       c.by_pid, c.by_uid, encode(c.by_exe, 'escape') AS by_exe,
       c.merged, c.subtree, c.exchange, c.file_id
  FROM hosts h JOIN changes c ON c.host_id = h.host_id
 WHERE NOT h.is_loading;

-- Every original file with each copy of its present version; a file without any has one row, in which replica is null.
CREATE VIEW original_copies AS
SELECT h.name AS host, r.name AS root,
       CASE WHEN d.path_text = '' THEN '' ELSE d.path_text || '/' END
         || coalesce(f.name_text, convert_from(f.name, 'UTF8')) AS path,
       f.size, encode(f.sha256, 'hex') AS sha256, f.settled_seq >= f.version_seq AS settled,
       p.name AS replica,
       CASE c.proof WHEN 1 THEN 'presumed' WHEN 2 THEN 'written' WHEN 3 THEN 'proved' END AS proof,
       f.file_id
  FROM hosts h
  JOIN roots r ON r.host_id = h.host_id
  JOIN dirs d ON d.host_id = r.host_id AND d.root_id = r.root_id
  JOIN files f ON f.host_id = d.host_id AND f.dir_id = d.dir_id AND f.kind = 1
  LEFT JOIN copies c ON c.host_id = f.host_id AND c.file_id = f.file_id AND c.of_seq >= f.version_seq
  LEFT JOIN replicas p ON p.host_id = c.host_id AND p.replica_id = c.replica_id
 WHERE h.is_current;
