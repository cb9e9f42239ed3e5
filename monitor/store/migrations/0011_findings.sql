-- What the detectors measured. Measuring a window again replaces its findings.
CREATE TABLE IF NOT EXISTS findings
(
    environment LowCardinality(String),
    model LowCardinality(String),
    start DateTime64(3, 'UTC'),
    end DateTime64(3, 'UTC'),
    detector LowCardinality(String),
    version LowCardinality(String),
    server LowCardinality(String),
    segment LowCardinality(String),
    feature LowCardinality(String),
    without Array(String),
    baseline LowCardinality(String),
    id String,
    status LowCardinality(String),
    value Float64,
    low Float64,
    high Float64,
    p_value Float64,
    n UInt64,
    n_baseline UInt64,
    component LowCardinality(String),
    severity Float64,
    effect_names Array(LowCardinality(String)),
    effect_values Array(Float64),
    contribution_cells Array(String),
    contribution_baselines Array(Float64),
    contribution_shares Array(Float64),
    message String,
    score_names Array(LowCardinality(String)),
    score_values Array(Float64),
    score_calibrated Array(Float64),
    exposure Float64,
    mode LowCardinality(String),
    measured DateTime64(3, 'UTC')
)
ENGINE = ReplacingMergeTree(measured)
PARTITION BY toYYYYMM(end)
ORDER BY (environment, model, end, start, detector, id)
