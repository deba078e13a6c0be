-- For people with the sqlite3 shell.

CREATE VIEW originals AS
SELECT coalesce(r.host, (SELECT name FROM hosts)) AS host,
       r.name AS root,
       CAST(CASE WHEN d.path = x'' THEN f.name ELSE d.path || '/' || f.name END AS TEXT) AS path,
       CASE f.kind WHEN 1 THEN 'file' WHEN 2 THEN 'dir' WHEN 3 THEN 'symlink' WHEN 4 THEN 'fifo'
                   WHEN 5 THEN 'socket' WHEN 6 THEN 'block' WHEN 7 THEN 'char' END AS type,
       f.size,
       strftime('%Y-%m-%dT%H:%M:%S', (f.mtime_ns - ((f.mtime_ns % 1000000000) + 1000000000) % 1000000000) / 1000000000, 'unixepoch')
         || printf('.%09dZ', ((f.mtime_ns % 1000000000) + 1000000000) % 1000000000) AS mtime,
       f.inode,
       printf('%04o', f.mode) AS mode,
       f.uid || ':' || f.gid AS owner,
       CAST(f.target AS TEXT) AS target,
       CASE WHEN f.sha256 IS NOT NULL THEN lower(hex(f.sha256)) END AS sha256,
       strftime('%Y-%m-%dT%H:%M:%S', f.first_seen_ns / 1000000000, 'unixepoch')
         || printf('.%09dZ', f.first_seen_ns % 1000000000) AS first_seen,
       strftime('%Y-%m-%dT%H:%M:%S', f.last_change_ns / 1000000000, 'unixepoch')
         || printf('.%09dZ', f.last_change_ns % 1000000000) AS last_change,
       f.settled_seq >= f.version_seq AS settled,
       f.file_id
  FROM files f JOIN dirs d ON d.dir_id = f.dir_id JOIN roots r ON r.root_id = d.root_id;

CREATE VIEW file_changes AS
SELECT c.seq,
       strftime('%Y-%m-%dT%H:%M:%S', c.at_ns / 1000000000, 'unixepoch')
         || printf('.%09dZ', c.at_ns % 1000000000) AS at,
       coalesce(r.host, (SELECT name FROM hosts)) AS host,
       CASE c.op WHEN 1 THEN 'create' WHEN 2 THEN 'modify' WHEN 3 THEN 'attrib' WHEN 4 THEN 'move' WHEN 5 THEN 'delete' END
         AS change,
       r.name AS root,
       CASE WHEN c.dir_id = 0 THEN '' ELSE (
         WITH RECURSIVE up (dir_id, path, depth) AS (
           SELECT c.dir_id, CAST(c.name AS TEXT), 0
           UNION ALL
           SELECT n.parent, CAST(n.name AS TEXT) || '/' || up.path, depth + 1 FROM up JOIN dir_names n
               ON n.dir_id = up.dir_id AND n.from_seq <= c.seq AND (n.to_seq IS NULL OR n.to_seq > c.seq))
         SELECT path FROM up ORDER BY depth DESC LIMIT 1) END AS path,
       (SELECT name FROM roots WHERE root_id = c.old_root_id) AS old_root,
       CASE WHEN c.old_dir_id IS NOT NULL THEN (
         WITH RECURSIVE up (dir_id, path, depth) AS (
           SELECT c.old_dir_id, CAST(c.old_name AS TEXT), 0
           UNION ALL
           SELECT n.parent, CAST(n.name AS TEXT) || '/' || up.path, depth + 1 FROM up JOIN dir_names n
               ON n.dir_id = up.dir_id AND n.from_seq < c.seq AND (n.to_seq IS NULL OR n.to_seq >= c.seq))
         SELECT path FROM up ORDER BY depth DESC LIMIT 1) END AS old_path,
       CASE c.kind WHEN 1 THEN 'file' WHEN 2 THEN 'dir' WHEN 3 THEN 'symlink' WHEN 4 THEN 'fifo'
                   WHEN 5 THEN 'socket' WHEN 6 THEN 'block' WHEN 7 THEN 'char' END AS type,
       c.size, c.mtime_ns, c.inode,
       printf('%04o', c.mode) AS mode,
       c.uid || ':' || c.gid AS owner,
       CASE c.via WHEN 1 THEN 'fanotify' WHEN 2 THEN 'inotify' WHEN 3 THEN 'poll' WHEN 4 THEN 'scan' END AS via,
       c.by_pid, c.by_uid, CAST(c.by_exe AS TEXT) AS by_exe,
       c.merged, c.subtree, c.exchange, c.file_id
  FROM changes c JOIN roots r ON r.root_id = c.root_id;
