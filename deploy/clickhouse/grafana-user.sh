#!/bin/bash
# Makes the user that only reads, from the secret as it is now. The image runs this at every start, before the server
# listens. In a file and not by SQL, because then the user telltale need not be one that manages users.
(
    set -euo pipefail
    hash=$(tr -d '\n' < /run/secrets/clickhouse_grafana_password | sha256sum | cut -d ' ' -f 1)
    cat > /etc/clickhouse-server/users.d/grafana.xml << XML
<clickhouse>
    <profiles>
        <!-- 1 would also refuse the time limit that Grafana's plugin sets for each query. -->
        <reader><readonly>2</readonly></reader>
    </profiles>
    <users>
        <grafana>
            <password_sha256_hex>$hash</password_sha256_hex>
            <networks><ip>::/0</ip></networks>
            <profile>reader</profile>
            <quota>default</quota>
            <grants>
                <query>GRANT SELECT ON telltale.predictions</query>
                <query>GRANT SELECT ON telltale.features</query>
                <query>GRANT SELECT ON telltale.labels</query>
                <query>GRANT SELECT ON telltale.releases</query>
                <query>GRANT SELECT ON telltale.health</query>
                <query>GRANT SELECT ON telltale.profiles</query>
                <!-- What that view reads. -->
                <query>GRANT SELECT ON telltale.profile_batches</query>
                <query>GRANT SELECT ON telltale.profile_hours</query>
                <query>GRANT SELECT ON telltale.profile_folds</query>
                <query>GRANT SELECT ON telltale.profile_seals</query>
                <query>GRANT SELECT ON telltale.schemas</query>
                <query>GRANT SELECT ON telltale.findings</query>
                <!-- Its other columns hold raw lines, also of fields that are dropped or hashed elsewhere. -->
                <query>GRANT SELECT(source, batch, row, received, reason) ON telltale.dead_letters</query>
            </grants>
        </grafana>
    </users>
</clickhouse>
XML
)
