-- Every set of features that a model was ever seen with, oldest first.
SELECT environment, model, num_names, cat_names, task, added
FROM schemas
ORDER BY environment, model, added, schema_id
