#!/bin/sh
# Only KILL ends it
trap '' TERM INT HUP QUIT
echo "ignoring TERM"
while :; do sleep 3600 & wait $!; done
