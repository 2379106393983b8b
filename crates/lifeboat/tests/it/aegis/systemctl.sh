#!/bin/sh
# What stands in for systemd. As it does, it starts no unit whose condition is not met.
dir=$(dirname "$0")
case $1 in
is-active) sh "$dir/service.sh" ROOT PORT status || exit 3 ;;
stop) sh "$dir/service.sh" ROOT PORT stop ;;
start)
    for conf in SYSTEMD/"$2".d/*.conf; do
        path=$(sed -n 's/^ConditionPathExists=!//p' "$conf" 2>/dev/null)
        if test -n "$path" && test -e "$path"; then exit 0; fi
    done
    sh "$dir/service.sh" ROOT PORT start
    ;;
esac
