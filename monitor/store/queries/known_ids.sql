-- Of how many forgotten predictions there are rows or labels.
SELECT uniqExact(prediction_id) AS predictions
FROM
(
    SELECT prediction_id FROM predictions WHERE environment = {environment:String} AND model = {model:String}
    UNION ALL
    SELECT prediction_id FROM features WHERE environment = {environment:String} AND model = {model:String}
    UNION ALL
    SELECT prediction_id FROM labels WHERE environment = {environment:String} AND model = {model:String}
)
WHERE hex(SHA256(prediction_id)) IN (
    SELECT id_hash FROM forgotten WHERE environment = {environment:String} AND model = {model:String})
