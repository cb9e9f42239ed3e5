SELECT
    sum(n * weight) AS "Requests",
    sum(failed * weight) / nullIf(sum(n * weight), 0) AS "Share of errors",
    uniqExact(environment, model, version) AS "Versions",
    uniqExact(server) AS "Servers"
FROM profiles
WHERE {scope} AND role = 'live' AND segment = '' AND $__timeFilter_ms(minute)
