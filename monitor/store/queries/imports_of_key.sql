SELECT number, size, digest
FROM imports FINAL
WHERE key = {key:String}
ORDER BY number
