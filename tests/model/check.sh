#!/bin/sh
# The models with every safeguard, where no assertion may fail, and without one at a time, where one must: then the model
# can see what that safeguard is for. One TAP line each. README.md has the names and the sizes.
#
# usage: check.sh [long]    `long` searches larger bounds, too
set -u
here=$(cd "$(dirname "$0")" && pwd)
for program in spin gcc cpp; do
    command -v "$program" >/dev/null || { echo "Bail out! $program is not installed: run ./dev setup"; exit 1; }
done
directory=$(mktemp -d)
trap 'rm -rf "$directory"' EXIT
cd "$directory" || exit 1
number=0
failed=0
mode=${1:-short}

# compile MODEL [DEFINITIONS]: every state is kept in full, compressed (COLLAPSE)
compile() {
    rm -f pan*
    # shellcheck disable=SC2086
    if ! { cpp -P -undef ${2:-} "$here/$1.pml" >model.pml && spin -a model.pml &&
        nice -n 19 gcc -O2 -w -DSAFETY -DCOLLAPSE -DNOREDUCE -DMEMLIM=3500 -o pan pan.c; } >compile.log 2>&1; then
        cat compile.log
        echo "Bail out! $1.pml cannot be compiled"
        exit 1
    fi
    model=$1
}

# expect holds|fails WHAT [NAME=VALUE...]
expect() {
    number=$((number + 1))
    expected=$1
    what=$2
    shift 2
    said=$(env "$@" nice -n 19 ./pan -E -m1000000 -w22 2>&1)
    states=$(echo "$said" | sed -n 's/^ *\([0-9]*\) states, stored.*/\1/p')
    seconds=$(echo "$said" | sed -n 's/^pan: elapsed time \([^ ]*\) .*/\1/p')
    case $said in
    *"assertion violated"*) found=fails ;;
    *"Search not completed"* | *"max search depth too small"* | *"out of memory"*) found="was not searched to the end" ;;
    *"errors: 0"*) found=holds ;;
    *) found="was not searched" ;;
    esac
    result=ok
    [ "$found" = "$expected" ] || { result="not ok"; failed=1; }
    echo "$result $number - $model: $what"
    echo "# $found: ${states:-0} states, ${seconds:-?} s ($*)"
}
holds() { expect holds "$@"; }
value() { sed -n "s/^#define $1 *\([0-9][0-9]*\) .*/\1/p" "$here/$model.pml"; }
without() { # without SAFEGUARD [NAME=VALUE...]
    safeguard=$1
    shift
    expect fails "$safeguard is needed" WITHOUT="$(value "$safeguard")" "$@"
}
reaches() { # reaches WHAT [NAME=VALUE...]
    goal=$1
    shift
    expect fails "$goal" WITHOUT="$(value REACHED)" "$@"
}
long() { [ "$mode" = long ]; }

compile wal
holds "three members, three epochs" EPOCHS=3 RESTARTS=0
holds "three members, a change of rule, a daemon's restart" CHANGES=1
holds "three members, a lost disk, a daemon's restart" DISKS=1
reaches "the third epoch opens and acknowledges" EPOCHS=3 RESTARTS=0
without CUT
without JOINT EPOCHS=3 RESTARTS=0
without UNIQTL EPOCHS=3 RESTARTS=0
without PLEDGE
without TAG EPOCHS=3 RESTARTS=0
without VOIDSEAL EPOCHS=3 RESTARTS=0 CHANGES=1
without HIGHEST
without COPY DISKS=1
without BASECHK DISKS=1
without STANDBYRST
without FOLLOWCHK EPOCHS=3 RESTARTS=0 CHANGES=1 WRITES=3
without SENDERS CHANGES=1
without ACKNEW CHANGES=1
if long; then
    holds "three members, three epochs, a change of rule, three writes" EPOCHS=3 RESTARTS=0 CHANGES=1 WRITES=3
    holds "three members, three epochs, a daemon's restart" EPOCHS=3
    holds "what was pledged need not be kept where a restarted daemon waits" WITHOUT="$(value ONLY_PLEDGE)"
    holds "a restarted daemon need not wait where what was pledged is kept" WITHOUT="$(value BARRIER)"
fi
compile wal -DDATA=2
holds "two members and a witness, three epochs" EPOCHS=3 CHANGES=1
reaches "the third epoch opens and acknowledges with two members" EPOCHS=3 RESTARTS=0
compile lease
holds "three voters, drift, a change of the setting" RESTARTS=0
holds "three voters, drift, a voter's restart" SETTINGS=0
reaches "a lease runs out and the next epoch begins" RESTARTS=0
without DRIFT RESTARTS=0 SETTINGS=0
for safeguard in PRESEAL DEADREP REPLYTIME; do without "$safeguard" RESTARTS=0 SETTINGS=0 LEASE=4; done
for safeguard in AMNESIA STALETOPO; do without "$safeguard" SETTINGS=0 LEASE=4; done
without MIXED RESTARTS=0
if long; then
    holds "three voters, drift, a change of the setting, a voter's restart"
fi
echo "1..$number"
exit $failed
