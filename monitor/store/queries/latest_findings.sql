SELECT *
FROM findings FINAL
WHERE environment = {environment:String} AND model = {model:String} AND end > {since:DateTime64(3, 'UTC')}
    AND ({detector:String} = '' OR detector = {detector:String})
ORDER BY end DESC, start DESC, detector, severity DESC, version, server, feature
LIMIT {limit:UInt64}
