SELECT environment, model, version, argMax(name, added) AS name, argMax(layout_id, added) AS layout_id, argMax(counts, added) AS counts
FROM model_references
GROUP BY environment, model, version
