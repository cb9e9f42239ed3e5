SELECT version, action, timestamp, servers, released_by, reason, artifact_digest
FROM releases FINAL
WHERE environment = {environment:String} AND model = {model:String} AND timestamp <= {until:DateTime64(3, 'UTC')}
ORDER BY timestamp DESC
LIMIT 10000
