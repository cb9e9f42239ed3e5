SELECT
    sum(n * weight) AS "Requests",
    sum(failed * weight) / sum(n * weight) AS "Share of errors",
    uniqExact(environment, model, version) AS "Versions",
    uniqExact(server) AS "Servers"
FROM profiles FINAL
WHERE {scope} AND role = 'live' AND segment = '' AND $__timeFilter_ms(minute)
