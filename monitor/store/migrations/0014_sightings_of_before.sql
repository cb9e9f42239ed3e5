-- Models from before there were sightings were first seen when their features were.
INSERT INTO sightings SELECT environment, model, min(added) FROM schemas GROUP BY environment, model
