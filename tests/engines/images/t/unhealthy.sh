#!/bin/sh
# unhealthy.sh [AFTER]: healthy while /tmp/ok is there, which is AFTER seconds; runs on
trap 'echo bye; exit 0' TERM
: >/tmp/ok
echo healthy
sleep "${1:-3}" & wait $!
rm -f /tmp/ok
echo "now unhealthy" >&2
while :; do sleep 3600 & wait $!; done
