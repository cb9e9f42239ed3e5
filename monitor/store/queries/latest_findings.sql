SELECT *
FROM findings FINAL
WHERE environment = {environment:String} AND model = {model:String} AND end > {since:DateTime64(3, 'UTC')}
ORDER BY end DESC, start DESC, detector, severity DESC, version, server, feature
LIMIT {limit:UInt64}
