SELECT DISTINCT prediction_id
FROM predictions
WHERE environment = {environment:String} AND model = {model:String} AND entity_id = {entity_id:String}
ORDER BY prediction_id
