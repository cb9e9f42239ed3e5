SELECT DISTINCT environment, model, id_hash FROM forgotten
