SELECT hex(name) AS value, name AS text
FROM (SELECT DISTINCT arrayJoin(arrayConcat(num_names, cat_names, ['@prediction', '@score'])) AS name FROM schemas WHERE {model})
ORDER BY text
