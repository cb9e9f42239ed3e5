SELECT environment, model, argMax(num_names, added) AS num_names, argMax(cat_names, added) AS cat_names, argMax(task, added) AS task, min(added) AS since
FROM schemas
GROUP BY environment, model
