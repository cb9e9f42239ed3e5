SELECT count() AS rows
FROM features FINAL
WHERE environment = {environment:String} AND model = {model:String}
