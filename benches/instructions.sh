#!/bin/sh
# Prints instructions, counted by callgrind: per exchange of the multiplexer, beside a map of oneshot senders behind a
# mutex; and per call in the four pairings of eras, the client's and the child's. Each is the difference of two runs, so
# that costs that occur once per run cancel out. In the pairings the simulated child costs the same each time: it reads
# a call and writes the response.
set -eu
cd "$(dirname "$0")/.."

# Prints the path of a benchmark program.
program() {
    cargo bench --bench "$1" --no-run --message-format=json |
        sed -n 's/.*"name":"'"$1"'".*"executable":"\([^"]*\)".*/\1/p' | tail -n 1
}

instructions() {
    valgrind --tool=callgrind --callgrind-out-file=/dev/null "$1" count "$2" "$3" 2>&1 |
        sed -n 's/.*Collected : \([0-9]*\).*/\1/p'
}

# Arguments: program, contender, small count, large count, and the unit that is counted.
report() {
    more=$(instructions "$1" "$2" "$4")
    less=$(instructions "$1" "$2" "$3")
    echo "$2: $(((more - less) / ($4 - $3))) instructions per $5"
}

mux=$(program mux)
for contender in mux map; do
    report "$mux" "$contender" 20000 120000 exchange
done
eras=$(program eras)
for pairing in legacy-legacy modern-modern modern-legacy legacy-modern; do
    report "$eras" "$pairing" 500 2500 call
done
