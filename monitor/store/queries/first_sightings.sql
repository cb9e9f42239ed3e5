SELECT environment, model, min(arrived) AS since
FROM sightings
GROUP BY environment, model
ORDER BY environment, model
