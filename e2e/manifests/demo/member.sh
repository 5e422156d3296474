#!/bin/sh
# Runs one member of a PostgreSQL cluster, in the place of Spilo's Patroni: pod number 0 is the leader, the others follow it.
# A data directory that exists, because the container was restarted or a backup was restored into it, is started as it is.
set -eu
bin=$(echo /usr/lib/postgresql/*/bin)
export PATH="$bin:$PATH" PGDATA=/data/pgdata
leader="$CLUSTER-0.$CLUSTER"

if [ -s "$PGDATA/PG_VERSION" ]; then
    echo "starting on the data that are here"
elif [ "${HOSTNAME##*-}" = 0 ]; then
    umask 077
    printf '%s' "$POSTGRES_PASSWORD" >/tmp/password
    initdb --username=postgres --pwfile=/tmp/password --auth-local=trust --auth-host=scram-sha-256 \
        --encoding=UTF8 --locale=C.UTF-8 --data-checksums --no-sync
    rm /tmp/password
    for database in replication all; do
        echo "host $database all all scram-sha-256" >>"$PGDATA/pg_hba.conf"
    done
    # On a socket of its own, so that no probe takes this for the real start.
    pg_ctl --wait --options="-c listen_addresses='' -k /tmp" start
    psql -h /tmp -U postgres -v ON_ERROR_STOP=1 -v "password=$STANDBY_PASSWORD" <<'SQL'
create role standby with login replication password :'password';
SQL
    pg_ctl --wait --mode=fast stop
else
    until pg_isready --quiet --host="$leader"; do sleep 0.5; done
    PGPASSWORD=$STANDBY_PASSWORD pg_basebackup --host="$leader" --username=standby --pgdata="$PGDATA" \
        --write-recovery-conf --wal-method=stream --checkpoint=fast --no-sync
fi

# The data are not worth a disk's flush.
exec postgres -c listen_addresses='*' -c shared_buffers=32MB -c max_wal_size=2GB -c fsync=off
