-- The chunks that were imported under a key, and the checksum of as many lines of each as are asked about.
SELECT number, imports.lines AS length, digest, checks[{lines:UInt64}] AS check, imported
FROM imports FINAL
WHERE key = {key:String}
ORDER BY number
