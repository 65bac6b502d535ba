#!/bin/sh
# serve.sh [PORT [READY [STOP [CODE]]]]: HTTP; /health is 404 for READY seconds and then 200; TERM: waits STOP seconds, exits CODE
port=${1:-8080} ready=${2:-0} stop=${3:-0} code=${4:-0} www=/tmp/www
mkdir -p $www
echo "hello from $(hostname)" >$www/index.html
bye() {
  echo "got TERM, stopping" >&2
  sleep "$stop"
  kill "$server" 2>/dev/null
  echo bye
  exit "$code"
}
trap bye TERM INT
httpd -f -p "$port" -h $www & server=$!
echo "listening on $port"
sleep "$ready" & wait $!
echo ok >$www/health
echo ready
wait "$server"
