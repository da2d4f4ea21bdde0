# Entrypoint of image-redis-*: the official image's contract. Its build has protected mode off, so that other containers
# can connect; this one is told so, unless somebody says otherwise.
set -euo pipefail

case "${1:-}" in "" | -* | *.conf) set -- redis-server "$@" ;; esac
[ "$1" = redis-server ] || exec "$@"
if [ "$(id -u)" = 0 ]; then
  find . \! -user redis -exec chown redis: {} +
  exec setpriv --reuid=redis --regid=redis --init-groups -- "${BASH_SOURCE[0]}" "$@"
fi
umask 0077
case "$*" in *--protected-mode* | *--version* | *--help*) exec "$@" ;; esac
exec "$@" --protected-mode no
