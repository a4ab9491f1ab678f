#!/bin/sh
# Two workers, each on a machine of its own, with a narrow network between them, against
# one process: sh benchmarks/narrow.sh [flags of workers.py]
#
# A machine is a network namespace; a pair of virtual interfaces connects them, each held
# to $RATE (1gbit) and $DELAY (0.5ms). Whatever becomes of it, both are removed again.
set -eu
rate=${RATE:-1gbit} delay=${DELAY:-0.5ms}
a=autorec-a-$$ b=autorec-b-$$

skip() {
    echo "skipped: $1"
    exit 0
}
[ "$(id -u)" = 0 ] || skip "only root may make network namespaces"
for tool in ip tc; do
    command -v $tool > /dev/null || skip "there is no $tool (iproute2)"
done
trap 'ip netns del $a 2> /dev/null || :; ip netns del $b 2> /dev/null || :' EXIT
trap 'exit 1' INT TERM HUP
ip netns add "$a" 2> /dev/null || skip "network namespaces are not allowed here"
ip netns add "$b"
ip -n "$a" link add eth0 type veth peer name eth0 netns "$b" ||
    skip "virtual interfaces are not allowed here"
for host in "$a 1" "$b 2"; do
    name=${host% *}
    ip -n "$name" link set lo up
    ip -n "$name" addr add "10.77.0.${host#* }/24" dev eth0
    ip -n "$name" link set eth0 up
    hold="ip netns exec $name tc qdisc add dev eth0 root"
    if $hold netem delay "$delay" rate "$rate" limit 10000 2> /dev/null; then
        continue
    fi
    $hold tbf rate "$rate" burst 256k latency 50ms 2> /dev/null ||
        skip "tc may not hold an interface to a rate here"
    echo "without the delay, which this kernel does not have (netem)"
done
"${PYTHON:-python}" "$(dirname "$0")/workers.py" \
    --hosts "$a" "$b" --address 10.77.0.1 --interface eth0 "$@"
