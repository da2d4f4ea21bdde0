# Entrypoint of image-postgres-*: the official image's contract as its documentation gives it. Only what nobody here can
# use is left out: packed scripts other than .gz, and the search for data in places of older images.
set -euo pipefail

# NAME, else the content of the file that NAME_FILE names (a mounted secret), else a default.
setting() {
  local file="${1}_FILE"
  if [ -n "${!file:-}" ]; then
    [ -z "${!1:-}" ] || { echo "$1 and $file are both set" >&2; exit 1; }
    printf -v "$1" '%s' "$(cat "${!file}")"
    unset "$file"
  fi
  export "$1=${!1:-$2}"
}

sql() { psql --no-psqlrc --no-password --set ON_ERROR_STOP=1 --username "$POSTGRES_USER" "$@"; }

run_scripts() {
  local script
  for script in /docker-entrypoint-initdb.d/*; do
    # shellcheck disable=SC1090
    case "$script" in
    *.sh) if [ -x "$script" ]; then "$script"; else . "$script"; fi ;;
    *.sql) sql --dbname "$POSTGRES_DB" --file "$script" ;;
    *.sql.gz) gzip --decompress --stdout "$script" | sql --dbname "$POSTGRES_DB" ;;
    esac
  done
}

first_run() {
  local method=${POSTGRES_HOST_AUTH_METHOD:-scram-sha-256}
  if [ -z "$POSTGRES_PASSWORD" ] && [ "$method" != trust ]; then
    echo "POSTGRES_PASSWORD is empty: set it to the superuser's password" >&2
    exit 1
  fi
  # POSTGRES_INITDB_ARGS is a line of shell words. The password comes through a pipe, so that no process list shows it.
  eval "initdb --username=\"\$POSTGRES_USER\" --pwfile=<(printf '%s\n' \"\$POSTGRES_PASSWORD\") $POSTGRES_INITDB_ARGS"
  printf '\nhost all all all %s\n' "$method" >>"$PGDATA/pg_hba.conf"
  # Nobody may connect over the network before the scripts are through.
  PGUSER=$POSTGRES_USER pg_ctl --wait --options="$(printf '%q ' "$@" -c listen_addresses= -c port=5432)" start
  if [ -z "$(sql --dbname postgres --set db="$POSTGRES_DB" -At <<<"SELECT 1 FROM pg_database WHERE datname = :'db'")" ]; then
    sql --dbname postgres --set db="$POSTGRES_DB" <<<'CREATE DATABASE :"db"'
  fi
  run_scripts
  PGUSER=$POSTGRES_USER pg_ctl --wait --mode=fast stop
}

case "${1:-}" in "" | -*) set -- postgres "$@" ;; esac
[ "$1" = postgres ] || exec "$@"
for argument; do
  case "$argument" in -C | -V | --version | -'?' | --help | --describe-config) exec "$@" ;; esac
done

if [ "$(id -u)" = 0 ]; then
  mkdir -p "$PGDATA"
  chmod 700 "$PGDATA"
  find "$PGDATA" /run/postgresql \! -user postgres -exec chown postgres: {} +
  exec setpriv --reuid=postgres --regid=postgres --init-groups -- "${BASH_SOURCE[0]}" "$@"
fi

setting POSTGRES_PASSWORD ""
setting POSTGRES_USER postgres
setting POSTGRES_DB "$POSTGRES_USER"
setting POSTGRES_INITDB_ARGS ""
[ -s "$PGDATA/PG_VERSION" ] || first_run "${@:2}"
exec "$@"
