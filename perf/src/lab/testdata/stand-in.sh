#!/bin/sh
# Stands in for `heddle run --config FILE` in tests; the file's first line says how to behave.
say_ready='IO::Socket::UNIX->new(Type => SOCK_DGRAM, Peer => $ENV{NOTIFY_SOCKET})
    ->send("STATUS=up\nREADY=1\n")'
case "$(head -n 1 "$3")" in
works)
    trap 'exit 0' TERM
    trap 'cat "$3" >&2' HUP
    readlink /proc/self/ns/net >&2
    perl -MIO::Socket::UNIX -e "$say_ready"
    while :; do sleep 0.01; done
    ;;
fails)
    echo "no such key" >&2
    exit 2
    ;;
*)
    exec sleep 60
    ;;
esac
