#!/bin/sh
# Starts PostgreSQL on $PGDATA; makes it first when it is empty: a new primary, or with PRIMARY_HOST a replica of that host.
#
#   POSTGRES_PASSWORD  password of the superuser postgres
#   STANDBY_PASSWORD   password of the user standby (REPLICATION)
#   PRIMARY_HOST       makes this instance a streaming replica
#   arguments          go to postgres, such as: -c wal_level=logical
#
# What is half-made has another name, so a restart in the middle begins again.
set -eu
umask 077

new=$PGDATA.new

make_primary() {
    printf '%s\n' "$POSTGRES_PASSWORD" >/tmp/password
    initdb --pgdata="$new" --username=postgres --pwfile=/tmp/password --data-checksums --encoding=UTF8 --locale=C.UTF-8 \
        --auth-local=trust --auth-host=scram-sha-256
    rm /tmp/password
    cat >>"$new/pg_hba.conf" <<-END
	host all all all scram-sha-256
	host replication standby all scram-sha-256
	END
    cat >>"$new/postgresql.conf" <<-END
	listen_addresses = '*'
	password_encryption = 'scram-sha-256'
	unix_socket_directories = '/tmp'
	END
    # Without a network nobody meets the server before its users exist.
    pg_ctl --pgdata="$new" --wait --silent --options="-c listen_addresses=''" start
    psql --no-psqlrc --quiet --set=ON_ERROR_STOP=1 --set=password="$STANDBY_PASSWORD" <<-END
	CREATE ROLE standby REPLICATION LOGIN PASSWORD :'password';
	END
    pg_ctl --pgdata="$new" --wait --silent --mode=fast stop
}

make_replica() {
    until PGPASSWORD=$STANDBY_PASSWORD pg_basebackup --host="$PRIMARY_HOST" --username=standby --no-password --pgdata="$new" \
        --wal-method=stream --checkpoint=fast --write-recovery-conf; do
        echo "the primary $PRIMARY_HOST does not serve a base backup yet" >&2
        rm -rf "$new"
        sleep 1
    done
}

if [ ! -s "$PGDATA/PG_VERSION" ]; then
    : "${POSTGRES_PASSWORD:?is not set}" "${STANDBY_PASSWORD:?is not set}"
    mkdir -p "$(dirname "$PGDATA")"
    rm -rf "$new"
    if [ -n "${PRIMARY_HOST:-}" ]; then make_replica; else make_primary; fi
    # An empty folder may be there already; mv would put the new one inside it.
    if [ -d "$PGDATA" ]; then rmdir "$PGDATA"; fi
    mv "$new" "$PGDATA"
fi
unset POSTGRES_PASSWORD STANDBY_PASSWORD
exec postgres "$@"
