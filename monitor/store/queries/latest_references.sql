-- segment_counts: the counts of the first segment, then those of the second, and so on.
SELECT
    environment,
    model,
    version,
    argMax(name, added) AS name,
    argMax(layout_id, added) AS layout_id,
    argMax(counts, added) AS counts,
    argMax(segments, added) AS segments,
    argMax(segment_counts, added) AS segment_counts
FROM model_references
GROUP BY environment, model, version
