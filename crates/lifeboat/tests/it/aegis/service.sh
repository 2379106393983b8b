#!/bin/sh
# Starts and stops the gateway: `service.sh ROOT PORT stop|start|status`.
root=$1
port=$2
pid=$(cat "$root/pid" 2>/dev/null)
# One that has ended and that nobody waited for still has a number.
runs() { test -n "$pid" && grep -q '^State:[[:space:]]*[^ZX]' "/proc/$pid/status" 2>/dev/null; }
case $3 in
status) runs ;;
stop)
    echo stop >> "$root/calls"
    runs || exit 0
    kill "$pid"
    while runs; do sleep 0.02; done
    ;;
start)
    echo start >> "$root/calls"
    setsid python3 "$root/bin/gateway.py" serve "$root" "$port" >> "$root/log" 2>&1 < /dev/null &
    echo $! > "$root/pid"
    ;;
esac
