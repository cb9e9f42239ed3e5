SELECT schema_id, num_names, cat_names
FROM schemas FINAL
WHERE environment = {environment:String} AND model = {model:String}
ORDER BY added
