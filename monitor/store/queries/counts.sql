SELECT
    (SELECT count() FROM predictions FINAL) AS predictions,
    (SELECT count() FROM features FINAL) AS feature_rows,
    (SELECT count() FROM labels FINAL) AS labels,
    (SELECT count() FROM dead_letters FINAL) AS dead_letters,
    (SELECT count() FROM findings FINAL) AS findings
