#!/bin/sh
# Prints the instructions per exchange of the multiplexer, and of a map of oneshot senders behind a mutex:
# the difference of two runs under callgrind, so that what happens once per run cancels out.
set -eu
cd "$(dirname "$0")/.."

few=20000
many=120000
bench=$(cargo bench --bench mux --no-run --message-format=json |
    sed -n 's/.*"name":"mux".*"executable":"\([^"]*\)".*/\1/p' | tail -n 1)

instructions() {
    valgrind --tool=callgrind --callgrind-out-file=/dev/null "$bench" count "$1" "$2" 2>&1 |
        sed -n 's/.*Collected : \([0-9]*\).*/\1/p'
}

for contender in mux map; do
    more=$(instructions "$contender" "$many")
    less=$(instructions "$contender" "$few")
    echo "$contender: $(((more - less) / (many - few))) instructions per exchange"
done
