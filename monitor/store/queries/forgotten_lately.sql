-- The models of which predictions were forgotten lately.
SELECT DISTINCT environment, model FROM forgotten WHERE forgotten >= {since:DateTime64(3, 'UTC')} ORDER BY environment, model
